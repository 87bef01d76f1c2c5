"""Dagster's own launcher and queue under the names of this package, for a version of Dagster that was not tried.

dagster.yaml stays as it is. Runs start as slowly as Dagster starts them, and the log says why.
"""

import logging

import dagster
from dagster import DagsterInstance
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.run_coordinator import QueuedRunCoordinator

from dagster_warm_launcher.versions import TRIED

logging.getLogger("dagster_warm_launcher").warning(
    "Dagster %s is not one of the versions that the warm launcher was tried with (%s). Dagster's own launcher and "
    "queue are used, so that each run takes seconds to start",
    dagster.__version__,
    ", ".join(TRIED),
)


class WarmRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher."""


class PromptRunCoordinator(QueuedRunCoordinator[DagsterInstance]):
    """Dagster's own queue."""
