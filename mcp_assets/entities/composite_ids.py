"""Composite ids: the id of an entity whose source table has a key of several columns, as one text.

The values of the columns stand in order, with a slash between them. In a value, `~` is written as `~0` and `/` as `~1`,
as in a JSON Pointer (RFC 6901). So two different keys never have the same text, and the text can be split again.
"""

from collections.abc import Sequence

SEPARATOR = "/"

ESCAPES = (("~", "~0"), ("/", "~1"))
"""What a value holds -> how it is written. In this order, because the second one writes a tilde."""


def join_id(values: Sequence[str]) -> str:
    """The id of the key with these values, in the order of its columns."""
    written = []
    for value in values:
        for character, escape in ESCAPES:
            value = value.replace(character, escape)
        written.append(value)
    return SEPARATOR.join(written)


def split_id(entity_id: str, columns: int) -> tuple[str, ...] | None:
    """The values of the key that `join_id` writes as `entity_id`; None if no key of so many columns has this id."""
    written = entity_id.split(SEPARATOR)
    values = []
    for value in written:
        for character, escape in reversed(ESCAPES):
            value = value.replace(escape, character)
        values.append(value)
    # A tilde that begins no escape is in no id, although it could be read.
    return tuple(values) if len(values) == columns and join_id(values) == entity_id else None
