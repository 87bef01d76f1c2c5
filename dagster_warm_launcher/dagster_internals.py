"""Every name that launcher and queue take from Dagster and that is not in its public interface.

Dagster promises nothing about these names. README.md says how to move to another version.
"""

from dagster._cli.api import _execute_run_command_body
from dagster._config.config_schema import UserConfigSchema
from dagster._core.definitions.reconstruct import repository_def_from_target_def
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.origin import RepositoryPythonOrigin
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX, PRIORITY_TAG, SENSOR_NAME_TAG
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.hosted_user_process import recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts

execute_run_command_body = _execute_run_command_body

# What every run imports late, as seen in a fork: Dagster's by and by, the driver with SQLAlchemy's first engine.
LATE_IMPORTS = (
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.remote_representation.historical",
    "dagster._core.system_config.composite_descent",
    "psycopg2.extras",
    "upath.implementations.local",
)

__all__ = [
    "HIDDEN_TAG_PREFIX",
    "IN_PROGRESS_RUN_STATUSES",
    "LATE_IMPORTS",
    "PRIORITY_TAG",
    "SENSOR_NAME_TAG",
    "CheckRunHealthResult",
    "ConfigurableClass",
    "ConfigurableClassData",
    "EngineEventData",
    "GrpcServerCodeLocation",
    "InstanceRef",
    "LaunchRunContext",
    "QueuedRunCoordinator",
    "RepositoryPythonOrigin",
    "RunLauncher",
    "SubmitRunContext",
    "UserConfigSchema",
    "WorkerStatus",
    "capture_interrupts",
    "deserialize_value",
    "execute_run_command_body",
    "get_run_crash_explanation",
    "loadable_targets_from_python_module",
    "recon_repository_from_origin",
    "repository_def_from_target_def",
    "serializable_error_info_from_exc_info",
    "serialize_value",
]
