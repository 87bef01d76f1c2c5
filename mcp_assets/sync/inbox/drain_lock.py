"""Drain lock: at most one drain an entity type, and the heartbeat that shows that it lives.

A drain holds an advisory lock of PostgreSQL on a connection of its own. The lock ends with that connection, so that a
drain that is killed leaves none behind. A process that hangs keeps its lock: its old heartbeat gives it away.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, lock_name, release, try_to_hold

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats: one small write for each drain."""

STALE_HEARTBEAT_S = 4 * HEARTBEAT_S
"""A drain whose heartbeat is older than this counts as dead."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last sign of life of a drain; `locked`: some session holds the drain lock of its type."""

    entity_type: str
    run_id: str
    age_s: float
    locked: bool

    @property
    def is_alive(self) -> bool:
        """Whether a drain is at work."""
        return self.locked and self.age_s < STALE_HEARTBEAT_S


@contextmanager
def hold_drain_lock(platform: Platform, entity_type: str, run_id: str) -> Iterator[bool]:
    """Hold the drain lock of `entity_type` and send heartbeats while the block runs. False: another drain holds it."""
    postgres = platform.postgres
    names = {"entity_type": entity_type, "run_id": run_id}
    lock = lock_name(postgres, Lock.DRAIN, entity_type)
    with postgres.session() as session:
        if not try_to_hold(session, lock):
            yield False
            return
        stop = threading.Event()
        session.execute(postgres.query("heartbeat"), names)
        heart = threading.Thread(
            target=_send_heartbeats, args=(platform, session, names, stop), name="heartbeat", daemon=True
        )
        heart.start()
        try:
            yield True
        finally:
            stop.set()
            heart.join()
            if not session.broken:
                session.execute(postgres.query("leave_drain"), names)
                # Messages that came as the drain let go are looked for next, of types whose lock no session holds.
                release(session, lock)


def _send_heartbeats(platform: Platform, session: Connection, names: Mapping[str, str], stop: threading.Event) -> None:
    """Send heartbeats on the connection that holds the lock. If it breaks, the lock is gone, and the heartbeats end."""
    while not stop.wait(HEARTBEAT_S):
        try:
            session.execute(platform.postgres.query("heartbeat"), names)
        except psycopg.OperationalError:
            logger.warning("the drain of %s lost its lock: another may start beside it", names["entity_type"])
            return


def heartbeats(platform: Platform) -> dict[str, list[Heartbeat]]:
    """The last heartbeat of each drain, by entity type."""
    postgres = platform.postgres
    found: dict[str, list[Heartbeat]] = {}
    with postgres.transaction() as connection:
        beats = postgres.rows(connection, "drains", Heartbeat, {"lock_prefix": lock_name(postgres, Lock.DRAIN, "")})
    for beat in beats:
        found.setdefault(beat.entity_type, []).append(beat)
    return found
