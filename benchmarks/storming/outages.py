"""Outages: each store and the provider, each way of being away, one cell after the other on the running platform.

While an outage lasts, rows change, events come and one request is sent. A cell is passed if `status` answers in time
and says what is wrong, nothing is deleted, the request is answered only when the answer is true, and all stores are
right again by themselves some time after the end of the outage.
"""

import re
import threading
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

import psycopg
from pydantic import SecretStr

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets_tests.clients import qdrant_at
from storming.away import Kind, Stores, Where, outage
from storming.oracle import COLLECTIONS, examine
from storming.running import Running
from storming.workload import Request, Row, Truth, Workload, Write
from storming.world import World, answered

_OUTAGE_S = 25.0
"""Longer than a tick of a sensor and a launch of a run, so that both meet the outage, and short, because 20 cells have
such an outage."""

_FROZEN_S = 90.0
"""Longer than the time-outs of the stores (Qdrant 30 s, PostgreSQL 25 s, NATS 20 s), because a frozen server is noticed
only by them. The provider's, three times 60 s, are longer: its outage ends before them."""

_HEAL_S = 240.0
"""Bound for the time until all is right. The longest in docs/reference/outages.md is 84 s; a busy machine is slower."""

_STATUS_S = 60.0
"""A `status` that takes so much longer than on calm stores hangs, because each store's own time-outs end before."""

RESULTS_STREAM = "MCP_ASSETS_RESULTS"
"""The default of the setting."""

_CHECK_AFTER_S = 12.0
"""The checks are evaluated so long after the outage has begun: by then a run has met it."""

_numbers = count(1)

_STEPS = 12
"""Changes that are made during an outage: enough for several batches of each entity type."""


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
    """What the checks of intake, provider and collections said that did not pass."""
    checks_s: float | None = None
    """Seconds that all of them took together."""
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


def cell(
    platform: Running, there: Stores, world: World, workload: Workload, settings: Settings, where: Where, kind: Kind
) -> Cell:
    """Go through one outage, from a platform at rest to a platform at rest."""
    result = Cell(where, kind)
    began = time.time()
    # The steps delete a few points. A platform that took the outage for empty stores would delete all.
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
        result.wrong.append("the checks did not end within five minutes")
    result.healed_s = _heal(platform, settings, workload.truth, healing)
    if result.healed_s is None:
        found = examine(settings, workload.truth, edges=False)
        result.wrong += ["not healed", *found.examples()[:5]]
    _operators_view(there, began, result)
    return result


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
    with closing(qdrant_at(there.addresses, timeout=30)) as client:
        points = client.retrieve(COLLECTIONS[write.ref.type], [str(point_id(write.ref))])
    return not points or (points[0].payload or {}).get("title") != write.row.title


def _work(world: World, workload: Workload, probe: tuple[Write, Request]) -> None:
    for step in (*probe, *workload.steps(_STEPS)):
        world.do(step)
    world.finish()


def _look(platform: Running, result: Cell) -> None:
    began = time.monotonic()
    try:
        said = platform.status()
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
    for sentence in (*said["pending"]["unavailable"], *said["pending"]["provider"]):
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
            "qdrant_api_key": SecretStr(variables["QDRANT_API_KEY"]),
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
    with closing(qdrant_at(there.addresses, timeout=30)) as client:
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
