"""Edge copy: edges as the lines of a COPY, which is the fastest way to write very many rows."""

import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from operator import attrgetter

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType, ListedEdge
from mcp_assets.stores.postgres.relationships_shape import ORIGIN

_SOURCE, _TARGET, _EVIDENCE = attrgetter("source"), attrgetter("target"), attrgetter("evidence")

_TO_ESCAPE = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_lines(added: Iterable[tuple[EdgeType, Sequence[ListedEdge]]], ids: Iterator[str]) -> Iterator[str]:
    """One line an edge, in the text format of COPY: the next of `ids`, then source, target, type, strength, metadata
    and origin. An id ends with its tab; an empty one leaves the column out."""
    # Many edges share names and evidence, so that each is escaped once.
    names: dict[EntityRef, str] = {}
    copied: dict[str, str] = {}
    for edge_type, edges in added:
        for ref in {*map(_SOURCE, edges), *map(_TARGET, edges)} - names.keys():
            names[ref] = f"{escaped(ref.type)}\t{escaped(ref.id)}\t"
        for text in {*map(_EVIDENCE, edges)} - copied.keys():
            copied[text] = f"\t{escaped(text)}\t{ORIGIN}\n"
        of_type = f"{edge_type.value}\t"
        for row, (source, target, strength, text) in zip(ids, edges, strict=False):
            yield f"{row}{names[source]}{names[target]}{of_type}{strength}{copied[text]}"


def rising_ids() -> Iterator[str]:
    """UUIDs of version 7, each higher than the one before, each followed by a tab.

    PostgreSQL would draw random bits for each row, which takes a third of the time of writing it.
    """
    drawn = uuid.uuid4().hex
    moment = f"{time.time_ns() // 1_000_000:012x}"
    # Variant and random bits are drawn once; the last 32 bits count.
    prefix = f"{moment[:8]}-{moment[8:]}-7{drawn[:3]}-{drawn[16:20]}-{drawn[20:24]}"
    return (f"{prefix}{number:08x}\t" for number in count())


def escaped(text: str) -> str:
    """`text` as a value in the text format of COPY."""
    return text.translate(_ESCAPES) if _TO_ESCAPE.search(text) else text
