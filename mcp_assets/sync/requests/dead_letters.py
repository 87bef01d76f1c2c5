"""Dead letters: published on NATS, listed, replayed once their cause is removed, or purged."""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import chain, islice
from operator import attrgetter
from typing import Any

from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef, ref_or_none
from mcp_assets.events import Event, Rejected, parse
from mcp_assets.events.subjects import DEAD_LETTER, REQUESTS
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.postgres.rows import keyset_pages
from mcp_assets.sync.inbox.announce import result_subject
from mcp_assets.sync.inbox.intake import event_columns, event_order
from mcp_assets.sync.inbox.message_warnings import keep_warnings
from mcp_assets.sync.inbox.outbox import ResultMessage, keep, publish_waiting
from mcp_assets.sync.link.linker import link
from mcp_assets.sync.requests.incremental import Synced, index
from mcp_assets.sync.resolve_ids import by_type

logger = logging.getLogger(__name__)

STAGES = ("intake", "request", "apply", "embed", "upsert")
"""The steps at which a message or an entity can fail, in their order; the values of `dead_letters.stage`."""

_MESSAGE_STAGES = frozenset({"intake", "request"})
"""Stages whose dead letter is a message; that of the others is an entity."""

_LETTERS_AT_ONCE = 200
"""Dead letters that one transaction reads, with their raw bytes: some megabytes at most."""

_PAGES_A_CALL = 10
"""Pages that one call announces, so that a sensor's tick stays short; the next call does the rest."""

_RAW_PUBLISHED = 64 << 10
"""Bytes up to which a message is published with its dead letter: far below NATS's default limit of 1 MB. A longer one
is only in the table."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Chooses dead letters: those that match every field that is not None."""

    ids: Sequence[int] | None = None
    entity_type: str | None = None
    stage: str | None = None
    error_kind: str | None = None

    @property
    def everything(self) -> bool:
        return self == Selection()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message, or an entity, that could not be processed. `replayed_at`: it was replayed, and is not done yet."""

    id: int
    stage: str
    subject: str | None
    stream: str | None
    epoch: int | None
    seq: int | None
    stored_at: datetime | None
    entity_type: str | None
    entity_id: str | None
    raw: bytes
    error_kind: str
    error: str
    attempts: int
    first_at: datetime
    last_at: datetime
    replayed_at: datetime | None

    @property
    def ref(self) -> EntityRef | None:
        return ref_or_none(self.entity_type, self.entity_id)

    @property
    def is_message(self) -> bool:
        return self.stage in _MESSAGE_STAGES

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "stage": self.stage,
            "subject": self.subject,
            "stream": self.stream,
            "seq": self.seq,
            "entity": str(self.ref) if self.ref is not None else None,
            "error_kind": self.error_kind,
            "error": self.error,
            "attempts": self.attempts,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "replayed_at": self.replayed_at,
        }


@dataclass(slots=True)
class Replayed:
    """The result of a replay."""

    accepted: int = 0
    """Messages that are valid now: they are in the inbox."""
    done: int = 0
    """Entities that are indexed now, or need no indexing."""
    failed: int = 0
    """Letters that fail again; their attempts are counted."""

    @property
    def total(self) -> int:
        return self.accepted + self.done + self.failed


def announce_dead_letters(platform: Platform) -> int:
    """Publish the letters, and new attempts, that are not published yet; returns their number.

    Each is published at least once. A request that intake rejected is answered, too.
    """
    announced = 0
    for _ in range(_PAGES_A_CALL):
        page = _announce_page(platform)
        announced += page
        if page < _LETTERS_AT_ONCE:
            break
    publish_waiting(platform)
    return announced


def find_letters(platform: Platform, selection: Selection, *, limit: int | None = None) -> Iterator[DeadLetter]:
    """The letters of `selection` that exist now, in the order of their ids."""
    with platform.postgres.transaction() as connection:
        row = connection.execute(platform.postgres.query("last_dead_letter")).fetchone()
    size = _LETTERS_AT_ONCE if limit is None else min(limit, _LETTERS_AT_ONCE)
    parameters = {**_filters(selection), "up_to": row[0] if row else 0, "limit": size}

    def read(after: int) -> list[DeadLetter]:
        with platform.postgres.transaction() as connection:
            return platform.postgres.rows(connection, "find_dead_letters", DeadLetter, {**parameters, "after": after})

    yield from islice(chain.from_iterable(keyset_pages(read, attrgetter("id"), 0)), limit)


def replay(platform: Platform, selection: Selection) -> Replayed:
    """Try the letters of `selection` again: messages are parsed again, entities indexed again.

    A message takes its old place in the order of events. Its letter is deleted when the message is applied. If it fails
    again, the letter stays, and the attempt is counted.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch, EmbedderUnavailable: what was replayed stays replayed.
    """
    done = Replayed()
    page: list[DeadLetter] = []
    for letter in find_letters(platform, selection):
        page.append(letter)
        if len(page) == _LETTERS_AT_ONCE:
            _replay_page(platform, page, done)
            page = []
    _replay_page(platform, page, done)
    if done.done:
        for _ in link(platform):
            pass
    return done


def purge(platform: Platform, selection: Selection) -> int:
    """Delete the letters of `selection`; returns their number."""
    with platform.postgres.transaction() as connection:
        return connection.execute(platform.postgres.query("purge_dead_letters"), _filters(selection)).rowcount


def _filters(selection: Selection) -> dict[str, Any]:
    filters = asdict(selection)
    filters["ids"] = None if selection.ids is None else list(selection.ids)
    return filters


def _announce_page(platform: Platform) -> int:
    query = platform.postgres.query
    with platform.postgres.transaction() as connection:
        letters = platform.postgres.rows(connection, "claim_unannounced", DeadLetter, {"limit": _LETTERS_AT_ONCE})
        keep(platform, connection, *(result for letter in letters for result in _results(letter)))
        if letters:
            connection.execute(query("mark_announced"), {"ids": [letter.id for letter in letters]})
    return len(letters)


def _results(letter: DeadLetter) -> Iterator[ResultMessage]:
    message_id = _message_id(letter.raw) if letter.is_message else None
    message_ids = [message_id] if message_id is not None else []
    result = {
        "id": letter.id,
        "stage": letter.stage,
        "subject": letter.subject,
        "stream": letter.stream,
        "seq": letter.seq,
        "entity": str(letter.ref) if letter.ref is not None else None,
        "error_kind": letter.error_kind,
        "error": letter.error,
        "attempts": letter.attempts,
        "raw_base64": base64.b64encode(letter.raw).decode() if 0 < len(letter.raw) <= _RAW_PUBLISHED else None,
        "raw_bytes": len(letter.raw),
    }
    if letter.stage == "intake" and letter.subject is not None and letter.subject in REQUESTS:
        # Intake rejected the request, and its sender waits for an answer.
        refused = {"counts": {}, "error_kind": letter.error_kind, "error": letter.error}
        yield ResultMessage(result_subject(letter.subject, failed=True), refused, message_ids)
    yield ResultMessage(DEAD_LETTER, result, message_ids)


def _message_id(raw: bytes) -> str | None:
    """The message's id; None if the bytes, which need be no valid message, have none."""
    try:
        envelope = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(envelope, dict):
        return None
    named = envelope.get("message_id", envelope.get("messageId"))
    if not isinstance(named, str) or not 0 < len(named) <= MAX_ID_LENGTH:
        return None
    return named.encode(errors="replace").decode()


