"""Two Celery workers share a full sync while events come, and one of them is killed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import dagster as dg
import pytest

from dagster_warm_launcher.celery_launcher import WORKER_TAG
from mcp_assets.defs.keys import FULL_SYNC_ID_TAG
from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import TABLES, Live
from mcp_assets_tests.celery.cluster import Cluster
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.waiting import until

TYPES = list(TABLES)
WORKS_S = 480.0
"""Seconds for what follows a kill: the run of a killed worker is missed after a minute, and started again."""

pytestmark = [
    pytest.mark.timeout(1200),
    # What Dagster 1.13 does inside itself.
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
]


def text_of(ref: EntityRef, version: int) -> tuple[str, str]:
    """Title and text of a version of an entity; no two entities and versions share a text."""
    return f"Note {ref.id}", f"{ref.type} {ref.id} says {version} about gate {version % 7}"


@contextmanager
def events(live: Live) -> Iterator[None]:
    """Rows are written and announced all the while, in a thread."""
    over = threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for number in count():
                if over.wait(0.3):
                    return
                # Some are new, and some change what the full sync has to do or has just done.
                name = f"event-{number}" if number % 3 else f"note-{number % 40}"
                ref = EntityRef(TYPES[number % len(TYPES)], name)
                live.write(ref, *text_of(ref, 1000 + number))
                live.publish([(f"mcp.{ref.type}.updated", {"entity_id": ref.id})])
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert failed == []


def ask_for_full_sync(live: Live, message_id: str) -> None:
    data = {"sync_type": "full_sync", "entity_ids": [], "context": {}}
    live.publish([("data.sync.request", {"message_id": message_id, "data": data})])


def converged(live: Live) -> None:
    """All stores agree: the collections with the texts, and by a deep census everything with everything."""
    live.wait_until_converged(timeout_s=WORKS_S)
    until(
        lambda: live.query("SELECT count(*) FROM mcp_assets.relink_marks") == [(0,)], "all is linked", within_s=WORKS_S
    )
    done = live.command("validate", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr


def latest_full_sync(live: Live) -> str:
    """The id of the unfinished full sync, once there is one."""
    statement = "SELECT id FROM mcp_assets.full_syncs WHERE finished_at IS NULL"
    ((sync_id,),) = until(lambda: live.query(statement), "the full sync is asked for", within_s=WORKS_S)
    return str(sync_id)


def workers_of(instance: dg.DagsterInstance, live: Live) -> set[str]:
    """The workers that execute runs of the full sync now."""
    wanted = dg.RunsFilter(tags={FULL_SYNC_ID_TAG: latest_full_sync(live)}, statuses=[dg.DagsterRunStatus.STARTED])
    return {run.tags[WORKER_TAG].partition("@")[0] for run in instance.get_runs(wanted) if WORKER_TAG in run.tags}


@pytest.fixture
def listener(cluster: Cluster) -> Iterator[Listener]:
    url = cluster.live.addresses.nats_url
    assert url is not None
    with Listener(url) as listening:
        yield listening


def told(listener: Listener, message_id: str) -> Callable[[], list[str]]:
    """The subjects of the answers to a request so far."""
    return lambda: [subject for subject, body in listener.heard() if body.get("correlation_id") == message_id]


def test_a_full_sync_that_two_workers_share_ends_well_though_one_of_them_is_killed_while_events_come(
    cluster: Cluster, instance: dg.DagsterInstance, listener: Listener
) -> None:
    live = cluster.live
    refs = [EntityRef(name, f"note-{number}") for number in range(200) for name in TYPES]
    live.write_all({ref: text_of(ref, 0) for ref in refs})
    live.slow_embedder(2.0)
    with events(live):
        ask_for_full_sync(live, "shared")
        until(lambda: workers_of(instance, live) >= {"east", "west"}, "both workers share it", within_s=WORKS_S)
        before = live.embedded()["texts"]
        cluster.kill_worker("east")
        live.quick_embedder()
        until(told(listener, "shared"), "the full sync is answered", within_s=WORKS_S)
    assert before < len(refs), "the worker was killed before all was embedded"
    converged(live)
    assert told(listener, "shared")() == ["data.sync.completed"]
    lost = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert lost, "the runs of the killed worker are marked as failed"
    partitions = live.query("SELECT count(*) FILTER (WHERE indexed AND linked) FROM mcp_assets.full_sync_progress")
    assert partitions == [(4 * len(TYPES),)]


def test_a_run_that_is_canceled_is_interrupted_by_its_worker_which_takes_the_next(
    cluster: Cluster, instance: dg.DagsterInstance, listener: Listener
) -> None:
    live = cluster.live
    refs = [EntityRef(name, f"note-{number}") for number in range(200) for name in TYPES]
    live.write_all({ref: text_of(ref, 1) for ref in refs})
    live.slow_embedder(5.0)
    ask_for_full_sync(live, "canceled")
    canceled = until(lambda: started_run(instance, live), "a worker executes a run of it", within_s=WORKS_S)

    assert instance.run_launcher.terminate(canceled.run_id)

    until(
        lambda: status_of(instance, canceled) is dg.DagsterRunStatus.CANCELED, "the run is canceled", within_s=WORKS_S
    )
    live.quick_embedder()
    until(told(listener, "canceled"), "the full sync is answered", within_s=WORKS_S)
    ask_for_full_sync(live, "again")
    until(told(listener, "again"), "the next full sync is answered", within_s=WORKS_S)
    assert told(listener, "again")() == ["data.sync.completed"]
    converged(live)


def started_run(instance: dg.DagsterInstance, live: Live) -> dg.DagsterRun | None:
    """A run of the full sync that a worker executes now."""
    wanted = dg.RunsFilter(tags={FULL_SYNC_ID_TAG: latest_full_sync(live)}, statuses=[dg.DagsterRunStatus.STARTED])
    return next((run for run in instance.get_runs(wanted) if WORKER_TAG in run.tags), None)


def status_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus | None:
    found = instance.get_run_by_id(run.run_id)
    return None if found is None else found.status
