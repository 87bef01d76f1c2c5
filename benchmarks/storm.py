"""Storm: kill -9 of every process class, over events of every kind; then every store has to be as the truth says.

A seeded workload writes source rows and publishes events to the platform as it runs under `mcp-assets dev`, while its
processes are killed one after the other. At rest an oracle compares the ledger, points, vectors, payloads, chunks,
edges (with a rebuild in a second schema), dead letters, inbox and answers with what the workload implies.

`missing`, `stale`, `orphan`, `duplicate`, `wrong_edges`, `lost_answers`: what is not as it should be, 0 each or the
script ends with 1. `event_born`: entities that live by their events alone, counted apart. `spend`: texts sent to the
provider over texts that were new. `recovery_s_max`: after single kills on the calm platform, the longest time until a
change made right after the kill is searchable. `killed` and `recovery_s`: by process class.

`cells_ok`: of `cells` outages (PostgreSQL, NATS, Qdrant and the provider; down, frozen for 90 s, refusing, 3 s slow,
garbage, full or out of quota), those in which nothing was deleted or falsely answered, no `status` hung, and all was
right by itself afterwards.

Without arguments a short form of about three minutes; `make storm` is the whole: 10,000 events, 216 kills, 24 outages.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from harness import CHECKOUT, report, say
from pydantic import SecretStr
from storming.away import CELLS, stores
from storming.oracle import Findings, examine
from storming.outages import RESULTS_STREAM, Cell, cell, table
from storming.recovery import recover
from storming.running import DIMENSION, ProcessClass, Running, running
from storming.workload import Truth, Workload
from storming.world import World, answered

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedded import stack
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets_tests.clients import key_of

PROVIDER_S = 0.2
"""What a request to the provider takes."""

_SHARES: dict[ProcessClass, float] = {
    ProcessClass.RUN: 16,
    ProcessClass.NATS: 12,
    ProcessClass.POSTGRES: 12,
    ProcessClass.QDRANT: 12,
    ProcessClass.FORKSERVER: 8,
    ProcessClass.DAEMON: 8,
    ProcessClass.CODE_SERVER: 8,
    ProcessClass.GRPC_CHILD: 8,
    ProcessClass.WEBSERVER: 4,
    ProcessClass.SUPERVISOR: 2,
    ProcessClass.DEV: 2,
}
"""How often each class is killed, in parts of the sum."""

_COMES_BACK_S = 8.0
"""How long a kill waits for a process of its class: several of them take some seconds to be started again."""

_STILL_S = 120.0
"""Seconds without any progress after which what is wrong is taken for good: longer than the last recheck and a pass of
the sweep."""


def storm(
    platform: Running, world: World, workload: Workload, *, events: int, kills: int, rate: float, seed: int
) -> Counter[str]:
    """Do the steps at `rate` a second, and kill meanwhile; returns how many processes of each class were killed."""
    chance = Random(seed + 1)
    wanted = chance.choices(list(_SHARES), list(_SHARES.values()), k=kills)
    # Each class at least once, if there are as many kills.
    wanted[: len(_SHARES)] = list(_SHARES)[: len(wanted)]
    chance.shuffle(wanted)
    at = sorted(chance.sample(range(events // 50, events), kills)) if kills else []
    killed: Counter[str] = Counter()
    began = time.monotonic()
    for number, step in enumerate(workload.steps(events)):
        world.do(step)
        while at and number >= at[0]:
            at.pop(0)
            killed[_kill(platform, wanted.pop(), chance)] += 1
        if number % 200 == 0:
            say(f"{number} of {events} steps, {killed.total()} kills, {time.monotonic() - began:.0f} s")
        ahead_s = began + (number + 1) / rate - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
    world.finish()
    return killed


def _kill(platform: Running, wanted: ProcessClass, chance: Random) -> str:
    """Kill a process of the class as soon as one lives; where that takes long, one of another class."""
    deadline = time.monotonic() + _COMES_BACK_S
    while not platform.kill(wanted):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    else:
        return wanted.value
    others = [other for other in _SHARES if other is not wanted]
    chance.shuffle(others)
    return next((other.value for other in others if platform.kill(other)), "none")


def at_rest(platform: Running, settings: Settings, truth: Truth) -> Findings:
    """Wait until nothing is pending and everything is as it should be, or nothing has changed any more for long."""
    found: Findings | None = None
    changed_at = time.monotonic()
    while time.monotonic() - changed_at < _STILL_S:
        before, found = found, _look(platform, settings, truth)
        if found is not None and not found:
            return examine(settings, truth, edges=True)
        if before is None or found is None or before.counts() != found.counts():
            left = "not idle" if found is None else {name: count for name, count in found.counts().items() if count}
            say(f"waiting for rest: {left}")
            changed_at = time.monotonic() if found != before else changed_at
        time.sleep(2)
    return found if found is not None else Findings(inbox=["the platform does not come to rest"])


def _look(platform: Running, settings: Settings, truth: Truth) -> Findings | None:
    try:
        if not platform.status()["pending"]["idle"]:
            return None
        return examine(settings, truth, edges=False)
    except (RuntimeError, psycopg.OperationalError, subprocess.TimeoutExpired):
        return None


@contextmanager
def provider() -> Iterator[str]:
    """The stub in a process of its own, each request 200 ms; its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_assets_tests.openai_stub", "--port", "0", "--dimension", str(DIMENSION)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        fault = {"kind": "latency", "times": None, "latency_s": PROVIDER_S}
        urllib.request.urlopen(
            urllib.request.Request(f"{url.removesuffix('/v1')}/faults", json.dumps(fault).encode())
        ).close()
        yield url
    finally:
        process.kill()
        process.communicate()


