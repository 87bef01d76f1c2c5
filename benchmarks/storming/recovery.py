"""Recovery: single kills on a calm platform, and the seconds until a change made right after each is searchable."""

import time
from contextlib import closing
from itertools import count

from qdrant_client.http.exceptions import ApiException

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.clients import qdrant_at
from storming.oracle import COLLECTIONS
from storming.running import ProcessClass, Running, wait_until
from storming.workload import Row, Truth, Write
from storming.world import World

_PATIENCE_S = 180.0

_COMES_BACK_S = 30.0
"""How long a kill waits for a process of its class: the kill before may have ended it too."""

_numbers = count(1)


def recover(platform: Running, world: World, truth: Truth, wanted: ProcessClass) -> float | None:
    """Kill one process of the class; returns the seconds until the change after it is in Qdrant, and the UI answers.

    None: no process of the class lives, for runs and their forkserver come and go.
    """
    if wanted in (ProcessClass.RUN, ProcessClass.FORKSERVER):
        # A run lives only while there is work.
        _change(platform, world, truth)
    deadline = time.monotonic() + _COMES_BACK_S
    while not platform.kill(wanted):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    began = time.monotonic()
    seconds = _change(platform, world, truth)
    if wanted in (ProcessClass.WEBSERVER, ProcessClass.DEV, ProcessClass.SUPERVISOR):
        wait_until("the Dagster UI to answer", platform.ui_answers, timeout_s=_PATIENCE_S)
        seconds = time.monotonic() - began
    return seconds


def _change(platform: Running, world: World, truth: Truth) -> float:
    """Write a row, publish its event; the seconds until its point says so."""
    began = time.monotonic()
    number = next(_numbers)
    ref = EntityRef("task", f"recovery{number % 5}")
    step = Write(ref, Row(f"Recovered {number}", f"{ref} says {number} after a kill"), "after")
    world.do(step)
    truth.add(step)
    wait_until(f"{ref} to be indexed", lambda: _says(platform, ref, step.row.title), timeout_s=_PATIENCE_S, every_s=0.1)
    return time.monotonic() - began


def _says(platform: Running, ref: EntityRef, title: str) -> bool:
    """Whether Qdrant has the entity under this title, and the ledger knows."""
    try:
        with closing(qdrant_at(platform.addresses(), timeout=5)) as client:
            points = client.retrieve(COLLECTIONS[ref.type], [str(point_id(ref))], with_payload=["title"])
    except (ApiException, RuntimeError):  # Qdrant, or the whole stack, is still away
        return False
    return bool(points) and (points[0].payload or {}).get("title") == title
