"""Metadata values as texts: of a list, one text or one number, because sites store references and tags as each."""

import math
from collections.abc import Iterator

from mcp_assets.entities.refs import MAX_ID_LENGTH

_MAX_INTEGER_BITS = int(MAX_ID_LENGTH * math.log2(10))
"""A larger integer has more digits than an id may have, and writing it as text takes quadratic time."""


def texts_of(value: object) -> Iterator[str]:
    """The texts in a JSON value, trimmed, in order: of a list its items, otherwise the value itself.

    A text is one item, even if it has commas. Numbers become text (7.0 is 7). Null, booleans, empty texts, numbers that
    are not finite, and values nested deeper are left out.
    """
    for item in value if isinstance(value, list | tuple) else (value,):
        text = _text_of(item)
        if text:
            yield text


def _text_of(item: object) -> str | None:
    match item:
        case str():
            return item.strip()
        case bool():
            return None
        case float() if math.isfinite(item):
            return str(int(item)) if item.is_integer() else str(item)
        case int() if item.bit_length() <= _MAX_INTEGER_BITS:
            return str(item)
        case _:
            return None
