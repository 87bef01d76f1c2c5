"""Recheck: compares an entity with its source row again if its event changed nothing when it was applied.

A publisher that sends its event inside its transaction is ahead of its own commit, so that the event is applied before
its row can be read. The drain notes such an entity in its own transaction, and a sensor tick or a drain rechecks it
about 2, 10 and 60 s later. A recheck compares hashes and applies nothing. An entity that differs by then gets a look: a
message that the platform itself puts into the inbox, by which a drain applies the source row.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mcp_assets.events import MessageKind, Stated
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.rows import RowHash, SourceRow

logger = logging.getLogger(__name__)

LOOK_SUBJECT = "mcp_assets.look"
"""Stands in the inbox for the subject of a look if no message waits for its answer."""

LOOKS_STREAM = "(looks)"
"""Stands in the inbox for the stream of looks: no stream can have this name."""

LAST_LOOK = 1
"""Attempts of a look after which an unknown entity is given up."""

_ROWS_AT_ONCE = 2_000
"""Rechecks in one transaction, so that their rows are not locked for long."""

_EVERY_S = 1.0
"""Each recheck of a process costs a query: more often than this adds nothing to delays of 2 s and more."""

_AFTER_AN_ERROR_S = 30.0
"""How long rechecks of a type rest after its source table could not be read."""


@dataclass(frozen=True, slots=True)
class Early:
    """An entity whose event may have come before the commit of its row.

    `messages`: if the entity is unknown, kind, subject and message id of each message, none of which is answered yet.
    """

    entity_id: str
    messages: Sequence[tuple[str, str, str | None]] = ()


class Look(NamedTuple):
    """A message that the platform itself puts into the inbox, by which a drain compares an entity with its source row.

    Kind, subject and message id are those of the message that waits for its answer, if there is one.
    """

    entity_id: str
    kind: str = MessageKind.ENTITY.value
    subject: str = LOOK_SUBJECT
    message_id: str | None = None
    attempts: int = 0


def may_be_early(
    source: SourceRow | None, stated: Stated[str] | None, *, deleting: bool, changed: bool, events: int
) -> bool:
    """Whether the event may be ahead of its commit: its content is not that of `source`, the row.

    `deleting`: the newest event deletes. `changed`: the row changed the ledger. `events`: how many events about the
    entity were applied together; the commit of one of several may still be to come.
    """
    if source is None or not source.alive:
        return not deleting
    if deleting or not changed or events > 1:
        return True
    carried = stated.carried if stated is not None else None
    return carried is not None and (carried.title, carried.content) != (source.title, source.content)


def note(platform: Platform, connection: Connection, entity_type: str, early: Sequence[Early]) -> None:
    """Have `early`, each entity once, rechecked; for an entity that is noted already the delays start again."""
    if not early:
        return
    connection.execute(
        platform.postgres.query("note_rechecks"),
        {
            "entity_type": entity_type,
            "after_s": platform.tuning.index.rechecks_after_s[0],
            "entity_id": [one.entity_id for one in early],
            "messages": [json.dumps(list(dict.fromkeys(one.messages))) if one.messages else "[]" for one in early],
        },
    )


def insert_looks(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    looks: Sequence[Look],
) -> None:
    """Put `looks` into the inbox."""
    if not looks:
        return
    columns = dict(zip(Look._fields, map(list, zip(*looks, strict=True)), strict=True))
    connection.execute(platform.postgres.query("insert_looks"), {"entity_type": entity_type, **columns})


class Rechecks:
    """Does the rechecks that are due, at most once a second; one object for each process that waits for events."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._put_off: dict[str, float] = {}

    def close(self) -> None:
        """It holds nothing."""

    def take_due(self) -> int:
        """Do all rechecks that are due. Returns how many entities differ by now; they wait in the inbox.

        A type whose source table cannot be read is put off for half a minute, with a warning.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._next_at:
                return 0
            self._next_at = now + _EVERY_S
        postgres = self._platform.postgres
        with postgres.transaction() as connection:
            types = [row[0] for row in connection.execute(postgres.query("due_recheck_types"))]
        found = 0
        for entity_type in types:
            if entity_type not in self._platform.settings.entity_types or self._put_off.get(entity_type, 0.0) > now:
                continue
            try:
                found += take_due(self._platform, entity_type)
            except (StoreUnavailable, StoreRefused) as error:
                self._put_off[entity_type] = now + _AFTER_AN_ERROR_S
                logger.warning("rechecks of %s are put off for %.0f s: %s", entity_type, _AFTER_AN_ERROR_S, error)
        return found


def take_due(platform: Platform, entity_type: str) -> int:
    """Recheck the entities of one type that are due. Returns how many differ.

    Raises:
        StoreUnavailable, StoreRefused: nothing was done; the rechecks stay due.
    """
    postgres = platform.postgres
    reader = platform.source(entity_type)
    found = 0
    while True:
        with postgres.transaction() as connection:
            due = postgres.rows(connection, "due_rechecks", _Due, {"entity_type": entity_type, "limit": _ROWS_AT_ONCE})
            if not due:
                return found
            hashes = reader.hashes(connection, [row.entity_id for row in due]) if reader is not None else {}
            found += _decide(platform, connection, entity_type, due, hashes)
        if len(due) < _ROWS_AT_ONCE:
            return found


@dataclass(frozen=True, slots=True)
class _Due:
    """A recheck that is due, with the ledger row of its entity."""

    entity_id: str
    looks: int
    messages: Sequence[tuple[str, str, str | None]]
    in_ledger: bool
    origin: str | None
    source_hash: str | None
    deleted: bool

    def differs(self, row: RowHash | None) -> bool:
        """Whether `row`, the source row as it is now, differs from the ledger row."""
        if row is not None and row.alive:
            return not self.in_ledger or self.deleted or (self.origin, self.source_hash) != ("source", row.source_hash)
        return self.in_ledger and self.origin == "source" and not self.deleted


def _decide(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    due: Sequence[_Due],
    hashes: Mapping[str, RowHash],
) -> int:
    rechecks_after_s = platform.tuning.index.rechecks_after_s
    looks: list[Look] = []
    later: list[_Due] = []
    ended: list[str] = []
    found = 0
    for row in due:
        differs = row.differs(hashes.get(row.entity_id))
        last = row.looks + 1 >= len(rechecks_after_s)
        found += differs
        if not differs and not last and not (row.messages and row.in_ledger):
            later.append(row)
            continue
        ended.append(row.entity_id)
        if row.messages:
            # The drain answers the messages, by the row, or by giving the entity up for good.
            looks += [Look(row.entity_id, *message, 0 if differs else LAST_LOOK) for message in row.messages]
        elif differs:
            looks.append(Look(row.entity_id))
    insert_looks(platform, connection, entity_type, looks)
    query = platform.postgres.query
    if later:
        after_s = [rechecks_after_s[row.looks + 1] for row in later]
        ids = [row.entity_id for row in later]
        connection.execute(
            query("postpone_rechecks"), {"entity_type": entity_type, "entity_id": ids, "after_s": after_s}
        )
    if ended:
        connection.execute(query("delete_rechecks"), {"entity_type": entity_type, "ids": ended})
    return found
