"""Old runs: finished runs are deleted after a time, because Dagster keeps them and their events for ever."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

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
