"""Start: CPU seconds and memory of what starts often: code server, forkserver, a run of it, and commands.

The stack holds 30 tasks that are indexed and linked, so that nothing is to do. CPU seconds are user and system, of
whole processes. `private_mb`: pages that the process shares with no other and has written, in MB of 10^6 bytes.

`code_server`: `dagster api grpc` with our definitions, until it has answered with them; `dagster`: the same with a
location without definitions on an instance of Dagster's own kind. The difference is what this project adds.
`forkserver`: of the warm launcher, until it can fork. `run`: a forked run that brings the partitions of tasks up to
date, from its fork to its end; what it has loaded before is not its own. `sync`, `status`, `mcp`: the command, with
nothing to do, and its `peak_mb` of resident memory; `mcp` until its client has left. Figures are medians of the rounds.

`--against PATH` names another checkout with an environment of its own in `.venv`, which has a turn in each round.
`ratio_NAME`: our figure over its figure. `ratio_code_server_ours`: of the two differences.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.code_pointer import FileCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value, serialize_value
from harness import CHECKOUT, Bench, bench, load_entities, report
from peers.rows import short_rows
from timed_location import NOTES, private_mb
from turns import Figures, Side, side

from dagster_warm_launcher.forkserver import ForkServer
from dagster_warm_launcher.preload import Preload
from mcp_assets.cli.load_entities import Line
from mcp_assets.cli.services import dagster_environment
from mcp_assets.definitions import build_defs
from mcp_assets.defs.keys import INDEX_JOB
from mcp_assets.defs.partitions import whole_type
from mcp_assets.settings import load_settings, variable_of

_TASKS = 30

_PATIENCE_S = 600.0

_COMMANDS = {"sync": ("sync", "--full", "--json"), "status": ("status",), "mcp": ("mcp",)}

_EMPTY = "import dagster as dg\n\ndefs = dg.Definitions()\n"

# A process inherits the peak of the one that starts it, so that a small one starts the command.
_SMALL = """
import json, os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6]),
      file=sys.stderr)
"""


class Starts:
    """One checkout's starts on a stack of its own."""

    def __init__(self, stores: Bench) -> None:
        self._stores = stores
        self._notes = stores.folder / "notes"
        settings = stores.settings()
        home, bare = stores.folder / "home", stores.folder / "bare"
        for folder in (home, bare):
            folder.mkdir()
        (home / "dagster.yaml").write_text((CHECKOUT / "dagster.yaml").read_text())
        (bare / "empty_location.py").write_text(_EMPTY)
        os.environ |= {
            **dagster_environment(settings),
            **stores_of_commands(stores),
            "DAGSTER_HOME": str(home),
            variable_of("sweep"): "false",
            NOTES: str(self._notes),
        }
        self._bare_environment = {**os.environ, "DAGSTER_HOME": str(bare), "PYTHONPATH": str(bare)}

    def measure(self) -> Figures:
        """One round: figures by name, such as `code_server_cpu_s`."""
        figures = {
            **self._code_server("code_server", "mcp_assets.definitions", os.environ),
            **self._code_server("dagster", "empty_location", self._bare_environment),
            **self._fork(),
        }
        for name, words in _COMMANDS.items():
            figures |= self._command(name, *words)
        return figures

    def _code_server(self, name: str, module: str, environment: Mapping[str, str]) -> Figures:
        port = _free_port()
        command = [sys.executable, "-m", "dagster", "api", "grpc", "--module-name", module, "--port", str(port)]
        with subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--location-name", name],
            cwd=self._stores.folder,
            env=environment,
            stdout=sys.stderr,
            stdin=subprocess.DEVNULL,
        ) as process:
            try:
                client = DagsterGrpcClient(host="127.0.0.1", port=port)
                deadline = time.monotonic() + _PATIENCE_S
                while True:
                    try:
                        deserialize_value(client.list_repositories(), ListRepositoriesResponse)
                        break
                    except Exception as error:
                        if time.monotonic() > deadline or process.poll() is not None:
                            raise RuntimeError(f"the code server of {module} does not answer") from error
                    time.sleep(0.5)
                return {f"{name}_cpu_s": _cpu_s(process.pid), f"{name}_private_mb": private_mb(process.pid)}
            finally:
                process.kill()

    def _fork(self) -> Figures:
        """Of a forkserver that is ready, and of one run that it forks."""
        here = Path(__file__).resolve().parent
        # The entry is that of the checkout that is measured; only the location's file is ours.
        origin = RepositoryPythonOrigin(
            executable_path=sys.executable,
            code_pointer=FileCodePointer(str(here / "timed_location.py"), "defs", working_directory=str(here)),
            entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
        )
        self._notes.write_text("")
        with dg.DagsterInstance.get() as instance:
            preload = Preload(serialize_value(instance.get_ref()), serialize_value(origin), "mcp_assets", None)
            with closing(ForkServer(sys.executable, preload, [], _PATIENCE_S)) as forkserver:
                figures = {
                    "forkserver_cpu_s": _cpu_s(forkserver.pid),
                    "forkserver_private_mb": private_mb(forkserver.pid),
                }
                settings = load_settings()
                first, last = whole_type(settings, "task")
                run = instance.create_run_for_job(
                    build_defs(settings).resolve_job_def(INDEX_JOB),
                    tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
                    job_code_origin=JobPythonOrigin(INDEX_JOB, origin),
                )
                forkserver.launch(run.run_id)
                deadline = time.monotonic() + _PATIENCE_S
                while not (found := instance.get_run_by_id(run.run_id)) or not found.is_finished:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"run {run.run_id} does not end")
                    time.sleep(0.2)
                if not found.is_success:
                    raise RuntimeError(f"run {run.run_id} failed: {_errors(instance, run.run_id)}")
        (end,) = [note for note in map(json.loads, self._notes.read_text().splitlines()) if note["moment"] == "end"]
        return {**figures, "run_cpu_s": end["cpu_s"], "run_private_mb": end["private_mb"]}

    def _command(self, name: str, *words: str) -> Figures:
        script = Path(sysconfig.get_path("scripts")) / "mcp-assets"
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", _SMALL, str(script), *words],
            cwd=self._stores.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
        code, cpu_s, peak_mb = json.loads(done.stderr.splitlines()[-1])
        if code != 0:
            raise RuntimeError(f"mcp-assets {' '.join(words)} ended with {code}: {done.stderr}")
        return {f"{name}_cpu_s": cpu_s, f"{name}_peak_mb": peak_mb}


