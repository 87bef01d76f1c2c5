"""Sync requests: does what the sync and validate requests in the inbox ask for, one at a time, and answers each."""

import json
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import MessageKind, SyncRequest, SyncTarget, SyncType
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.consistency.conflicts import Difference, Strategy, resolve_conflicts
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.inbox.announce import counts_of, edge_results, result_subject
from mcp_assets.sync.inbox.drain_lock import hold_drain_lock
from mcp_assets.sync.inbox.outbox import ResultMessage, keep, publish_waiting
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.incremental import bring_up_to_date
from mcp_assets.sync.resolve_ids import find_entities
from mcp_assets.traces import distinct

logger = logging.getLogger(__name__)

REQUEST_KINDS = (MessageKind.SYNC, MessageKind.VALIDATE)
"""The kinds of messages that are answered here; each kind has a drain of its own."""


class BadRequest(Exception):
    """A request that cannot be done as it is; the error says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the inbox."""

    message: full_sync_requests.RequestMessage
    request: SyncRequest
    stored_at: datetime
    attempts: int


@dataclass(slots=True)
class Answer:
    """The result of one request."""

    request: Request
    result: dict[str, Any]
    error: str | None = None
    """Why the request failed; None: it is done, or under way."""
    is_final: bool = True
    """The result is published now. Otherwise it is published when a full sync ends, or after another try."""
    differences: Sequence[Difference] = field(default_factory=list)


def drain_name(kind: MessageKind) -> str:
    """The name of the drain of such requests. It stands among the names of entity types, and no type can have it."""
    return f"({kind})"


def pending_requests(platform: Platform) -> list[MessageKind]:
    """The kinds of requests that are due."""
    with platform.postgres.transaction() as connection:
        return [MessageKind(row[0]) for row in connection.execute(platform.postgres.query("pending_requests"))]


def answer_requests(platform: Platform, kind: MessageKind, run_id: str) -> Generator[Answer, None, None]:
    """Answer the requests of `kind`, in the order of the streams, until none is due.

    One transaction locks a request, deletes it from the inbox and stores its answer. So after a kill at any moment, the
    request is still in the inbox, or it is answered. Yields nothing if another process drains these requests.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    with hold_drain_lock(platform, drain_name(kind), run_id) as alone:
        while alone and (answer := _answer_next(platform, kind)) is not None:
            publish_waiting(platform)
            yield answer


def _answer_next(platform: Platform, kind: MessageKind) -> Answer | None:
    request: Request | None = None
    try:
        with platform.postgres.transaction() as connection:
            request = platform.postgres.row(connection, "claim_request", _request, {"kind": kind.value})
            if request is None:
                return None
            answer = _answer(platform, connection, request)
            if answer.error is not None:
                _dead_letter(platform, connection, request, "request_failed", answer.error)
            _delete(platform, connection, request)
            if answer.is_final:
                keep(platform, connection, result_message(answer))
    except (StoreUnavailable, EmbedderUnavailable) as error:
        if request is None:
            raise
        answer = _postpone(platform, request, str(error))
    except Exception as error:
        # A bug: the run fails with the error. The request is postponed, so that its tries are counted and end.
        if request is not None:
            _postpone(platform, request, f"{type(error).__name__}: {error}")
        raise
    return answer


def _answer(platform: Platform, connection: Connection, request: Request) -> Answer:
    asked = request.request
    result: dict[str, Any] = {"sync_type": asked.sync_type.value}
    try:
        match asked.sync_type:
            case SyncType.INCREMENTAL_SYNC:
                return _incremental(platform, request, result)
            case SyncType.FULL_SYNC:
                return _full(platform, connection, request)
            case SyncType.CONFLICT_RESOLUTION:
                return _conflicts(platform, request, result)
            case SyncType.DATA_VALIDATION:
                return _validation(platform, request, result)
    except (BadRequest, StoreRefused, CollectionMismatch) as error:
        return Answer(request, result, str(error))


def _incremental(platform: Platform, request: Request, result: dict[str, Any]) -> Answer:
    found = find_entities(platform, request.request.targets)
    asked_at, edges_before = _edges_now(platform, found.refs)
    synced = bring_up_to_date(platform, found.refs, force=_flag(request, "force"))
    with platform.postgres.transaction() as connection:
        # The counts of the linker would include edges of other entities that were marked.
        since = dict.fromkeys(found.refs, asked_at)
        edges = edge_results(platform.relationships.changes_since(connection, since, edges_before).values())
    unknown = [*found.unknown, *map(str, sorted(synced.unknown))]
    failed = synced.refusals.keys()
    result |= {
        "counts": {
            **counts_of(synced.counts),
            "unknown": len(unknown),
            **{f"edges_{change}": sum(counts.values()) for change, counts in edges.items()},
        },
        "entities": [str(ref) for ref in found.refs if ref not in failed and ref not in synced.unknown],
        "unknown": unknown,
        "failed": [
            {"entity": str(ref), "error_kind": refusal.error_kind, "error": refusal.sentence}
            for ref, refusal in sorted(synced.refusals.items())
        ],
    }
    if request.request.targets and not result["entities"]:
        return Answer(
            request,
            result,
            f"none of the {len(request.request.targets)} entities named could be brought up to date: "
            f"{len(unknown)} are unknown, {len(failed)} were refused",
        )
    return Answer(request, result)


def _edges_now(platform: Platform, refs: Sequence[EntityRef]) -> tuple[datetime, Mapping[EntityRef, Mapping[str, int]]]:
    """PostgreSQL's time, and how many edges each of `refs` is the source of, by type."""
    with platform.postgres.transaction() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101  (a select without FROM has one row)
        return row[0], platform.relationships.count_by_source(connection, refs)


