"""Announcements: what result messages say. The transaction of the work that a message reports puts it in the outbox."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.relationships import EdgeChanges
from mcp_assets.sync.inbox.drained import Drained
from mcp_assets.sync.inbox.outbox import ResultMessage, keep
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.traces import distinct, record

INDEX_COMPLETED, INDEX_FAILED = "vector.index.completed", "vector.index.failed"
RELATIONSHIPS_COMPLETED, RELATIONSHIPS_FAILED = "relationship.analyze.completed", "relationship.analyze.failed"

_INDEX_REQUEST, _RELATE_REQUEST = "vector.index.request", "relationship.analyze.request"

_ANSWERED_AT_ONCE = 1_000
"""Requests to re-link that one message answers: with more, the message might exceed what NATS takes."""


def result_subject(request_subject: str, *, failed: bool) -> str:
    """`data.sync.request` is answered on `data.sync.completed`, or `data.sync.failed`."""
    return f"{request_subject.removesuffix('.request')}.{'failed' if failed else 'completed'}"


def announce_indexed(platform: Platform, connection: Connection, drained: Drained) -> None:
    """Announce what a batch of the inbox changed, and what of it failed."""
    keep(platform, connection, *indexed_results(drained))


def indexed_results(drained: Drained) -> list[ResultMessage]:
    """The messages that say what a batch of the inbox changed, and what of it failed.

    There is none if nothing changed and no message asked for an answer. Entities that a request names have a message of
    their own, so that the counts of an answer are those of its request.
    """
    ids_of: dict[str, list[str]] = {}
    for message in drained.identified:
        if message.subject == _INDEX_REQUEST:
            ids_of.setdefault(message.entity_id, []).append(message.message_id)
    failures = {entity_id: refusal.sentence for entity_id, refusal in drained.report.refusals.items()}
    failures |= dict.fromkeys(drained.given_up, "nothing is known of it: it has no source row, and no event states it")
    done = [entity_id for entity_id in drained.entity_ids if entity_id not in failures]
    return [
        *_done(drained, [name for name in done if name in ids_of], ids_of),
        *_done(drained, [name for name in done if name not in ids_of], {}),
        *_failed(drained, {name: error for name, error in failures.items() if name in ids_of}, ids_of),
        *_failed(drained, {name: error for name, error in failures.items() if name not in ids_of}, {}),
    ]


def _done(drained: Drained, entity_ids: Sequence[str], ids_of: Mapping[str, Sequence[str]]) -> Iterator[ResultMessage]:
    outcomes = Counter(drained.report.outcomes.get(entity_id, "unchanged") for entity_id in entity_ids)
    if entity_ids and (ids_of or outcomes.keys() - {"unchanged"}):
        result = {
            "entity_type": drained.entity_type,
            "counts": counts_of(Counts(scanned=len(entity_ids), **outcomes)),
            "entities": [f"{drained.entity_type}:{entity_id}" for entity_id in entity_ids],
        }
        message_ids = _message_ids(entity_ids, ids_of)
        yield ResultMessage(INDEX_COMPLETED, result, message_ids, _traces_of(drained, message_ids))


def _failed(
    drained: Drained, failures: Mapping[str, str], ids_of: Mapping[str, Sequence[str]]
) -> Iterator[ResultMessage]:
    if failures:
        result = {
            "entity_type": drained.entity_type,
            "counts": {"failed": len(failures)},
            "failed": [
                {"entity": f"{drained.entity_type}:{entity_id}", "error": error}
                for entity_id, error in failures.items()
            ],
        }
        message_ids = _message_ids(failures, ids_of)
        yield ResultMessage(INDEX_FAILED, result, message_ids, _traces_of(drained, message_ids))


def _message_ids(entity_ids: Collection[str], ids_of: Mapping[str, Sequence[str]]) -> list[str]:
    return [message_id for entity_id in entity_ids for message_id in ids_of.get(entity_id, ())]


def _traces_of(drained: Drained, message_ids: Sequence[str]) -> Sequence[str]:
    """The traces of the requests that an answer is for."""
    traced = {message.message_id: message.traceparent for message in drained.identified}
    return distinct(traced.get(message_id) for message_id in message_ids)


def announce_when_linked(platform: Platform, connection: Connection, drained: Drained) -> None:
    """Have the requests of a batch to re-link entities answered, once these entities are re-linked.

    Requests about unknown entities are answered now.
    """
    ids_of: dict[str, list[str | None]] = {ref.id: [] for ref in drained.relate}
    unknown: list[str] = []
    lost: list[str] = []
    for message in drained.identified:
        if message.subject != _RELATE_REQUEST:
            continue
        if message.entity_id in drained.given_up:
            unknown.append(f"{drained.entity_type}:{message.entity_id}")
            lost.append(message.message_id)
        else:
            ids_of.setdefault(message.entity_id, []).append(message.message_id)
    if lost:
        result = {
            "entities": list(dict.fromkeys(unknown)),
            "error": "nothing is known of these entities: they have no edges",
        }
        keep(platform, connection, ResultMessage(RELATIONSHIPS_FAILED, result, lost, _traces_of(drained, lost)))
    if not ids_of:
        return
    before = platform.relationships.count_by_source(
        connection, [EntityRef(drained.entity_type, entity_id) for entity_id in ids_of]
    )
    waiting = [(entity_id, message_id) for entity_id, ids in ids_of.items() for message_id in ids or [None]]
    edges = [before[EntityRef(drained.entity_type, entity_id)] for entity_id, _ in waiting]
    traced = {message.message_id: message.traceparent for message in drained.identified}
    connection.execute(
        platform.postgres.query("insert_relate_requests"),
        {
            "entity_type": drained.entity_type,
            "entity_id": [entity_id for entity_id, _ in waiting],
            "message_id": [message_id for _, message_id in waiting],
            "traceparent": [traced.get(message_id) if message_id else None for _, message_id in waiting],
            "edges_before": [json.dumps(counts) for counts in edges],
        },
    )


def answer_relinked(platform: Platform) -> int:
    """Put answers into the outbox for requests whose entities are re-linked. Returns the number of requests."""
    answered = 0
    while some := _answer_some_relinked(platform):
        answered += some
        if some < _ANSWERED_AT_ONCE:
            break
    return answered


@dataclass(frozen=True, slots=True)
class _RelateRequest:
    """A request to re-link an entity; `edges_before`: how many edges of each type it had when it was asked."""

    id: int
    entity_type: str
    entity_id: str
    message_id: str | None
    traceparent: str | None
    edges_before: Mapping[str, int]
    asked_at: datetime


def _answer_some_relinked(platform: Platform) -> int:
    with platform.postgres.transaction() as connection:
        requests = platform.postgres.rows(connection, "claim_relinked", _RelateRequest, {"limit": _ANSWERED_AT_ONCE})
        if not requests:
            return 0
        before: dict[EntityRef, Mapping[str, int]] = {}
        since: dict[EntityRef, datetime] = {}
        requests.sort(key=attrgetter("id"))
        for request in requests:
            ref = EntityRef(request.entity_type, request.entity_id)
            # Of two requests about one entity, both answers report the changes since the first.
            before.setdefault(ref, request.edges_before)
            since.setdefault(ref, request.asked_at)
        changes = platform.relationships.changes_since(connection, since, before)
        result = {
            **edge_results(changes.values()),
            "relinked": len(since),
            "entities": [
                {"entity_type": ref.type, "entity_id": ref.id, "edges": dict(one.now)} for ref, one in changes.items()
            ],
        }
        answered = [request for request in requests if request.message_id is not None]
        message_ids = [request.message_id for request in answered if request.message_id is not None]
        traced = distinct(request.traceparent for request in answered)
        keep(platform, connection, ResultMessage(RELATIONSHIPS_COMPLETED, result, message_ids, traced))
    for request in answered:
        if request.traceparent is not None:
            began_ns = round(request.asked_at.timestamp() * 1_000_000_000)
            named = {"mcp_assets.entity": f"{request.entity_type}:{request.entity_id}"}
            record("mcp_assets.link", request.traceparent, began_ns, named)
    return len(requests)


def edge_results(changes: Iterable[EdgeChanges]) -> dict[str, dict[str, int]]:
    """Edges added, changed and removed, by type, as results report them."""
    total = EdgeChanges()
    for one in changes:
        total.add(one)
    return {"added": dict(total.added), "changed": dict(total.changed), "removed": dict(total.removed)}


def announce_links(platform: Platform, total: LinkCounts) -> None:
    """Announce what was linked without a request."""

    def by_type(counts: Mapping[EdgeType, int]) -> dict[str, int]:
        return {edge_type.value: count for edge_type, count in counts.items()}

    result = {
        "relinked": total.relinked,
        "added": by_type(total.added),
        "changed": by_type(total.changed),
        "removed": by_type(total.removed),
        "entities": [],
    }
    with platform.postgres.transaction() as connection:
        keep(platform, connection, ResultMessage(RELATIONSHIPS_COMPLETED, result))


def counts_of(counts: Counts) -> dict[str, int]:
    """The counts of entities as results report them."""
    return {
        "scanned": counts.scanned,
        "embedded": counts.embedded,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "empty": counts.empty,
        "failed": counts.failed,
    }
