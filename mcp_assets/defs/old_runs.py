"""Old runs and observations: they are deleted after a time, because Dagster keeps them and their events for ever."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.instance import RUNLESS_RUN_ID
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable

_RUNS_AT_ONCE = 100
"""Runs that are read in one query, so that memory does not grow with the number of old runs."""


def delete_runs(instance: dg.DagsterInstance, before: datetime) -> int:
    """Delete the finished runs that were made before `before`, some at a time; unfinished ones stay, however old."""
    deleted = 0
    while runs := _old_runs(instance, before):
        for run in runs:
            instance.delete_run(run.run_id)
        deleted += len(runs)
    return deleted


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Sequence[dg.DagsterRun]:
    wanted = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=before)
    return [record.dagster_run for record in instance.get_run_records(wanted, limit=_RUNS_AT_ONCE, ascending=True)]


def delete_observations(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey], before: datetime) -> int:
    """Delete the observations of `keys` that a sensor made before `before`: they belong to no run that is deleted.

    Dagster has no call for it, so that this reaches into its table of events.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return 0
    events = SqlEventLogStorageTable
    with storage.index_connection() as connection:
        deleted = connection.execute(
            events.delete().where(
                events.c.run_id == RUNLESS_RUN_ID,
                events.c.dagster_event_type == dg.DagsterEventType.ASSET_OBSERVATION.value,
                events.c.asset_key.in_([key.to_string() for key in keys]),
                # Dagster keeps times in UTC, without a time zone.
                events.c.timestamp < before.astimezone(UTC).replace(tzinfo=None),
            )
        )
        return int(deleted.rowcount)
