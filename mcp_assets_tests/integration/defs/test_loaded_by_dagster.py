"""What Dagster's processes load: a code server nothing that only runs need, and a run nothing at all after its fork.

The processes say themselves what they load, because Python's own list of imports is on.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import instance_for_test
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value, serialize_value

from dagster_warm_launcher.forkserver import ForkServer
from dagster_warm_launcher.preload import Preload
from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import INDEX_JOB
from mcp_assets.defs.partitions import whole_type
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.observing import put_tasks
from mcp_assets_tests.waiting import until

NEVER = {"igraph", "mcp", "pandas", "prometheus_client", "pyarrow", "starlette", "uvicorn"}
"""What neither definitions nor runs need: exports, metrics, the MCP server, the servers of the embedded stack."""

OF_RUNS = {"httpcore", "nats", "openai", "qdrant_client", "tokenizers", "wordllama"}
"""What runs need, and definitions do not."""

_LINE = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)


def packages_in(output: str) -> set[str]:
    """The packages of which a process has loaded a module by what it said."""
    return {module.partition(".")[0] for module in _LINE.findall(output)}


@pytest.fixture
def saying(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started from here on say what they load."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


@pytest.fixture
def provider(request: pytest.FixtureRequest, saying: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test's provider, or the local one."""
    provider: str = request.param
    if provider == "local":
        for name in [name for name in os.environ if name.startswith(("OPENAI_", "EMBEDDING_"))]:
            monkeypatch.delenv(name)
    return provider


@pytest.fixture
def instance(saying: None) -> Iterator[dg.DagsterInstance]:
    """In the storage of dagster.yaml. Runs write to the error output of the process that forks them."""
    overrides: Mapping[str, object] = {
        "storage": {"custom": {"module": "mcp_assets.defs.storage", "class": "SettingsPostgresStorage", "config": {}}},
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
    }
    with instance_for_test(overrides=dict(overrides)) as opened:
        yield opened


@pytest.mark.parametrize("provider", ["openai", "local"], indirect=True)
def test_a_code_server_loads_nothing_that_only_runs_need(provider: str, tmp_path: Path) -> None:
    port = free_port()
    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "api", "grpc", "--module-name", "mcp_assets.definitions"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env={**os.environ, "DAGSTER_HOME": str(tmp_path)}, cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        ) as server,
    ):  # fmt: skip
        client = DagsterGrpcClient(host="127.0.0.1", port=port)

        def served() -> bool:
            assert server.poll() is None, (tmp_path / "output").read_text()[-3000:]
            with suppress(DagsterUserCodeUnreachableError):
                deserialize_value(client.list_repositories(), ListRepositoriesResponse)
                return True
            return False

        try:
            until(served, "the definitions are served")
        finally:
            server.kill()

    loaded = packages_in((tmp_path / "output").read_text())
    assert {"dagster", "mcp_assets"} <= loaded
    assert loaded & (NEVER | OF_RUNS) == set()


@pytest.mark.parametrize("provider", ["openai", "local"], indirect=True)
def test_a_run_loads_nothing_after_its_fork(
    platform: Platform, provider: str, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    put_tasks(platform, {f"t{number}": f"text {number} depends on task:t0" for number in range(20)})
    settings = load_settings()
    origin = RepositoryPythonOrigin(
        sys.executable, ModuleCodePointer("mcp_assets.definitions", "defs"), entry_point=DEFAULT_DAGSTER_ENTRY_POINT
    )
    first, last = whole_type(settings, "task")
    run_id = instance.create_run_for_job(
        build_defs(settings, {"platform": PlatformResource()}).resolve_job_def(INDEX_JOB),
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        job_code_origin=JobPythonOrigin(INDEX_JOB, origin),
    ).run_id
    capfd.readouterr()
    preload = Preload(serialize_value(instance.get_ref()), serialize_value(origin), "mcp_assets", None)

    with closing(ForkServer(sys.executable, preload, [], 60.0)) as forkserver:
        loaded = packages_in(capfd.readouterr().err)
        forkserver.launch(run_id)
        run = until(
            lambda: run if (run := instance.get_run_by_id(run_id)) and run.is_finished else None, "the run has ended"
        )
        until(lambda: not forkserver.has_runs(), "the process of the run has ended")

    said = capfd.readouterr().err
    assert run.is_success, said[-3000:]
    assert loaded & NEVER == set()
    of_provider = {"openai"} if provider == "openai" else {"tokenizers", "wordllama"}
    assert loaded & OF_RUNS == {"httpcore", "nats", "qdrant_client", *of_provider}
    # Asked for by qdrant-client, and not installed.
    assert [module for module in _LINE.findall(said) if module != "fastembed"] == []
