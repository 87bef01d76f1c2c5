"""Outages: each store and the provider, each way of being away, one cell after the other on the running platform.

In every cell rows change and events come while the outage lasts, and a request is asked. What is looked at: whether
`status` answers in time and says what is wrong, whether anything is deleted, whether the request is answered only once
it is true, and whether everything is right by itself some time after the outage has ended.
"""

import asyncio
import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nats
import psutil
import psycopg
from nats.js.api import DiscardPolicy, StreamConfig
from pydantic import SecretStr
from qdrant_client import QdrantClient

from mcp_assets.embedded import stack
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.checks import evaluate
from storming.oracle import COLLECTIONS, examine
from storming.proxy import Mode, Proxy
from storming.running import Running
from storming.workload import Request, Row, Truth, Workload, Write
from storming.world import World, answered

_OUTAGE_S = 25.0
_FROZEN_S = 90.0
_HEAL_S = 240.0
_STATUS_S = 60.0
"""A `status` that takes so much longer than on calm stores is a hang: each store's own time-outs are within that."""

RESULTS_STREAM = "MCP_ASSETS_RESULTS"

_CHECK_AFTER_S = 12.0
"""By then a run has met the outage."""

_numbers = count(1)

_STEPS = 12
"""Changes that are made during an outage."""


class Kind(StrEnum):
    """In which way a store or provider is away."""

    DOWN = "down"
    FROZEN = "frozen"
    REFUSING = "refusing"
    SLOW = "slow"
    GARBAGE = "garbage"
    FULL = "full"
    QUOTA = "quota"


class Where(StrEnum):
    """What is away."""

    POSTGRES = "postgres"
    NATS = "nats"
    QDRANT = "qdrant"
    PROVIDER = "provider"


CELLS = [
    *((where, kind) for where in (Where.POSTGRES, Where.NATS, Where.QDRANT) for kind in Kind if kind is not Kind.QUOTA),
    *((Where.PROVIDER, kind) for kind in Kind if kind is not Kind.FULL),
]
"""All 24."""

_MODES = {
    Kind.DOWN: Mode.DOWN,
    Kind.REFUSING: Mode.REFUSING,
    Kind.SLOW: Mode.SLOW,
    Kind.GARBAGE: Mode.GARBAGE,
}


@dataclass(slots=True)
class Cell:
    """What one outage came to."""

    where: Where
    kind: Kind
    wrong: list[str] = field(default_factory=list)
    """What should not have happened; empty if the cell is passed."""
    healed_s: float | None = None
    status_s_max: float = 0.0
    status_s_calm: float = 0.0
    """What `status` took before the outage: on a busy machine most of it is the start of the process."""
    status: list[str] = field(default_factory=list)
    """What `mcp-assets status` said was unavailable."""
    checks: list[str] = field(default_factory=list)
    """What the checks of intake and provider said, those that did not pass."""
    checks_s: float | None = None
    """What both took together."""
    runs: list[str] = field(default_factory=list)
    """Errors of runs that failed."""
    run_counts: dict[str, int] = field(default_factory=dict)
    """Runs that were made from the beginning of the outage until all was right, by their status."""
    ticks: list[str] = field(default_factory=list)
    """Errors of sensor ticks that failed."""

    @property
    def ok(self) -> bool:
        return not self.wrong

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "where": self.where.value, "kind": self.kind.value, "ok": self.ok}


@dataclass(frozen=True, slots=True)
class Stores:
    """The real stores, where the world and the oracle reach them, and the proxies that the platform uses."""

    addresses: stack.StackAddresses
    provider_url: str
    proxies: Mapping[Where, Proxy]
    state_dir: Path

    @property
    def database_url(self) -> str:
        assert self.addresses.database_url is not None
        return self.addresses.database_url

    @property
    def nats_url(self) -> str:
        assert self.addresses.nats_url is not None
        return self.addresses.nats_url

    @property
    def qdrant_url(self) -> str:
        assert self.addresses.qdrant_url is not None
        return self.addresses.qdrant_url

    def variables(self) -> dict[str, str]:
        """Environment variables that lead the platform through the proxies."""
        user = urlsplit(self.database_url).username
        return {
            "DATABASE_URL": f"postgresql://{user}:unused@127.0.0.1:{self.proxies[Where.POSTGRES].port}/mcp",
            "NATS_URL": f"nats://127.0.0.1:{self.proxies[Where.NATS].port}",
            "QDRANT_URL": f"http://127.0.0.1:{self.proxies[Where.QDRANT].port}",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.proxies[Where.PROVIDER].port}/v1",
        }


