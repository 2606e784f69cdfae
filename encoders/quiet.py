"""Keeps other libraries quiet, and their errors short."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO


@contextmanager
def quiet(loggers: Sequence[str], streams: bool = False) -> Iterator[None]:
    """Silences warnings, what these loggers say, and, if `streams` says so, what is printed from Python."""
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        if streams:
            stack.enter_context(redirect_stdout(StringIO()))
            stack.enter_context(redirect_stderr(StringIO()))
        warnings.simplefilter("ignore")
        for logger in found:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(found, levels, strict=True):
                logger.setLevel(level)


def one_line(error: BaseException) -> str:
    """The first cause of an error: its type and its first line, at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
