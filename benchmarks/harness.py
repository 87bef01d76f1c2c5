"""What the benchmarks share: a stack in a temporary folder, Dagster on it, fresh processes to measure in."""

import argparse
import asyncio
import gc
import gzip
import importlib
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import httpx
import nats
import psutil
import psycopg
from pydantic import SecretStr
from qdrant_client import QdrantClient

from mcp_assets.cli.load_entities import Line, create_source_tables, load, parse_lines
from mcp_assets.cli.services import dagster_environment
from mcp_assets.embedded import stack
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets_tests.clients import key_of, qdrant_at

P = ParamSpec("P")
T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[1]
WORKSPACE = CHECKOUT.parent / "shared" / "data" / "workspace.jsonl.gz"
"""The real workspace that stands beside the checkout; scripts take another file as their argument."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a function in a process of its own. `seconds` and `cpu_s`, of that process and of processes that it
    started, are of the function, not of the process's start."""

    result: Any
    seconds: float
    cpu_s: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Bench:
    """A running stack and the folder that it and everything else of the benchmark is in."""

    folder: Path
    addresses: stack.StackAddresses

    def settings(self, **changes: Any) -> Settings:
        """Settings that lead to this stack and are the shipped ones otherwise; what is in a `.env` is left out."""
        return Settings(
            _env_file=None,  # type: ignore[call-arg]
            database_url=SecretStr(self.database_url),
            nats_url=SecretStr(self.nats_url),
            qdrant_url=self.addresses.qdrant_url,
            qdrant_api_key=SecretStr(key_of(self.addresses)),
            **changes,
        )

    @property
    def state_dir(self) -> Path:
        return self.folder / ".mcp"

    @property
    def database_url(self) -> str:
        assert self.addresses.database_url is not None
        return self.addresses.database_url

    @property
    def nats_url(self) -> str:
        assert self.addresses.nats_url is not None
        return self.addresses.nats_url

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run one statement by itself; its rows, if it has any."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def qdrant(self) -> QdrantClient:
        return qdrant_at(self.addresses, timeout=60)

    def forget_index(self) -> None:
        """Empty the platform's own stores, ledger and collections; the source tables stay."""
        self.query("DROP SCHEMA IF EXISTS mcp_assets CASCADE")
        with closing(self.qdrant()) as client:
            for collection in client.get_collections().collections:
                client.delete_collection(collection.name)
        # The time of the migration is not what is measured.
        with closing(Platform(self.settings())) as platform, platform.postgres.transaction():
            pass
        self.settle()

    def settle(self) -> None:
        """Do now what PostgreSQL would do in the background while the next thing is measured."""
        self.query("VACUUM ANALYZE")
        self.query("CHECKPOINT")


@contextmanager
def bench(keep: Path | None = None) -> Iterator[Bench]:
    """The embedded stack, source tables and schema made, in a folder that is removed at the end, or in `keep`."""
    # Being ended is no different from Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in Settings.model_fields:
        os.environ.pop(variable_of(name), None)
    with (
        # PostgreSQL's socket needs a short path.
        nullcontext(keep.resolve())
        if keep is not None
        else tempfile.TemporaryDirectory(prefix="bench", dir="/tmp", ignore_cleanup_errors=True) as folder,
        stack.running(list(stack.Part), Path(folder) / ".mcp") as addresses,
    ):
        made = Bench(Path(folder), addresses)
        with closing(Platform(made.settings())) as platform:
            create_source_tables(platform)
            platform.nats.ensure_stream(platform.settings.streams[0])
        yield made


def workspace_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of a benchmark on a workspace: `file`, `--entities`, `--rounds`. `description`: its docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="entities, JSON lines, gzipped")
    parser.add_argument("--entities", type=int, help="only so many of them")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def read_workspace(file: Path, limit: int | None = None) -> Iterator[Line]:
    """The first `limit` (or all) entities of gzipped JSON lines."""
    with gzip.open(file) as lines:
        yield from parse_lines(islice(lines, limit), file.name, Settings(_env_file=None).entity_types)  # type: ignore[call-arg]


def load_entities(bench: Bench, entities: Iterable[Line]) -> int:
    """Load `entities` into the source tables. Returns how many."""
    with closing(Platform(bench.settings())) as platform:
        return sum(len(batch) for batch in load(platform, entities))


def publish(bench: Bench, events: Sequence[tuple[str, bytes]]) -> None:
    """Publish `events` with a plain NATS client, as fast as it sends; returns when the server has them."""

    async def send() -> None:
        client = await nats.connect(bench.nats_url)
        for subject, body in events:
            await client.publish(subject, body)
        await client.flush(timeout=60)
        await client.close()

    asyncio.run(send())


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Measured:
    """Run `function`, which has to be importable, in an interpreter of its own that has loaded what a run has."""
    # Not inherited by fork: memory and threads are to be those of a process that did nothing before.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        measured: Measured = pool.apply(_measure, (function, args, kwargs))
    return measured