def spend(url: str) -> float:
    """Texts that the provider was sent, over the different texts among them; each version of a text is its own."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/stats") as answer:
        stats = json.load(answer)
    return float(stats["texts"] / max(1, stats["distinct_texts"]))


def settings_of(addresses: stack.StackAddresses, provider_url: str) -> Settings:
    """Settings that lead to the stores, past any proxy, and are otherwise those of the platform."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        database_url=SecretStr(addresses.database_url or ""),
        nats_url=SecretStr(addresses.nats_url or ""),
        qdrant_url=addresses.qdrant_url,
        qdrant_api_key=SecretStr(key_of(addresses)),
        openai_base_url=provider_url,
        embedding_model="stub",
        embedding_dimension=DIMENSION,
        similarity_threshold=0.6,
    )


@dataclass
class Storm:
    """What came of the kills."""

    truth: Truth
    found: Findings
    killed: Counter[str]
    recovery: dict[str, float]
    spend: float
    lost: set[str]
    restarted: int


def kill_storm(arguments: argparse.Namespace, folder: Path) -> Storm:
    """The workload under kills, the oracle at rest, then single kills on the calm platform."""
    workload = Workload(arguments.seed, arguments.entities)
    with provider() as url, running(folder, url, _files()) as platform:
        say(f"the platform runs in {folder}")
        settings = settings_of(platform.addresses(), url)
        with World(settings.require_database_url(), settings.require_nats_url()) as world:
            killed = storm(
                platform,
                world,
                workload,
                events=arguments.events,
                kills=arguments.kills,
                rate=arguments.rate,
                seed=arguments.seed,
            )
            say(f"storm over: {dict(killed)}")
            found = at_rest(platform, settings, workload.truth)
            spent = spend(url)
            recovery = {}
            for wanted in list(ProcessClass)[: arguments.recoveries]:
                seconds = recover(platform, world, workload.truth, wanted)
                say(f"{wanted} killed: {'none lives' if seconds is None else f'{seconds:.1f} s'}")
                if seconds is not None:
                    recovery[wanted.value] = round(seconds, 1)
        answers = answered(settings.require_nats_url(), RESULTS, RESULTS_STREAM)
        lost = workload.truth.requests - answers
        return Storm(workload.truth, found, killed, recovery, spent, lost, platform.restarted)


