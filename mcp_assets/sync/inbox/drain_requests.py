"""Drain requests: which entity types need a run: a drain for pending messages, or a full sync for lost events."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox import table_counts
from mcp_assets.sync.inbox.drain_lock import Heartbeat, heartbeats
from mcp_assets.tuning import InboxTuning

FULL_SYNC_AGAIN_MAX_S = 3600.0
"""The longest wait after a full sync has failed: a cause that a person removes is noticed within the hour."""

DRAIN_AGAIN_MAX_S = 60.0
"""The longest wait after a drain has failed: events must not wait much longer than their cause of failure lasts."""

DRAIN_FAILURES_COUNTED = 4
"""Failures in a row that are counted: by then DRAIN_AGAIN_MAX_S is reached."""

FAILURES_COUNTED = 10
"""Failures in a row that are counted: by then FULL_SYNC_AGAIN_MAX_S is reached."""


@dataclass(frozen=True, slots=True)
class DrainRun:
    """An unfinished run that was asked to drain a type.

    `queued`: it waits in Dagster's queue, which may take any time. `changed_s_ago`: seconds since the run was made, was
    launched, or changed its status otherwise.
    """

    entity_type: str
    run_id: str
    queued: bool
    changed_s_ago: float


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is finished. A run that a person canceled counts as failed, and is not asked for again at once."""

    failed: bool
    ended_s_ago: float


def full_sync_due(ended: Sequence[EndedRun], tuning: InboxTuning) -> bool:
    """Whether a wanted full sync may be asked for; `ended`: earlier runs of its type, the newest first.

    A full sync that needs a person, as after a mass deletion, fails each time. If it were asked for at each tick, it
    would fill the list of runs.
    """
    failures = _failures_in_a_row(ended)
    wait_s = min(tuning.full_sync_again_s * 2 ** (failures - 1), FULL_SYNC_AGAIN_MAX_S)
    return not failures or ended[0].ended_s_ago >= wait_s


def drain_due(ended: Sequence[EndedRun], tuning: InboxTuning) -> bool:
    """Whether a drain may be asked for; `ended`: earlier runs of its type, the newest first."""
    failures = _failures_in_a_row(ended)
    wait_s = min(tuning.drain_again_s * 2.0 ** (failures - 2), DRAIN_AGAIN_MAX_S)
    return failures < 2 or ended[0].ended_s_ago >= wait_s


def _failures_in_a_row(ended: Sequence[EndedRun]) -> int:
    return sum(1 for _ in takewhile(lambda run: run.failed, ended))


def overdue(
    waiting: Mapping[str, float],
    beats: Mapping[str, Iterable[Heartbeat]],
    types: Collection[str],
    tuning: InboxTuning,
) -> list[str]:
    """The types of `waiting` (type -> seconds) that no living drain of one of `types` is about to take over."""
    living = any(beat.is_alive for entity_type in types for beat in beats.get(entity_type, ()))
    return [name for name, waited_s in waiting.items() if not living or waited_s >= tuning.left_to_drains_s]


def undrained(
    pending: Iterable[str],
    runs: Iterable[DrainRun],
    beats: Mapping[str, Iterable[Heartbeat]],
    tuning: InboxTuning,
) -> list[str]:
    """The types of `pending` that no drain works on or will soon work on.

    A drain works if it holds the lock of the type and sends heartbeats. A run will soon drain if it waits in the queue,
    or was made or launched a short while ago and has sent no heartbeat yet. Any other unfinished run has died or hangs.
    A run that a killed daemon has made and never launched is one of these.
    """
    drained = {entity_type for entity_type, seen in beats.items() if any(beat.is_alive for beat in seen)}
    beaten = {beat.run_id for seen in beats.values() for beat in seen}
    drained |= {
        run.entity_type
        for run in runs
        if run.queued or (run.run_id not in beaten and run.changed_s_ago < tuning.starting_s)
    }
    return [entity_type for entity_type in pending if entity_type not in drained]


def pending_types(platform: Platform, kind: MessageKind) -> dict[str, float]:
    """Registered entity types with messages of `kind` in the inbox; for how long the oldest has been due, seconds."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("pending_types"), {"kinds": [kind.value]}).fetchall()
    return {name: due_for_s for name, due_for_s in rows if name in platform.settings.entity_types}


def is_drained(platform: Platform, kind: MessageKind) -> bool:
    """Whether a living drain applies messages of `kind` that are in the inbox."""
    waiting = pending_types(platform, kind)
    seen = heartbeats(platform) if waiting else {}
    return any(beat.is_alive for entity_type in waiting for beat in seen.get(entity_type, ()))


def wanted_full_syncs(platform: Platform) -> dict[str, str]:
    """Entity types whose events were lost, with the reason."""
    with platform.postgres.transaction() as connection:
        rows = table_counts.wanted_full_syncs(platform, connection)
    return {row.entity_type: row.reason for row in rows if row.entity_type in platform.settings.entity_types}
