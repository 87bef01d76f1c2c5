"""The warm run launcher: runs in processes forked from one that has Dagster and the code location imported.

What belongs here: the plug-ins for dagster.yaml, the forkserver they start, and what a forked run does. Nothing here
knows what the runs compute: the package imports nothing but Dagster, psutil and, for the storage, dagster-postgres.
"""

from typing import TYPE_CHECKING

from dagster_warm_launcher.tags import PROMPT_TAG
from dagster_warm_launcher.versions import is_tried

if TYPE_CHECKING or is_tried():
    from dagster_warm_launcher.run_coordinator import PromptRunCoordinator
    from dagster_warm_launcher.run_launcher import WarmRunLauncher
else:
    from dagster_warm_launcher.fallback import PromptRunCoordinator, WarmRunLauncher

__all__ = ["PROMPT_TAG", "PromptRunCoordinator", "WarmRunLauncher"]
