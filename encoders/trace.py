"""A record of what reading changed, pass by pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .draft import Constant, Draft, Operand


class Trace:
    """Counts of operators by what became of them; filled by the reader and its passes.

    Attributes:
        operators: Operators of the file by name, local functions written out, bodies of control flow included.
        folded: Operators that do not depend on any input of the network: known or stored numbers now.
        removed: Operators that do nothing at inference.
        rewritten: `(operator, canonical operator)` where the two differ.
        unused: Canonical operators that no output depends on any more: parts of idioms, and dead branches.
        absorbed: `(operator, layer that took it in)`.
        merged_sums: Sums that became terms of another sum.
    """

    def __init__(self) -> None:
        self.operators: Counter[str] = Counter()
        self.folded: Counter[str] = Counter()
        self.removed: Counter[str] = Counter()
        self.rewritten: Counter[tuple[str, str]] = Counter()
        self.unused: Counter[str] = Counter()
        self.absorbed: Counter[tuple[str, str]] = Counter()
        self.merged_sums = 0

    def clear(self) -> None:
        """Forgets everything: the reader starts again."""
        for counts in (self.operators, self.folded, self.removed, self.rewritten, self.unused, self.absorbed):
            counts.clear()
        self.merged_sums = 0

    def translated(
        self, draft: Draft, op: str, operands: Sequence[Operand | None], results: Operand | Sequence[Operand]
    ) -> None:
        """Records what one operator of the file has become."""
        first = results if isinstance(results, int | Constant) else results[0] if results else None
        if first is None or isinstance(first, Constant):
            self.folded[op] += 1
        elif first in operands:
            self.removed[op] += 1
        elif draft.nodes[first].op != op:
            self.rewritten[op, draft.nodes[first].op] += 1
