"""Ids of source rows: how the types of id columns spell them, and living rows whose ids cannot be those of entities."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from mcp_assets.entities.refs import MAX_ID_BYTES, MAX_ID_LENGTH

NAMELESS = "(no id)"
"""Stands in reports for the id of rows that have none."""

MOST_FAULTS = 1_000
"""Ids that one report names: a mapping to a wrong column makes every id of the table faulty, and a thousand show it."""

BEGINNING = 200
"""Characters of a too long id that a report shows."""


@dataclass(slots=True)
class IdFaults:
    """Living source rows that cannot be entities because of their ids.

    A view has such rows, or a table whose mapping names a wrong column.
    """

    nameless: int = 0
    """Rows whose id is NULL or empty."""
    repeated: dict[str, int] = field(default_factory=dict)
    """Ids that several rows bear, with the number of rows; at most MOST_FAULTS."""
    too_long: dict[str, int] = field(default_factory=dict)
    """The beginnings of ids that are too long, with the bytes of the whole id; at most MOST_FAULTS."""
    more: int = 0
    """Further ids that are repeated or too long."""

    def sentences(self) -> dict[str, tuple[str, str]]:
        """By id, an error kind and a sentence for the reader of a report; rows without an id stand under NAMELESS."""
        found = {}
        if self.nameless:
            found[NAMELESS] = (
                "missing_id",
                f"{self.nameless} rows of the source table have no id: the id column of the mapping must be filled",
            )
        for entity_id, count in self.repeated.items():
            found[entity_id] = (
                "repeated_id",
                f"{count} living rows of the source table bear this id: map a column that names each row, or let the "
                "view give each id once",
            )
        for beginning, size in self.too_long.items():
            found[beginning] = (
                "bad_id",
                f"the id of the source row has {size} bytes in UTF-8; an id has at most {MAX_ID_LENGTH} characters and "
                f"{MAX_ID_BYTES} bytes",
            )
        return found


def _spell_uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def _spell_integer(text: str, *, bits: int) -> str | None:
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        return None
    number = int(text)
    return str(number) if -(1 << bits - 1) <= number < 1 << bits - 1 else None


def _spell_text(text: str) -> str | None:
    return text


SPELLING: Mapping[str, Callable[[str], str | None]] = {
    "uuid": _spell_uuid,
    "smallint": partial(_spell_integer, bits=16),
    "integer": partial(_spell_integer, bits=32),
    "bigint": partial(_spell_integer, bits=64),
    "text": _spell_text,
    "character varying": _spell_text,
}
"""By the type of an id column, the id as that type prints it, or None for a text that the type cannot hold.

These are the types that id columns usually have.
"""