def _full(platform: Platform, connection: Connection, request: Request) -> Answer:
    entity_types = _entity_types(platform, request)
    sync = full_sync_requests.ask(
        platform,
        connection,
        entity_types,
        force=_flag(request, "force"),
        requested_by=request.message.subject,
        message=request.message,
    )
    result = full_sync_requests.result_of(platform, sync, entity_types)
    if not sync.finished:
        return Answer(request, result, is_final=False)
    # The message was sent again, and its full sync has ended: it gets the same answer, even if that is a failure.
    message = request.message
    joined = full_sync_requests.JoinedRequest(message.subject, message.message_id, message.traceparent, entity_types)
    full_sync_requests.answer(platform, connection, sync, joined)
    return Answer(request, result, is_final=False)


def _conflicts(platform: Platform, request: Request, result: dict[str, Any]) -> Answer:
    name = request.request.context.get("strategy", Strategy.SOURCE.value)
    if name not in list(Strategy):
        raise BadRequest(f"context.strategy is {name!r}; send one of {', '.join(Strategy)}")
    resolution = resolve_conflicts(platform, request.request.targets, Strategy(str(name)))
    result |= {
        "strategy": name,
        "counts": {
            "entities": len(resolution.refs),
            "unknown": len(resolution.unknown),
            "differences": len(resolution.differences),
            "settled": sum(one.resolved for one in resolution.differences),
        },
        "entities": [str(ref) for ref in resolution.refs],
        "unknown": resolution.unknown,
        "differences": [one.as_dict() for one in resolution.differences],
    }
    error = None
    if request.request.targets and not resolution.refs:
        error = f"none of the {len(request.request.targets)} entities named is known"
    elif left := [one for one in resolution.differences if one.to_resolve and not one.resolved]:
        error = f"{len(left)} of {len(resolution.differences)} differences are still there: see the dead letters"
    return Answer(request, result, error, differences=resolution.differences)


def _validation(platform: Platform, request: Request, result: dict[str, Any]) -> Answer:
    targets = request.request.targets
    found = find_entities(platform, targets)
    entity_types = _entity_types(platform, request)
    if targets:
        if not found.refs:
            raise BadRequest(f"none of the {len(targets)} entities named is known")
        entity_types = [name for name in entity_types if any(ref.type == name for ref in found.refs)]
    # The default is to repair, because the original worker removed orphaned relationships unasked.
    repair = _flag(request, "repair", default=True)
    validation = validate(
        platform,
        entity_types=entity_types,
        entities=found.refs,
        repair=repair,
        deep=_flag(request, "deep"),
        allow_mass_delete=_flag(request, "allow_mass_delete"),
    )
    result |= {
        "entity_types": entity_types,
        "counts": {
            "checked": validation.checked,
            "found": sum(validation.found.values()),
            "mended": sum(validation.mended.values()),
        },
        "found": dict(validation.found),
        "mended": dict(validation.mended),
        "examples": [
            {"kind": str(one.kind), "entity": str(one.ref) if one.ref is not None else None, "detail": one.detail}
            for one in validation.examples
        ],
        "given_up": [str(ref) for ref in validation.given_up],
        "unknown": found.unknown,
    }
    return Answer(request, result, validation.unfinished if repair else None)