@contextmanager
def stores(folder: Path, provider_url: str) -> Iterator[Stores]:
    """Real stores in `folder`, and a proxy before each of them and before the provider."""
    with ExitStack() as opened:
        state_dir = folder / ".stores"
        addresses = opened.enter_context(stack.running(list(stack.Part), state_dir))
        assert addresses.database_url and addresses.nats_url and addresses.qdrant_url
        query = parse_qs(urlsplit(addresses.database_url).query)
        targets: dict[Where, tuple[str, int] | str] = {
            Where.POSTGRES: f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}",
            Where.NATS: _host_port(addresses.nats_url),
            Where.QDRANT: _host_port(addresses.qdrant_url),
            Where.PROVIDER: _host_port(provider_url),
        }
        proxies = {
            where: opened.enter_context(Proxy(target, http=where in (Where.QDRANT, Where.PROVIDER)))
            for where, target in targets.items()
        }
        yield Stores(addresses, provider_url, proxies, state_dir)


def cell(
    platform: Running, there: Stores, world: World, workload: Workload, settings: Settings, where: Where, kind: Kind
) -> Cell:
    """Go through one outage, from a platform at rest to a platform at rest."""
    result = Cell(where, kind)
    began = time.time()
    # What the steps themselves delete is little; an outage that looks like nothing there would delete all.
    least = _points(there) - 3 * _STEPS
    probe = _probe(workload)
    calm = time.monotonic()
    platform.status()
    result.status_s_calm = round(time.monotonic() - calm, 1)
    working = threading.Thread(target=_work, args=(world, workload, probe), name="world")
    checking = threading.Thread(target=_check, args=(settings, there, result), name="checks")
    with outage(there, where, kind):
        working.start()
        checking.start()
        ends = time.monotonic() + (_FROZEN_S if kind is Kind.FROZEN else _OUTAGE_S)
        while time.monotonic() < ends:
            _look(platform, result)
            if not (where is Where.QDRANT and kind is Kind.FROZEN) and _points(there) < least:
                result.wrong.append("points were removed")
            if kind is not Kind.FROZEN and _answered_falsely(there, probe):
                result.wrong.append("a request was answered as completed before it was")
            time.sleep(2)
    healing = time.monotonic()
    working.join(300)
    if working.is_alive():
        result.wrong.append("rows or events could not be written for five minutes")
    checking.join(300)
    if checking.is_alive():
        result.wrong.append("two checks did not end within five minutes")
    result.healed_s = _heal(platform, settings, workload.truth, healing)
    if result.healed_s is None:
        found = examine(settings, workload.truth, edges=False)
        result.wrong += ["not healed", *found.examples()[:5]]
    _operators_view(there, began, result)
    return result


@contextmanager
def outage(there: Stores, where: Where, kind: Kind) -> Iterator[None]:
    """The store or provider is away in this way while the block runs."""
    if kind is Kind.FROZEN:
        frozen = _freeze(there, where)
        try:
            yield
        finally:
            for process in frozen:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        return
    begin, end = _switch(there, where, kind)
    begin()
    try:
        yield
    finally:
        end()


def _switch(there: Stores, where: Where, kind: Kind) -> tuple[Callable[[], None], Callable[[], None]]:
    """What begins the outage, and what ends it."""
    proxy = there.proxies[where]
    if kind in _MODES:
        return lambda: proxy.set(_MODES[kind]), lambda: proxy.set(Mode.PASS)
    match where:
        case Where.POSTGRES:
            return lambda: _read_only(there, on=True), lambda: _read_only(there, on=False)
        case Where.NATS:
            return lambda: _full_stream(there, full=True), lambda: _full_stream(there, full=False)
        case Where.QDRANT:
            return lambda: proxy.set(Mode.NO_SPACE), lambda: proxy.set(Mode.PASS)
        case Where.PROVIDER:
            return lambda: _fault(there, "insufficient_quota"), lambda: _fault(there, None)


