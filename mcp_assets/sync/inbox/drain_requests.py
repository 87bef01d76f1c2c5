"""Demand: which entity types have pending work that nobody drains, and which have lost events and want a full sync."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain_lock import Heartbeat, heartbeats

STARTING_S = 30.0
"""A run that has not begun to drain this long after it was made or launched is taken for lost.

A run begins within a second, and within some 20 s where the process that forks runs has to be started on a busy
machine. One run too many does no harm: it finds the lock of its type taken and ends.
"""

LEFT_TO_DRAINS_S = 2.0
"""For so long work is left to a living drain of another type, which should have taken it over by then."""

FULL_SYNC_AGAIN_S = 60.0
"""After one failure a full sync that lost events want is asked for again this much later, twice as late after each."""

FULL_SYNC_AGAIN_MAX_S = 3600.0

DRAIN_AGAIN_S = 15.0
"""After the second failure in a row a drain is asked for again this much later, twice as late after each; once at once.

What fails each time would otherwise fill the list of runs. The outages that are known beforehand, of Qdrant and of the
embedding provider, cost no run at all.
"""

DRAIN_AGAIN_MAX_S = 60.0

DRAIN_FAILURES_COUNTED = 4
"""Failures in a row that are looked at: by then DRAIN_AGAIN_MAX_S is reached."""

FAILURES_COUNTED = 10
"""Failures in a row that are looked at: by then FULL_SYNC_AGAIN_MAX_S is reached."""


@dataclass(frozen=True, slots=True)
class DrainRun:
    """An unfinished run that was asked to drain a type.

    `queued`: it waits in Dagster's queue, for as long as that takes. `changed_s_ago`: since the run was made, was
    launched, or changed its status otherwise.
    """

    entity_type: str
    run_id: str
    queued: bool
    changed_s_ago: float


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is finished. A run that a person canceled counts as failed: it is not asked for again at once."""

    failed: bool
    ended_s_ago: float


def full_sync_due(ended: Sequence[EndedRun]) -> bool:
    """Whether a wanted full sync may be asked for; `ended`: those of its type so far, the newest first.

    A full sync that waits for a person, such as a mass deletion, fails each time. Asked for at each tick it would fill
    the list of runs.
    """
    failures = _failures_in_a_row(ended)
    wait_s = min(FULL_SYNC_AGAIN_S * 2 ** (failures - 1), FULL_SYNC_AGAIN_MAX_S)
    return not failures or ended[0].ended_s_ago >= wait_s


def drain_due(ended: Sequence[EndedRun]) -> bool:
    """Whether a drain may be asked for; `ended`: those of its type so far, the newest first."""
    failures = _failures_in_a_row(ended)
    wait_s = min(DRAIN_AGAIN_S * 2.0 ** (failures - 2), DRAIN_AGAIN_MAX_S)
    return failures < 2 or ended[0].ended_s_ago >= wait_s


def _failures_in_a_row(ended: Sequence[EndedRun]) -> int:
    return sum(1 for _ in takewhile(lambda run: run.failed, ended))


def overdue(
    waiting: Mapping[str, float], beats: Mapping[str, Iterable[Heartbeat]], types: Collection[str]
) -> list[str]:
    """Those of `waiting` (type -> seconds) that no living drain of one of `types` is just about to take over."""
    living = any(beat.is_alive for entity_type in types for beat in beats.get(entity_type, ()))
    return [name for name, waited_s in waiting.items() if not living or waited_s >= LEFT_TO_DRAINS_S]


def undrained(pending: Iterable[str], runs: Iterable[DrainRun], beats: Mapping[str, Iterable[Heartbeat]]) -> list[str]:
    """Those of the types in `pending` that no drain works on or is about to.

    A drain is at work if it holds the type's lock and beats; a run is about to if it waits in the queue, or was made or
    launched a short while ago and has not beaten yet. Whatever else is unfinished has died or hangs: so has a run that
    was made and that a daemon, killed at that moment, has never launched.
    """
    drained = {entity_type for entity_type, seen in beats.items() if any(beat.is_alive for beat in seen)}
    beaten = {beat.run_id for seen in beats.values() for beat in seen}
    drained |= {
        run.entity_type for run in runs if run.queued or (run.run_id not in beaten and run.changed_s_ago < STARTING_S)
    }
    return [entity_type for entity_type in pending if entity_type not in drained]


def pending_types(platform: Platform, kind: MessageKind) -> dict[str, float]:
    """Registered entity types with messages of `kind` in the inbox; for how long the oldest has been due, seconds."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("pending_types"), {"kinds": [kind.value]}).fetchall()
    return {row[0]: row[1] for row in rows if row[0] in platform.settings.entity_types}


def is_drained(platform: Platform, kind: MessageKind) -> bool:
    """Whether a living drain works off messages of `kind` that are in the inbox."""
    waiting = pending_types(platform, kind)
    seen = heartbeats(platform) if waiting else {}
    return any(beat.is_alive for entity_type in waiting for beat in seen.get(entity_type, ()))


def wanted_full_syncs(platform: Platform) -> dict[str, str]:
    """Entity types of which events were lost, with the reason."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("wanted_full_syncs")).fetchall()
    return {row[0]: row[2] for row in rows if row[0] in platform.settings.entity_types}
