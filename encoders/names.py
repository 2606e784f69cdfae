"""Things that are looked up by name: one way to register them, one way to say that a name is unknown."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import ConfigError

Entry = TypeVar("Entry")


def take_name(table: MutableMapping[str, Any], name: str, entry: object, what: str) -> None:
    """Enters a thing under a name; `what` is what to call it, with its article.

    Raises:
        ConfigError: The name is taken.
    """
    if name in table:
        raise ConfigError(f"{what} called {name!r} is registered already: choose another name")
    table[name] = entry


def look_up(table: Mapping[str, Entry], name: str, what: str) -> Entry:
    """The thing called `name`; `what` is what to call it, without an article.

    Raises:
        ConfigError: There is none; the message lists those there are.
    """
    if name not in table:
        near = get_close_matches(name, table, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown {what} {name!r}, expected one of {', '.join(sorted(table))}{hint}")
    return table[name]


def perhaps(near: Sequence[str]) -> str:
    """What an error message says of names that are close to the one given; nothing if there are none."""
    return f" (perhaps {' or '.join(map(repr, near))}?)" if near else ""