def stores_of_commands(stores: Bench) -> dict[str, str]:
    """The environment in which a command finds the stack."""
    settings = stores.settings()
    assert settings.qdrant_url is not None
    assert settings.qdrant_api_key is not None
    return {
        "DATABASE_URL": stores.database_url,
        "NATS_URL": stores.nats_url,
        "QDRANT_URL": settings.qdrant_url,
        "QDRANT_API_KEY": settings.qdrant_api_key.get_secret_value(),
        "MCP_ASSETS_STATE_DIR": str(stores.state_dir),
    }


def _errors(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(str(event.dagster_event or event.message) for event in instance.all_logs(run_id))[-3000:]


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system + used.children_user + used.children_system)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve() -> None:
    """One side: a stack in which nothing is to do; a line of figures for each line of standard input."""
    with bench() as stores:
        rows = short_rows(_TASKS)
        load_entities(
            stores,
            (Line(row.entity_type, row.entity_id, row.title, row.content, row.metadata, None, None) for row in rows),
        )
        starts = Starts(stores)
        starts.measure()
        print(json.dumps({}), flush=True)
        for _ in sys.stdin:
            print(json.dumps(starts.measure()), flush=True)


def figures_of(one: Side) -> Figures:
    """Medians; of code server and Dagster, the difference too."""
    medians = {name: statistics.median(round_[name] for round_ in one.rounds) for name in one.rounds[0]}
    for unit in ("cpu_s", "private_mb"):
        medians[f"code_server_ours_{unit}"] = medians[f"code_server_{unit}"] - medians[f"dagster_{unit}"]
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout, which takes turns")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    checkouts = [CHECKOUT]
    if arguments.against is not None:
        checkouts.append(arguments.against.resolve())
    with ExitStack() as running:
        sides = [running.enter_context(side(__file__, one, [])) for one in checkouts]
        for _ in range(arguments.rounds):
            for one in sides:
                one.take_turn(counts=True)
        ours, *others = map(figures_of, sides)
    result = dict(ours)
    for other in others:
        result |= {f"against_{name}": value for name, value in other.items()}
        result |= {f"ratio_{name}": ours[name] / value for name, value in other.items() if value}
    report(rounds=arguments.rounds, **result)


if __name__ == "__main__":
    main()