def _replay_page(platform: Platform, page: Sequence[DeadLetter], done: Replayed) -> None:
    messages = [letter for letter in page if letter.is_message and letter.replayed_at is None]
    if messages:
        accepted, failed = retrying(platform.settings)(_replay_messages, platform, messages)
        done.accepted += accepted
        done.failed += failed
    letters = {letter.ref: letter for letter in page if not letter.is_message and letter.ref is not None}
    known = {ref: letter for ref, letter in letters.items() if ref.type in platform.settings.entity_types}
    if letters:
        done.failed += len(letters) - len(known)
        _replay_entities(platform, known, done)


def _replay_messages(platform: Platform, letters: Sequence[DeadLetter]) -> tuple[int, int]:
    """The numbers of messages that went into the inbox, and of those that are still rejected."""
    query = platform.postgres.query
    with platform.postgres.transaction() as connection:
        locked = {
            row[0] for row in connection.execute(query("lock_dead_letters"), {"ids": [one.id for one in letters]})
        }
        parsed = [
            (letter, parse(letter.subject or "", letter.raw, platform.type_names))
            for letter in letters
            if letter.id in locked
        ]
        events = [(letter, event) for letter, event in parsed if isinstance(event, Event)]
        rejected = [(letter, event) for letter, event in parsed if isinstance(event, Rejected)]
        if events:
            connection.execute(query("replay_inbox"), _inbox_columns(events))
            taken_in = ((event, letter.stream or "", letter.epoch or 0, letter.seq or 0) for letter, event in events)
            keep_warnings(platform, connection, taken_in)
            connection.execute(query("mark_replayed"), {"ids": [letter.id for letter, _ in events]})
        if rejected:
            connection.execute(
                query("still_rejected"),
                {
                    "ids": [letter.id for letter, _ in rejected],
                    "error_kind": [rejection.error_kind.value for _, rejection in rejected],
                    "error": [rejection.error for _, rejection in rejected],
                },
            )
    return len(events), len(rejected)


def _inbox_columns(events: Sequence[tuple[DeadLetter, Event]]) -> dict[str, list[Any]]:
    return {
        "stream": [letter.stream for letter, _ in events],
        "epoch": [letter.epoch for letter, _ in events],
        "seq": [letter.seq for letter, _ in events],
        **event_columns([event for _, event in events]),
        "event_order": [
            event_order(letter.stored_at or letter.first_at, letter.stream or "", letter.epoch or 0, letter.seq or 0)
            for letter, _ in events
        ],
        "stored_at": [letter.stored_at or letter.first_at for letter, _ in events],
    }


def _replay_entities(platform: Platform, letters: dict[EntityRef, DeadLetter], done: Replayed) -> None:
    synced = Synced()
    index(platform, list(letters), synced)
    sound = [ref for ref in letters if ref not in synced.refusals and ref not in synced.unknown]
    done.done += len(sound)
    done.failed += len(letters) - len(sound)

    def record() -> None:
        with platform.postgres.transaction() as connection:
            for entity_type, ids in by_type(sound).items():
                # Entities that needed no write, because their row is again as it was indexed before.
                connection.execute(
                    platform.postgres.query("resolve_dead_letters"), {"entity_type": entity_type, "ids": ids}
                )
            unknown = [letters[ref] for ref in letters if ref in synced.unknown]
            if unknown:
                connection.execute(
                    platform.postgres.query("still_rejected"),
                    {
                        "ids": [letter.id for letter in unknown],
                        "error_kind": [letter.error_kind for letter in unknown],
                        "error": [letter.error for letter in unknown],
                    },
                )

    retrying(platform.settings)(record)
