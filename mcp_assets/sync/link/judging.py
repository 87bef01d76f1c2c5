"""Judging: a team accepts or rejects an edge, or withdraws its verdict; both ends are linked again at once."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    KEPT,
    REFERENCE_TYPES,
    UNDIRECTED,
    Decision,
    Edge,
    EdgeKey,
    EdgeType,
    End,
    evidence_of_edge,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.link.link_state import by_type_and_id
from mcp_assets.sync.link.linker import link
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.link.verdicts import GivenVerdict, given_verdicts

LONGEST_NOTE = 2_000
"""Characters of a note: some paragraphs."""

_LINKED_WITHIN_S = 10.0
"""How long the caller of a verdict links. Two entities take a fraction of a second; what many changes before them
would take longer is left to the next run."""


_PAUSE_S = 0.1
"""Seconds between two looks at the marks while another linker works."""


class VerdictRefused(Exception):
    """There is nothing to judge; the message says why, and what there is."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a verdict."""

    edge_type: EdgeType
    keys: Sequence[EdgeKey]
    """The edges that were judged: of a type without a direction, both."""
    linked: bool
    """The edges are what the verdict says. Otherwise the next run that links makes them so."""


class _Known(NamedTuple):
    """What is known of an edge that may be judged."""

    strength: float | None
    metadata: Mapping[str, Any]


def judge(
    platform: Platform,
    source: EntityRef,
    target: EntityRef,
    *,
    edge_type: EdgeType | None,
    decision: Decision | None,
    by: str,
    note: str | None = None,
) -> Judged:
    """Record a verdict about the edge from `source` to `target`, and link both ends again: see `record_verdict`."""
    edge_type, keys = record_verdict(platform, source, target, edge_type=edge_type, decision=decision, by=by, note=note)
    return Judged(edge_type, keys, _link(platform, [source, target]))


def record_verdict(
    platform: Platform,
    source: EntityRef,
    target: EntityRef,
    *,
    edge_type: EdgeType | None,
    decision: Decision | None,
    by: str,
    note: str | None = None,
) -> tuple[EdgeType, Sequence[EdgeKey]]:
    """Record a verdict about the edge from `source` to `target`, and mark both ends for linking.

    `edge_type`: None if there is only one edge, or only one verdict, between the two. `decision`: None withdraws the
    verdict. `by`: who gives it. Returns the type and the edges of `Judged`.

    Raises:
        VerdictRefused: there is no such edge, or no such verdict; nothing was changed.
        StoreUnavailable: PostgreSQL does not answer. The verdict is recorded even if another store does not.
        StoreRefused: the table of edges cannot be read.
    """
    if note is not None and len(note) > LONGEST_NOTE:
        raise VerdictRefused(f"the note has {len(note)} characters; at most {LONGEST_NOTE} are kept")
    with platform.postgres.transaction() as connection:
        platform.relationships.require_columns(connection, platform.postgres.relationships_fault)
        given = _between(given_verdicts(platform, connection, [source, target]), source, target)
        stored = platform.relationships.of_sources(connection, [source, target], tuple(EdgeType))
        edges = {key: edge for key, (_, edge) in stored.items() if {key.source, key.target} == {source, target}}
        chosen = _type_of(source, target, edge_type, given.keys() if decision is None else edges.keys() | given.keys())
        keys = _keys(source, target, chosen)
        if decision is None:
            keys = [key for key in keys if key in given]
        known = {key: _known(edges.get(key), given.get(key)) for key in keys}
        _require_one(known, source, target, chosen, edges.keys() | given.keys(), decision)
        if decision is None:
            connection.execute(platform.postgres.query("delete_verdicts"), _ends_of(keys, chosen))
        else:
            _write(platform, connection, known, decision, by, note)
        reason = Reason.REFERENCES if chosen in REFERENCE_TYPES else Reason.LISTS
        mark(platform, connection, {source, target}, reason)
    return chosen, keys


def _between(given: Sequence[GivenVerdict], one: EntityRef, other: EntityRef) -> dict[EdgeKey, GivenVerdict]:
    return {found.verdict.key: found for found in given if {*found.verdict.key[:2]} == {one, other}}


def _type_of(source: EntityRef, target: EntityRef, edge_type: EdgeType | None, keys: Collection[EdgeKey]) -> EdgeType:
    """The type that is meant.

    Raises:
        VerdictRefused: none was named, and there are several, or there is none.
    """
    if edge_type is not None:
        return edge_type
    there = sorted({key.type.value for key in keys})
    if len(there) == 1:
        return EdgeType(there[0])
    if there:
        raise VerdictRefused(f"{source} and {target} have edges of several types: name one of {', '.join(there)}")
    raise VerdictRefused(f"there is nothing to judge between {source} and {target}")


