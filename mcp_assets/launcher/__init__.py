"""The warm run launcher: runs in processes forked from one that has Dagster and the code location imported.

What belongs here: the plugin for dagster.yaml, the forkserver it starts, and what a forked run does. Nothing here
knows what the runs compute; this package uses no other part of mcp_assets.
"""

from mcp_assets.launcher.run_coordinator import PROMPT_TAG, PromptRunCoordinator
from mcp_assets.launcher.run_launcher import WarmRunLauncher

__all__ = ["PROMPT_TAG", "PromptRunCoordinator", "WarmRunLauncher"]
