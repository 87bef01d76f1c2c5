"""Compute logs: what runs write to stdout and stderr, in the state folder; dagster.yaml names no path."""

from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData

from mcp_assets.settings import read_settings


class StateDirComputeLogManager(LocalComputeLogManager):
    """Dagster's own, below `state_dir`. A relative path would make a folder wherever a command is started."""

    @classmethod
    def config_type(cls) -> Mapping[str, dg.Field]:
        """`polling_timeout` is Dagster's own option: seconds between two looks of the UI at a growing file."""
        return {"polling_timeout": dg.Field(dg.Float, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Raises SettingsError if a setting is wrong."""
        folder = read_settings().state_dir.resolve() / "dagster"
        return cls(base_dir=str(folder), inst_data=inst_data, **config_value)
