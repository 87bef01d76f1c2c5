"""Recheck: looks again at what an event told of without changing anything, for its row may not be committed yet.

A publisher that sends its event inside its transaction is ahead of its own commit. Such an entity is noted in the
transaction of the drain, and looked at again about 2, 10 and 60 s later by whichever tick or drain lives. A recheck
compares hashes and applies nothing: what differs by then goes to the inbox as a look.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_assets.events import MessageKind, Stated
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.source_tables.rows import SourceRow

logger = logging.getLogger(__name__)

LOOKS_AFTER_S = (2.0, 10.0, 60.0)
"""Seconds after the event, about, at which its entity is looked at again."""

LOOK_SUBJECT = "mcp_assets.look"
"""Stands in the inbox for the subject of a look of which no message asks for an answer."""

LOOKS_STREAM = "(looks)"
"""Stands in the inbox for the stream of looks: no stream can bear this name."""

LAST_LOOK = 1
"""Attempts of a look after which an entity of which nothing is known is given up."""

_ROWS_AT_ONCE = 2_000
_EVERY_S = 1.0
_AFTER_AN_ERROR_S = 30.0


@dataclass(frozen=True, slots=True)
class Early:
    """An entity whose event may have come before the commit of its row.

    `asked`: kind, subject and message id of each message, if nothing is known of the entity: it is not answered yet.
    """

    entity_id: str
    asked: Sequence[tuple[str, str, str | None]] = ()


def may_be_early(
    source: SourceRow | None, stated: Stated[str] | None, *, deleting: bool, changed: bool, events: int
) -> bool:
    """Whether the event may be ahead of its commit: what it tells of is not what `source`, the row, says.

    `deleting`: the newest event deletes. `changed`: it was the first to find the row as it is. `events`: how many
    were looked at together; of several one may tell of a change that is still to come.
    """
    if source is None or not source.alive:
        return not deleting
    if deleting or not changed or events > 1:
        return True
    carried = stated.carried if stated is not None else None
    return carried is not None and (carried.title, carried.content) != (source.title, source.content)


def note(platform: Platform, connection: Connection, entity_type: str, early: Sequence[Early]) -> None:
    """Have `early`, each entity once, looked at again; an entity that is noted already starts anew."""
    if not early:
        return
    connection.execute(
        platform.postgres.query("note_rechecks"),
        {
            "entity_type": entity_type,
            "after_s": LOOKS_AFTER_S[0],
            "entity_id": [one.entity_id for one in early],
            "asked": [json.dumps(list(dict.fromkeys(one.asked))) if one.asked else "[]" for one in early],
        },
    )


def insert_looks(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    looks: Sequence[tuple[str, str, str, str | None, int]],
) -> None:
    """Put looks into the inbox: entity id, kind, subject, message id, attempts."""
    if not looks:
        return
    names = ("entity_id", "kind", "subject", "message_id", "attempts")
    columns: dict[str, list[Any]] = {name: [look[n] for look in looks] for n, name in enumerate(names)}
    connection.execute(platform.postgres.query("insert_looks"), {"entity_type": entity_type, **columns})


class Rechecks:
    """Takes the looks that are due, at most once a second; one object a process that waits for events."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._put_off: dict[str, float] = {}

    def close(self) -> None:
        """It holds nothing."""

    def take_due(self) -> int:
        """Look again at what is due. Returns the number of entities that differ by now, and wait in the inbox.

        A type whose source table cannot be read is put off for half a minute, with a warning: the others go on.

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
    """Look again at the entities of one type that are due. Returns how many were found to differ.

    Raises:
        StoreUnavailable, StoreRefused: nothing was done; they stay due.
    """
    postgres = platform.postgres
    reader = platform.source(entity_type)
    found = 0
    while True:
        with postgres.transaction() as connection:
            due = [
                _Due(*row)
                for row in connection.execute(
                    postgres.query("due_rechecks"), {"entity_type": entity_type, "limit": _ROWS_AT_ONCE}
                )
            ]
            if not due:
                return found
            hashes = reader.hashes(connection, [row.entity_id for row in due]) if reader is not None else {}
            found += _decide(platform, connection, entity_type, due, hashes)
        if len(due) < _ROWS_AT_ONCE:
            return found


@dataclass(frozen=True, slots=True)
class _Due:
    entity_id: str
    looks: int
    asked: Sequence[tuple[str, str, str | None]]
    in_ledger: bool
    origin: str | None
    source_hash: str | None
    deleted: bool

    def differs(self, row: tuple[bool, str] | None) -> bool:
        """Whether `row` (alive, hash), the source row as it is now, is not what the ledger says."""
        if row is not None and row[0]:
            return not self.in_ledger or self.deleted or (self.origin, self.source_hash) != ("source", row[1])
        return self.in_ledger and self.origin == "source" and not self.deleted


def _decide(
    platform: Platform,
    connection: Connection,
    entity_type: str,
    due: Sequence[_Due],
    hashes: Mapping[str, tuple[bool, str]],
) -> int:
    looks: list[tuple[str, str, str, str | None, int]] = []
    later: list[_Due] = []
    ended: list[str] = []
    found = 0
    for row in due:
        differs = row.differs(hashes.get(row.entity_id))
        last = row.looks + 1 >= len(LOOKS_AFTER_S)
        found += differs
        if not differs and not last and not (row.asked and row.in_ledger):
            later.append(row)
            continue
        ended.append(row.entity_id)
        if row.asked:
            # Answered by the drain, as what was found, or given up for good.
            looks += [(row.entity_id, *message, 0 if differs else LAST_LOOK) for message in row.asked]
        elif differs:
            looks.append((row.entity_id, MessageKind.ENTITY.value, LOOK_SUBJECT, None, 0))
    insert_looks(platform, connection, entity_type, looks)
    query = platform.postgres.query
    if later:
        after_s = [LOOKS_AFTER_S[row.looks + 1] for row in later]
        ids = [row.entity_id for row in later]
        connection.execute(
            query("postpone_rechecks"), {"entity_type": entity_type, "entity_id": ids, "after_s": after_s}
        )
    if ended:
        connection.execute(query("delete_rechecks"), {"entity_type": entity_type, "ids": ended})
    return found
