"""Oddities: faults in a message that is an event all the same, because its entity is clear.

Code that reads a field reports here what it leaves out or mends, and goes on. An id is never mended, because a mended
id would name another entity: the oddity at its path becomes the rejection of the message.
"""

import re
from collections.abc import Iterator

from mcp_assets.events.model import ErrorKind, Oddity
from mcp_assets.events.rejection import Path, Rejection, render

MAX_KEPT = 10
"""Oddities of one message that are kept as warnings: the first ones show the mistake of the sender."""

_INDEX = re.compile(r"\[\d+\]")
"""The index of a list item in a JSON path."""


class Oddities:
    """The oddities of one message, each path once, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[Path, Rejection] = {}

    def add(self, path: Path, oddity: Rejection) -> None:
        """`oddity`: the rejection that it would be in a message whose every field counts."""
        self._found.setdefault(path, oddity)

    @property
    def are_none(self) -> bool:
        return not self._found

    def at(self, path: Path) -> Rejection | None:
        return self._found.get(path)

    def __iter__(self) -> Iterator[tuple[Path, Rejection]]:
        return iter(self._found.items())

    def kept(self) -> tuple[Oddity, ...]:
        """The first MAX_KEPT as warnings, one of each kind and place; all items of a list are one place."""
        if not self._found:
            return ()
        kept: dict[tuple[str, ErrorKind], Oddity] = {}
        for path, rejection in self._found.items():
            place = _INDEX.sub("[]", render(path))
            kept.setdefault((place, rejection.kind), Oddity(place, rejection.kind, rejection.error))
            if len(kept) == MAX_KEPT:
                break
        return tuple(kept.values())
