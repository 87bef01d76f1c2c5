"""What a forkserver loads before it forks: Dagster, the instance's plugins, the code location."""

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import psutil

from dagster_warm_launcher.before_fork import load_for_runs
from dagster_warm_launcher.dagster_internals import (
    LATE_IMPORTS,
    ConfigurableClassData,
    InstanceRef,
    RepositoryPythonOrigin,
    deserialize_value,
    recon_repository_from_origin,
)
from dagster_warm_launcher.loaded_files import Stamp, forget_bytecode, loaded_project_files


class PreloadError(Exception):
    """The code location cannot be loaded into a process that forks."""


@dataclass(frozen=True, slots=True)
class Preload:
    """What a forkserver holds; a run may be forked from it only if the run's own would be the same.

    Args:
        instance_ref: Dagster's InstanceRef, serialized.
        repository_origin: Dagster's RepositoryPythonOrigin of the code location, serialized.
        location_name: the code location's name in workspace.yaml.
        server_id: which incarnation of the code server; a reload from the UI makes a new one. None if there is none.
    """

    instance_ref: str
    repository_origin: str
    location_name: str
    server_id: str | None

    def as_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Self:
        return cls(**message)


def load(preload: Preload, edited: list[str]) -> dict[str, Stamp]:
    """Import all that a run of this location needs: what its definitions import, and what they have asked for.

    Args:
        edited: files whose compiled code must not be trusted.

    Returns:
        The location's files as they were loaded.

    Raises:
        PreloadError: loading left a thread or a connection behind, which a fork would break.
        Exception: whatever the location's code raises.
    """
    began_ns = time.time_ns()
    sockets_before = _open_sockets()
    forget_bytecode(edited)
    instance_ref = deserialize_value(preload.instance_ref, InstanceRef)
    _load_environment(instance_ref, preload.location_name)
    import_plugins(instance_ref)
    origin = deserialize_value(preload.repository_origin, RepositoryPythonOrigin)
    # Only for what the definitions import: each run evaluates them again, as a run in a process of its own does.
    recon_repository_from_origin(origin).get_definition()
    load_for_runs()
    _refuse_threads()
    _refuse_sockets(sockets_before)
    return loaded_project_files(began_ns)


def _load_environment(instance_ref: InstanceRef, location_name: str) -> None:
    """Set the variables that the code server sets before it loads the location, from an `.env` file say."""
    if instance_ref.secrets_loader is not None:
        os.environ.update(instance_ref.secrets_loader.get_secrets_for_environment(location_name))


def import_plugins(instance_ref: InstanceRef) -> None:
    """Import the instance's storage and the like, and what every run imports late.

    No instance is made, because that would connect to the storage.
    """
    for part in instance_ref:
        if isinstance(part, ConfigurableClassData):
            importlib.import_module(part.module_name)
    for name in LATE_IMPORTS:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)


def _refuse_threads() -> None:
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        raise PreloadError(
            f"importing it starts threads ({', '.join(threads)}), which do not live on in the processes forked for"
            " runs: start them on first use, not at import"
        )


def _open_sockets() -> dict[int, str]:
    connections = psutil.Process().net_connections(kind="all")
    return {connection.fd: f"{connection.laddr} to {connection.raddr}" for connection in connections}


def _refuse_sockets(before: Mapping[int, str]) -> None:
    opened = {peer for fd, peer in _open_sockets().items() if fd not in before}
    if opened:
        raise PreloadError(
            f"importing it opens connections ({', '.join(sorted(opened))}), which all runs would share and corrupt:"
            " connect on first use, not at import"
        )


def reseed() -> None:
    """Give a forked process randomness of its own where the library does not (`random` sees to itself)."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
