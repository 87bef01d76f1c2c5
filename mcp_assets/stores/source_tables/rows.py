"""Source rows as the platform takes them, and metadata that PostgreSQL's jsonb can hold and no other store can."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcp_assets.events.decode import MAX_DEPTH


@dataclass(frozen=True, slots=True)
class SourceRow:
    """An entity's row as its source table has it now. A row that is not alive carries no state."""

    alive: bool
    title: str | None
    content: str
    metadata: Mapping[str, Any]
    source_hash: str
    unstorable: str | None = None
    """Why the other stores cannot hold the metadata, although jsonb can; then `metadata` is empty."""
    repeated: bool = False
    """Several living rows bear the id, so that it is unknown which of them is the entity."""


class RowHash(NamedTuple):
    """Whether a source row is alive, and its hash."""

    alive: bool
    source_hash: str


def read_metadata(text: str) -> tuple[dict[str, Any], str | None]:
    """The metadata without nulls, or the reason why they are unstorable.

    jsonb takes any nesting and numbers of any length.
    """
    try:
        metadata = _DECODER.decode(text)
    except RecursionError:
        return {}, f"they are nested more than {MAX_DEPTH} levels deep"
    except ValueError as error:
        return {}, str(error)
    # Only a text with that many brackets can be so deep; the look at each value costs more than the parsing.
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, metadata):
        return {}, f"they are nested more than {MAX_DEPTH} levels deep"
    return {key: value for key, value in metadata.items() if value is not None}, None


def _integer(digits: str) -> int:
    _float(digits)
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("they hold a number beyond 64-bit floats")
    return number


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float)


def _deeper_than(depth: int, value: Any) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(depth - 1, item) for item in inner)