def _freeze(there: Stores, where: Where) -> list[psutil.Process]:
    """SIGSTOP the server and its children."""
    words = {Where.POSTGRES: "postgres", Where.NATS: "nats-server", Where.QDRANT: "mcp_assets.embedded.qdrant"}
    frozen = []
    if where is Where.PROVIDER:
        ours = psutil.Process().children()
        frozen += [process for process in ours if "mcp_assets_tests.openai_stub" in process.cmdline()]
    else:
        supervisor = psutil.Process(stack.status(there.state_dir).supervisor_pid or 0)
        for server in supervisor.children():
            if any(words[where] in word for word in server.cmdline()):
                frozen += [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    return frozen


def _read_only(there: Stores, *, on: bool) -> None:
    """Every new transaction of the platform's own sessions is refused its writes; the world's ask for theirs."""
    with psycopg.connect(there.database_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if on else 'off'}")
        connection.execute("SELECT pg_reload_conf()")


def _full_stream(there: Stores, *, full: bool) -> None:
    async def change() -> None:
        client = await nats.connect(there.nats_url)
        try:
            context = client.jetstream()
            names = [info.config.name for info in await context.streams_info()]
            for name in filter(None, names):
                info = await context.stream_info(name)
                config: StreamConfig = info.config
                config.max_bytes = max(1, info.state.bytes) if full else -1
                config.discard = DiscardPolicy.NEW if full else DiscardPolicy.OLD
                await context.update_stream(config)
        finally:
            await client.close()

    asyncio.run(change())


def _fault(there: Stores, kind: str | None) -> None:
    url = f"{there.provider_url.removesuffix('/v1')}/faults"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE")).close()
    faults: list[dict[str, Any]] = [{"kind": "latency", "times": None, "latency_s": 0.2}]
    faults += [{"kind": kind, "times": None}] if kind is not None else []
    for fault in faults:
        urllib.request.urlopen(urllib.request.Request(url, json.dumps(fault).encode())).close()


def _probe(workload: Workload) -> tuple[Write, Request]:
    """A row that changes without an event, and a request for just that entity."""
    number = next(_numbers)
    ref = EntityRef("task", f"probe{number}")
    write = Write(ref, Row(f"Probe {number}", f"{ref} is written while a store is away"), "never")
    request = Request("data.sync", f"probe-{number}", "incremental_sync", ref)
    for step in (write, request):
        workload.truth.add(step)
    return write, request


def _answered_falsely(there: Stores, probe: tuple[Write, Request]) -> bool:
    """Whether the request is answered as completed though Qdrant does not hold the row."""
    write, request = probe
    completed = answered(there.nats_url, ("data.sync.completed",), RESULTS_STREAM)
    if request.message_id not in completed:
        return False
    with closing(QdrantClient(url=there.qdrant_url, check_compatibility=False, timeout=30)) as client:
        points = client.retrieve(COLLECTIONS[write.ref.type], [str(point_id(write.ref))])
    return not points or (points[0].payload or {}).get("title") != write.row.title


def _work(world: World, workload: Workload, probe: tuple[Write, Request]) -> None:
    for step in (*probe, *workload.steps(_STEPS)):
        world.do(step)
    world.finish()


def _look(platform: Running, result: Cell) -> None:
    began = time.monotonic()
    try:
        told = platform.status()
    except RuntimeError as error:
        result.wrong.append(f"status ended without an answer: {str(error)[:300]}")
        return
    except TimeoutError:
        result.wrong.append("status did not end")
        return
    finally:
        seconds = time.monotonic() - began
        result.status_s_max = max(result.status_s_max, seconds)
        if seconds > _STATUS_S + result.status_s_calm:
            result.wrong.append(f"status took {seconds:.0f} s")
    for sentence in (*told["pending"]["unavailable"], *told["pending"]["provider"]):
        if sentence not in result.status:
            result.status.append(sentence)


_CHECKS = ("intake_is_current", "provider_answers", "collections_match_model")


def _check(settings: Settings, there: Stores, result: Cell) -> None:
    """Evaluate checks as a run of the platform would, some seconds after the outage has begun."""
    time.sleep(_CHECK_AFTER_S)
    variables = there.variables()
    proxied = settings.model_copy(
        update={
            "database_url": SecretStr(variables["DATABASE_URL"]),
            "nats_url": SecretStr(variables["NATS_URL"]),
            "qdrant_url": variables["QDRANT_URL"],
        }
    )
    began = time.monotonic()
    with closing(Platform(proxied)) as platform:
        for name in _CHECKS:
            finding = evaluate(platform, name)
            if not finding.passed:
                result.checks.append(f"{name}: {finding.summary}")
    result.checks_s = round(time.monotonic() - began, 1)


def _heal(platform: Running, settings: Settings, truth: Truth, since: float) -> float | None:
    """Seconds from `since` until everything is right; None if that takes too long."""
    while time.monotonic() - since < _HEAL_S:
        with suppress(RuntimeError, psycopg.OperationalError):
            if platform.status()["pending"]["idle"] and not examine(settings, truth, edges=False):
                return time.monotonic() - since
        time.sleep(2)
    return None


def _points(there: Stores) -> int:
    with closing(QdrantClient(url=there.qdrant_url, check_compatibility=False, timeout=30)) as client:
        return sum(client.count(name).count for name in COLLECTIONS.values() if client.collection_exists(name))


_RUN_ERRORS = """
SELECT event FROM dagster.event_logs
WHERE dagster_event_type IN ('STEP_FAILURE', 'PIPELINE_FAILURE') AND timestamp >= to_timestamp(%s)::timestamp
"""
_RUN_COUNTS = (
    "SELECT status, count(*) FROM dagster.runs WHERE create_timestamp >= to_timestamp(%s)::timestamp GROUP BY 1"
)
_TICK_ERRORS = (
    "SELECT tick_body FROM dagster.job_ticks WHERE status = 'FAILURE' AND timestamp >= to_timestamp(%s)::timestamp"
)

_ERROR = re.compile(r'"message": "((?:mcp_assets|psycopg|sqlalchemy|dagster)(?:[^"\\]|\\.)*)"')


def _operators_view(there: Stores, since: float, result: Cell) -> None:
    """What Dagster kept of the outage: errors of runs and of ticks."""
    with psycopg.connect(there.database_url) as connection:
        result.runs = _sentences(row[0] for row in connection.execute(_RUN_ERRORS, (since,)))
        result.run_counts = dict(connection.execute(_RUN_COUNTS, (since,)).fetchall())
        result.ticks = _sentences(row[0] for row in connection.execute(_TICK_ERRORS, (since,)))


def _sentences(bodies: Iterable[str]) -> list[str]:
    """The errors of this platform that Dagster's records hold, each once."""
    found = (match.group(1) for body in bodies for match in _ERROR.finditer(body))
    return list(dict.fromkeys(sentence[:300] for sentence in found))[:5]


def table(cells: list[Cell]) -> str:
    """The cells as a Markdown table, for the documentation."""
    lines = [
        "| outage | `status` says | checks say | runs fail with | ticks fail with | right again after |",
        "|---|---|---|---|---|---|",
    ]
    for done in cells:
        shown = [_short(texts) for texts in (done.status, done.checks, done.runs, done.ticks)]
        healed = "not by itself" if done.healed_s is None else f"{done.healed_s:.0f} s"
        lines.append(f"| {done.where} {done.kind} | " + " | ".join(shown) + f" | {healed} |")
    return "\n".join(lines)


def _short(texts: list[str]) -> str:
    if not texts:
        return "–"
    return texts[0].splitlines()[0].replace("|", "/")[:160]


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return parts.hostname, parts.port