def _measure(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Measured:
    # Dagster, the definitions and what the warm launcher loads before it forks are part of the memory of a run.
    for name in ("mcp_assets.definitions", "mcp_assets.stores.nats", "httpcore", "qdrant_client"):
        importlib.import_module(name)
    # As in a run of the warm launcher: what is loaded is not looked through for garbage.
    gc.collect()
    gc.freeze()
    began, cpu = time.perf_counter(), _own_cpu_s()
    result = function(*args, **kwargs)
    seconds = time.perf_counter() - began
    return Measured(result, seconds, _own_cpu_s() - cpu, peak_rss_mb())


def _own_cpu_s() -> float:
    """CPU seconds of this process, and of its children that have ended."""
    return sum(os.times()[:4])


_UNFINISHED_RUNS = """
query ($statuses: [RunStatus!]) {
    runsOrError(filter: {statuses: $statuses}, limit: 1) { ... on Runs { results { runId } } }
}
"""


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running Dagster daemon and the home of its instance."""

    home: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    url: str
    """Of the webserver."""

    def is_idle(self) -> bool:
        """Whether no run is queued, about to start or at work."""
        statuses = ["NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING", "MANAGED"]
        body = {"query": _UNFINISHED_RUNS, "variables": {"statuses": statuses}}
        answer = httpx.post(f"{self.url}/graphql", json=body, timeout=30, trust_env=False).raise_for_status().json()
        return not answer["data"]["runsOrError"]["results"]

    def check(self) -> None:
        """Raise RuntimeError with the end of the log if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError("the Dagster daemon has ended:\n" + self.log.read_text(errors="replace")[-2000:])


@contextmanager
def daemon(
    bench: Bench,
    name: str,
    *,
    dagster_yaml: str | None = None,
    workspace_yaml: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """`dagster dev` with these files, the checkout's own by default; all its processes end with the block."""
    home = bench.folder / name
    home.mkdir()
    for file, text in (("dagster.yaml", dagster_yaml), ("workspace.yaml", workspace_yaml)):
        (home / file).write_text((CHECKOUT / file).read_text() if text is None else text)
    log = home / "daemon.log"
    port = _free_port()
    place = {"DAGSTER_HOME": str(home), "MCP_ASSETS_STATE_DIR": str(bench.state_dir), variable_of("sweep"): "false"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                Path(sysconfig.get_path("scripts")) / "dagster",
                "dev",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            cwd=home,
            env={**dagster_environment(bench.settings()), **place, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Daemon(home, log, process, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        _kill_all_of(home)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kill_all_of(home: Path) -> None:
    """End what has this home: code servers, forkservers and runs are not the daemon's children once it is gone."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DAGSTER_HOME") == str(home):
                process.kill()
                found.append(process)
    psutil.wait_procs(found, timeout=10)


def wait_until(what: str, look: Callable[[], bool], daemon: Daemon, *, timeout_s: float, every_s: float = 0.1) -> None:
    """Wait until `look` is true. Raises TimeoutError, or RuntimeError if the daemon ends."""
    deadline = time.monotonic() + timeout_s
    while not look():
        daemon.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}; see {daemon.log}")
        time.sleep(every_s)


def slowdown(what: str, rounds: int, work: Callable[[bool], float]) -> dict[str, float]:
    """What something costs: `work(True)` gives seconds with it, `work(False)` without it; both take turns.

    Returns the medians of both, and `slowed_by`, the share by which `work` is slower with it.
    """
    seconds: dict[bool, list[float]] = {True: [], False: []}
    # A round of its own before them: the first one finds the files of the stores and of the model cold.
    for number in range(2 * rounds + 1):
        included = bool(number % 2)
        taken = work(included)
        say(f"{what} {'included' if included else 'left out'}: {taken:.1f} s")
        if number:
            seconds[included].append(taken)
    with_it, without = statistics.median(seconds[True]), statistics.median(seconds[False])
    return {
        "seconds": round(with_it, 2),
        "seconds_without": round(without, 2),
        "slowed_by": round(with_it / without - 1, 3),
    }


def peak_rss_mb() -> float:
    """The most memory that this process ever had resident, in MB of 10^6 bytes."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # Not ru_maxrss, which a process inherits from the one that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def say(line: str) -> None:
    """Progress, for a person."""
    print(line, file=sys.stderr, flush=True)


def report(**figures: Any) -> None:
    """The one line that a benchmark prints: numbers at three decimals."""
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that `share` (0..1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)]