def _entity_types(platform: Platform, request: Request) -> list[str]:
    """The types that `context.entity_types` names, in the order of the registry; all types if it is absent."""
    named = request.request.context.get("entity_types")
    if named is None:
        return list(platform.settings.entity_types)
    if not isinstance(named, list) or not named:
        raise BadRequest("context.entity_types must be a list of entity types, with one at least")
    found = set()
    for name in named:
        entity_type = platform.type_names.canonical(name) if isinstance(name, str) else None
        if entity_type is None:
            raise BadRequest(
                f"context.entity_types names {str(name)[:100]!r}, which is no entity type: send some of "
                f"{', '.join(platform.settings.entity_types)}"
            )
        found.add(entity_type)
    return [name for name in platform.settings.entity_types if name in found]


def _flag(request: Request, name: str, *, default: bool = False) -> bool:
    value = request.request.context.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"context.{name} must be true or false")
    return value


def result_message(answer: Answer) -> ResultMessage:
    """The message that answers the request."""
    message = answer.request.message
    return ResultMessage(
        result_subject(message.subject, failed=answer.error is not None),
        answer.result | ({"error": answer.error} if answer.error is not None else {}),
        [message.message_id] if message.message_id is not None else [],
        distinct([message.traceparent]),
    )


def _postpone(platform: Platform, request: Request, error: str) -> Answer:
    """Postpone the request for another try, or after the last one make it a dead letter."""
    given_up = request.attempts + 1 >= platform.tuning.requests.tries
    answer = Answer(request, {"sync_type": request.request.sync_type.value}, error, is_final=given_up)
    with platform.postgres.transaction() as connection:
        if given_up:
            _dead_letter(platform, connection, request, "unavailable", error)
            _delete(platform, connection, request)
            keep(platform, connection, result_message(answer))
        else:
            connection.execute(
                platform.postgres.query("postpone_inbox"),
                {**_place(request), "delay_ms": platform.settings.retry_delay_ms},
            )
    logger.warning(
        "%s is %s: %s", request.request.sync_type, "dead-lettered" if given_up else "postponed for another try", error
    )
    return answer


def _delete(platform: Platform, connection: Connection, request: Request) -> None:
    uncounted = {"counted": [False], "bounds": []}
    connection.execute(platform.postgres.query("delete_inbox"), _place(request) | uncounted)


def _dead_letter(platform: Platform, connection: Connection, request: Request, error_kind: str, error: str) -> None:
    """Store the request and the reason as a dead letter."""
    message = request.message
    connection.execute(
        platform.postgres.query("insert_failed_request"),
        {
            "subject": message.subject,
            "stream": message.stream,
            "epoch": message.epoch,
            "seq": message.seq,
            "stored_at": request.stored_at,
            "raw": as_message(request),
            "error_kind": error_kind,
            "error": error,
        },
    )


def as_message(request: Request) -> bytes:
    """The body of a message that asks for the same: a replay of the dead letter parses it."""
    asked, message_id = request.request, request.message.message_id
    data: dict[str, Any] = {
        "sync_type": asked.sync_type.value,
        "entity_ids": [target.id if target.type is None else f"{target.type}:{target.id}" for target in asked.targets],
        "context": asked.context,
    }
    envelope = {"data": data} if message_id is None else {"message_id": message_id, "data": data}
    return json.dumps(envelope, ensure_ascii=False).encode()


def _place(request: Request) -> dict[str, Any]:
    message = request.message
    return {
        "stream": [message.stream],
        "epoch": [message.epoch],
        "seq": [message.seq],
    }


def _request(*, payload: Mapping[str, Any], stored_at: datetime, attempts: int, **place: Any) -> Request:
    """A row of the inbox as a request; `place`: the columns of its message."""
    targets = tuple(SyncTarget(**target) for target in payload["targets"])
    request = SyncRequest(SyncType(payload["sync_type"]), targets, payload["context"])
    return Request(full_sync_requests.RequestMessage(**place), request, stored_at, attempts)