def outage_cells(arguments: argparse.Namespace, folder: Path) -> list[Cell]:
    """The outages, one after the other, on a platform that reaches its stores through proxies."""
    wanted = [chosen for chosen in CELLS if arguments.only is None or arguments.only in "-".join(chosen)]
    cells: list[Cell] = []
    workload = Workload(arguments.seed, arguments.entities)
    with (
        provider() as url,
        stores(folder, url) as there,
        running(folder, there.variables()["OPENAI_BASE_URL"], _files(), there.variables()) as platform,
    ):
        settings = settings_of(there.addresses, url)
        with closing(Platform(settings)) as unproxied:
            create_source_tables(unproxied)
        with World(f"{there.database_url}&{_WRITABLE}", there.nats_url) as world:
            for step in workload.steps(_CALM_STEPS):
                world.do(step)
            world.finish()
            at_rest(platform, settings, workload.truth)
            for where, kind in wanted[: arguments.cells]:
                cells.append(cell(platform, there, world, workload, settings, where, kind))
                say(json.dumps(cells[-1].as_dict()))
    return cells


def _files() -> dict[str, str]:
    return {name: (CHECKOUT / name).read_text() for name in ("workspace.yaml", "dagster.yaml")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400)
    parser.add_argument("--kills", type=int, default=14)
    parser.add_argument("--rate", type=float, default=10.0, help="steps a second")
    parser.add_argument("--entities", type=int, default=300, help="ids that rows are written under")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recoveries", type=int, default=3, help="process classes killed singly afterwards")
    parser.add_argument("--cells", type=int, default=0, help="outages gone through, of 24")
    parser.add_argument("--only", help="of the outages, those with this in their name, such as qdrant-frozen")
    parser.add_argument("--table", type=Path, help="where the outages are written as a Markdown table")
    parser.add_argument("--keep", action="store_true", help="keep the folder with its logs")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"seed": arguments.seed}
    failed = False
    if arguments.events:
        with _folder(keep=arguments.keep) as folder:
            done = kill_storm(arguments, folder)
        for sentence in [*done.found.examples(), *(f"not answered: {lost}" for lost in sorted(done.lost)[:5])]:
            say(sentence)
        failed = bool(done.found or done.lost)
        figures |= {
            "events": arguments.events,
            "kills": done.killed.total() - done.killed["none"],
            **done.found.counts(),
            "lost_answers": len(done.lost),
            "requests": len(done.truth.requests),
            "event_born": len(done.truth.stated),
            "early": done.truth.late,
            "silent": done.truth.silent,
            "spend": done.spend,
            "recovery_s_max": max(done.recovery.values(), default=None),
            "recovery_s": done.recovery,
            "killed": dict(done.killed),
            "dev_restarts": done.restarted,
        }
    if arguments.cells:
        with _folder(keep=arguments.keep) as folder:
            cells = outage_cells(arguments, folder)
        if arguments.table is not None:
            arguments.table.write_text(table(cells) + "\n")
        failed = failed or not all(gone.ok for gone in cells)
        figures |= {"cells": len(cells), "cells_ok": sum(gone.ok for gone in cells)}
    report(**figures)
    return 1 if failed else 0


RESULTS = (
    "vector.index.completed",
    "vector.index.failed",
    "relationship.analyze.completed",
    "relationship.analyze.failed",
    "data.sync.completed",
    "data.sync.failed",
)
_CALM_STEPS = 60
"""Steps before the first outage, so that there is something to lose."""

_WRITABLE = "options=-c%20default_transaction_read_only%3Doff"
"""The world writes while the platform's sessions may not."""


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    """In a short path, for PostgreSQL's socket has one."""
    if keep:
        yield Path(tempfile.mkdtemp(prefix="storm", dir="/tmp"))
        return
    with tempfile.TemporaryDirectory(prefix="storm", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
