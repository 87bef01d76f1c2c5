"""Announcements: results told on NATS once they are committed. Nobody has to listen, and no run fails for them."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from mcp_assets.entities.refs import EntityRef
from mcp_assets.settings import SettingsError
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.sync.drain import Drained
from mcp_assets.sync.graph_view import edge_counts
from mcp_assets.sync.indexer import Counts
from mcp_assets.sync.linker import LinkCounts
from mcp_assets.sync.platform import Platform

logger = logging.getLogger(__name__)

INDEX_COMPLETED, INDEX_FAILED = "vector.index.completed", "vector.index.failed"
RELATIONSHIPS_COMPLETED, RELATIONSHIPS_FAILED = "relationship.analyze.completed", "relationship.analyze.failed"

_INDEX_REQUEST, _RELATE_REQUEST = "vector.index.request", "relationship.analyze.request"

_NAMED = 1_000
"""Entities whose edges one announcement counts."""


def result_subject(request_subject: str, *, failed: bool) -> str:
    """`data.sync.request` is answered on `data.sync.completed`, or `data.sync.failed`."""
    return f"{request_subject.removesuffix('.request')}.{'failed' if failed else 'completed'}"


def announce(platform: Platform, subject: str, result: Mapping[str, Any], *, message_ids: Sequence[str] = ()) -> bool:
    """Publish `result` as the answer to the requests `message_ids`. What it is about has to be committed before.

    Lists that do not fit the server's message size are cut off, with a count of what is left out. Returns False, with
    a warning, if it could not be published.
    """
    try:
        platform.nats.announce(subject, encoded(result, message_ids, platform.nats.max_payload()))
    except (StoreUnavailable, StoreRefused, SettingsError) as error:
        answered = f", the answer to {', '.join(message_ids[:5])}" if message_ids else ""
        logger.warning("what was done is committed, but %s%s could not be published: %s", subject, answered, error)
        return False
    return True


def encoded(result: Mapping[str, Any], message_ids: Sequence[str], max_bytes: int) -> bytes:
    """The envelope around `result`, of at most `max_bytes`: the longest list is halved until it fits.

    Raises:
        StoreRefused: it does not fit without any list either.
    """
    data = {**result, "requests": list(message_ids)}
    omitted: dict[str, int] = {}
    envelope = {
        "message_id": str(uuid4()),
        "correlation_id": message_ids[0] if len(message_ids) == 1 else None,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "source": "mcp_assets",
        "data": data,
    }
    while len(body := json.dumps(envelope, ensure_ascii=False).encode()) > max_bytes:
        sizes = {name: len(json.dumps(value)) for name, value in data.items() if isinstance(value, list) and value}
        if not sizes:
            raise StoreRefused(f"the result has {len(body)} bytes, and the server takes {max_bytes}")
        longest = max(sizes, key=lambda name: sizes[name])
        kept = data[longest][: len(data[longest]) // 2]
        omitted[longest] = omitted.get(longest, 0) + len(data[longest]) - len(kept)
        data[longest] = kept
        data["omitted"] = omitted
    return body


def announce_indexed(platform: Platform, drained: Drained) -> None:
    """Tell what a batch of the inbox came to, and what of it failed; silence if nothing changed and nobody asked."""
    entity_type = drained.entity_type
    failures = {entity_id: refusal.sentence for entity_id, refusal in drained.report.refusals.items()}
    failures |= dict.fromkeys(drained.given_up, "nothing is known of it: it has no source row, and no event states it")
    ids_of: dict[tuple[str, bool], list[str]] = {}
    for asked in drained.asked:
        ids_of.setdefault((asked.subject, asked.entity_id in failures), []).append(asked.message_id)
    counts = Counts()
    for part in drained.report.shards.values():
        counts.add(part)
    changed = counts.embedded or counts.repayloaded or counts.deleted or counts.empty
    done = [f"{entity_type}:{entity_id}" for entity_id in drained.entity_ids if entity_id not in failures]
    asked_for = ids_of.get((_INDEX_REQUEST, False), [])
    if done and (changed or asked_for):
        completed = {"entity_type": entity_type, "counts": counts_of(counts), "entities": done}
        announce(platform, INDEX_COMPLETED, completed, message_ids=asked_for)
    if failures:
        failed = {
            "entity_type": entity_type,
            "counts": {"failed": len(failures)},
            "failed": [
                {"entity": f"{entity_type}:{entity_id}", "error": error} for entity_id, error in failures.items()
            ],
        }
        announce(platform, INDEX_FAILED, failed, message_ids=ids_of.get((_INDEX_REQUEST, True), ()))
    lost = ids_of.get((_RELATE_REQUEST, True), [])
    unknown = [f"{entity_type}:{entity_id}" for entity_id in drained.given_up]
    if lost and unknown:
        unlinked = {"entities": unknown, "error": "nothing is known of these entities: they have no edges"}
        announce(platform, RELATIONSHIPS_FAILED, unlinked, message_ids=lost)


def announce_links(
    platform: Platform, total: LinkCounts, requested: Sequence[EntityRef], message_ids: Sequence[str] = ()
) -> None:
    """Tell what was linked, and how many edges each entity that was asked for has now."""
    counts = edge_counts(platform, requested[:_NAMED])
    result = {
        "relinked": total.relinked,
        "added": {edge_type.value: count for edge_type, count in total.added.items()},
        "changed": {edge_type.value: count for edge_type, count in total.changed.items()},
        "removed": {edge_type.value: count for edge_type, count in total.removed.items()},
        "entities": [
            {"entity_type": ref.type, "entity_id": ref.id, "edges": counts.get(ref, {})} for ref in requested[:_NAMED]
        ],
    }
    announce(platform, RELATIONSHIPS_COMPLETED, result, message_ids=message_ids)


def relate_requests(drained: Drained) -> list[str]:
    """The ids of the messages of a batch that asked for entities to be re-linked, and will be."""
    return [
        asked.message_id
        for asked in drained.asked
        if asked.subject == _RELATE_REQUEST and asked.entity_id not in drained.given_up
    ]


def counts_of(counts: Counts) -> dict[str, int]:
    """The counts of entities as results tell them."""
    return {
        "scanned": counts.scanned,
        "embedded": counts.embedded,
        "updated": counts.repayloaded,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "empty": counts.empty,
        "failed": counts.failed,
    }
