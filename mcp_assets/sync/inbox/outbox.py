"""Outbox: results are kept in the transaction of the work that they report, until NATS has confirmed them.

A result is published at least once. If a process is killed after the confirmation and before it deletes the result,
the next process publishes it again, and JetStream drops the copy by the message's id.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mcp_assets import traces
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.streams import Announcement

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

_LONGEST_TEXT = 1_000
"""Characters that are left of a text if the result without any list is still too large."""


_TRACES_KEPT = 100
"""Traces of the requests that one result answers: with more, a batch of a burst would write long rows."""


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """A result, the ids of the requests that it answers, and the traces of these."""

    subject: str
    result: Mapping[str, Any]
    message_ids: Sequence[str] = ()
    traceparents: Sequence[str] = ()


def keep(platform: Platform, connection: Connection, *results: ResultMessage) -> None:
    """Have results published, once the caller's transaction is committed.

    The caller calls `publish_waiting` after its commit; otherwise the next tick or drain publishes them.
    """
    if results:
        connection.execute(
            platform.postgres.query("insert_results"),
            {
                "subject": [one.subject for one in results],
                "envelope": [json.dumps(envelope_of(one.result, one.message_ids)).encode() for one in results],
                "traceparent": [",".join(one.traceparents[:_TRACES_KEPT]) or None for one in results],
            },
        )


def publish_waiting(platform: Platform) -> int:
    """Publish the results that are committed and not confirmed, the oldest first. Returns how many NATS has confirmed.

    Results that cannot be published now stay, with a warning, because the work that they report is done in any case.
    """
    published = 0
    try:
        while some := _publish_some(platform):
            published += some
    except (StoreUnavailable, StoreRefused, SettingsError) as error:
        logger.warning("what was done is committed, but results wait to be published: %s", error)
    return published


def count_waiting(platform: Platform) -> int:
    """Results that NATS has not confirmed."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("count_results")).fetchone()
    return row[0] if row else 0


def forget_old(platform: Platform, days: float) -> int:
    """Delete results that could not be published for `days`, with a warning. Returns how many.

    The stream of results keeps a message as long, so that a listener could not read them any more in any case.
    """
    with platform.postgres.transaction() as connection:
        forgotten = connection.execute(platform.postgres.query("forget_results"), {"days": days}).rowcount
    if forgotten:
        logger.warning(
            "%d results that could not be published for %g days (MCP_ASSETS_RESULTS_DAYS) are deleted: the requests "
            "that they answer are done, but their senders have no answer; see what `mcp-assets doctor` says of NATS",
            forgotten,
            days,
        )
    return forgotten


def envelope_of(result: Mapping[str, Any], message_ids: Sequence[str]) -> dict[str, Any]:
    """The message that carries `result`, made now."""
    return {
        "message_id": str(uuid4()),
        "correlation_id": message_ids[0] if len(message_ids) == 1 else None,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "source": "mcp_assets",
        "data": {**result, "requests": list(message_ids)},
    }


def fitted(envelope: Mapping[str, Any], max_bytes: int) -> bytes:
    """The message in at most `max_bytes`: the longest list of its data is halved until it fits.

    Raises:
        StoreRefused: it does not fit without any list and with short texts either.
    """
    data = dict(envelope["data"])
    message = {**envelope, "data": data}
    omitted: dict[str, int] = {}
    while len(body := json.dumps(message, ensure_ascii=False).encode(errors="replace")) > max_bytes:
        sizes = {name: len(json.dumps(value)) for name, value in data.items() if isinstance(value, list) and value}
        if not sizes:
            long = [name for name, value in data.items() if isinstance(value, str) and len(value) > _LONGEST_TEXT]
            if not long:
                raise StoreRefused(f"a result has {len(body)} bytes, and the NATS server takes {max_bytes}")
            data |= {name: data[name][:_LONGEST_TEXT] for name in long}
            continue
        longest = max(sizes, key=lambda name: sizes[name])
        kept = data[longest][: len(data[longest]) // 2]
        omitted[longest] = omitted.get(longest, 0) + len(data[longest]) - len(kept)
        data[longest] = kept
        data["omitted"] = omitted
    return body


@dataclass(frozen=True, slots=True)
class _StoredResult:
    """A row of the outbox."""

    id: int
    subject: str
    envelope: bytes
    traceparent: str | None
    """Several are separated by commas."""


def _publish_some(platform: Platform) -> int:
    """The rows stay locked until NATS has confirmed them, so that another process publishes other rows meanwhile."""
    with platform.postgres.transaction() as connection:
        limit = {"limit": platform.tuning.inbox.results_at_once}
        results = platform.postgres.rows(connection, "claim_results", _StoredResult, limit)
        if not results:
            return 0
        max_bytes = platform.nats.max_payload()
        announcements, spans = [], []
        for result in results:
            envelope = json.loads(result.envelope)
            traceparent, began = _begin_answer(result)
            spans += began
            body = fitted(envelope, max_bytes)
            announcements.append(Announcement(result.subject, body, envelope["message_id"], traceparent))
        platform.nats.announce(announcements)
        for span in spans:
            span.end()
        connection.execute(platform.postgres.query("delete_results"), {"ids": [result.id for result in results]})
    return len(results)


def _begin_answer(result: _StoredResult) -> "tuple[str | None, list[Span]]":
    """The trace that the header of the answer names, and a span in each trace of the requests that it answers.

    A header names one trace, so that an answer to requests of several names none.
    """
    traceparents = result.traceparent.split(",") if result.traceparent else []
    named = {"messaging.system": "nats", "messaging.destination.name": result.subject}
    begun = [
        traces.begin("mcp_assets.answer", traceparent, attributes=named, kind="PRODUCER")
        for traceparent in traceparents
    ]
    header = traces.traceparent_of(begun[0], traceparents[0]) if len(traceparents) == 1 else None
    return header, [span for span in begun if span is not None]
