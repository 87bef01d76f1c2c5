"""Sums: adds counts of one value to those of another, field by field."""

from collections.abc import Iterable


def add_fields(total: object, part: object, names: Iterable[str]) -> None:
    """Add the fields `names` of `part` to those of `total`, which have the same names."""
    for name in names:
        setattr(total, name, getattr(total, name) + getattr(part, name))
