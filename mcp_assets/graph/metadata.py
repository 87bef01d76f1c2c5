"""Metadata values as texts: a list, one text or one number, in whatever shape a site has stored it."""

import math
from collections.abc import Iterator

from mcp_assets.entities.refs import MAX_ID_LENGTH

_MAX_INTEGER_BITS = int(MAX_ID_LENGTH * math.log2(10))


def texts_of(value: object) -> Iterator[str]:
    """The texts in a JSON value, trimmed, in order: of a list its items, otherwise the value itself.

    A text is one item, commas or not. Numbers become text (7.0 is 7). Null, booleans, empty texts, numbers that are
    not finite, and what is nested deeper are left out.
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