def _keys(source: EntityRef, target: EntityRef, edge_type: EdgeType) -> list[EdgeKey]:
    keys = [EdgeKey(source, target, edge_type)]
    return [*keys, EdgeKey(target, source, edge_type)] if edge_type in UNDIRECTED else keys


def _known(edge: Edge | None, given: GivenVerdict | None) -> _Known | None:
    """The edge as it is stored, or else as the verdict before kept it; None: it is unknown."""
    if edge is not None:
        return _Known(edge.strength, {key: value for key, value in edge.metadata.items() if key != KEPT})
    if given is not None:
        return _Known(given.verdict.strength, given.verdict.metadata)
    return None


def _require_one(
    known: Mapping[EdgeKey, _Known | None],
    source: EntityRef,
    target: EntityRef,
    edge_type: EdgeType,
    there: Collection[EdgeKey],
    decision: Decision | None,
) -> None:
    if any(one is not None for one in known.values()):
        return
    wanted = "verdict about an edge" if decision is None else "edge of ours"
    sentence = f"there is no {wanted} {source} → {target} ({edge_type})"
    if EdgeKey(target, source, edge_type) in there:
        raise VerdictRefused(f"{sentence}: it leads from {target} to {source}; name the two in this order")
    types = sorted({key.type.value for key in there})
    raise VerdictRefused(f"{sentence}; between the two there is {', '.join(types) or 'none of any type'}")


def _write(
    platform: Platform,
    connection: Connection,
    known: Mapping[EdgeKey, _Known | None],
    decision: Decision,
    by: str,
    note: str | None,
) -> None:
    keys = list(known)
    ends = _read_ends(platform, connection, {ref for key in keys for ref in key[:2]})
    gone = sorted({str(ref) for key in keys for ref in key[:2] if ref not in ends})
    if gone:
        raise VerdictRefused(f"{' and '.join(gone)} is not linked, or is gone; an edge needs both ends")
    # The other direction of an edge that stands in one direction only has no metadata; its evidence needs none.
    found = [known[key] or _Known(None, {}) for key in keys]
    evidence = [
        evidence_of_edge(key.type, one.metadata, ends[key.source], ends[key.target])
        for key, one in zip(keys, found, strict=True)
    ]
    connection.execute(
        platform.postgres.query("write_verdicts"),
        {
            **_ends_of(keys, keys[0].type),
            "decision": decision.value,
            "evidence": [json.dumps(one, ensure_ascii=False) for one in evidence],
            "strengths": [one.strength for one in found],
            "metadata": [json.dumps(one.metadata, ensure_ascii=False) for one in found],
            "decided_by": _storable(by),
            "note": _storable(note) if note else None,
        },
    )


def _storable(text: str) -> str:
    """`text` without what PostgreSQL refuses in a text: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _ends_of(keys: Sequence[EdgeKey], edge_type: EdgeType) -> dict[str, Any]:
    return {
        "source_types": [key.source.type for key in keys],
        "source_ids": [key.source.id for key in keys],
        "target_types": [key.target.type for key in keys],
        "target_ids": [key.target.id for key in keys],
        "edge_type": edge_type.value,
    }


def _read_ends(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> dict[EntityRef, End]:
    rows = connection.execute(platform.postgres.query("read_ends"), by_type_and_id(refs)).fetchall()
    return {EntityRef(row[0], row[1]): End(row[2], frozenset(row[3])) for row in rows}


def _link(platform: Platform, refs: Collection[EntityRef]) -> bool:
    """Link until `refs` have no mark; returns whether they have none. Another linker may be the one that links them."""
    until = time.monotonic() + _LINKED_WITHIN_S

    def done() -> bool:
        return time.monotonic() >= until or not _is_marked(platform, refs)

    try:
        while not done():
            for _ in link(platform, enough=done):
                pass
            if not done():
                time.sleep(_PAUSE_S)
    except (StoreUnavailable, StoreRefused, CollectionMismatch):
        # The verdict is recorded, and the marks stay, so that the next run that links applies it.
        return False
    return not _is_marked(platform, refs)


def _is_marked(platform: Platform, refs: Collection[EntityRef]) -> bool:
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("marked_among"), by_type_and_id(refs)).fetchone() is not None
