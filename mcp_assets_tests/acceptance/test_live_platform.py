"""The platform as its users meet it: events by a plain NATS client in, search results out, whatever is killed."""

import asyncio
import json
import time
from collections.abc import Iterator
from functools import partial

import dagster as dg
import nats
import psutil
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus
from nats.aio.msg import Msg

from mcp_assets.embedded.stack import Part
from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import BATCH_SIZE, CONCURRENCY, PATIENCE_S, TABLES, Live, Message
from mcp_assets_tests.waiting import until

TYPES = list(TABLES)

# What Dagster 1.13 does inside itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `__fields__` attribute is deprecated",
    "ignore:Function `AssetSelection.sources` is deprecated",
)


@pytest.fixture(autouse=True)
def quick(live: Live) -> Iterator[None]:
    yield
    live.quick_embedder()


def texts_of(ref: EntityRef, version: int) -> tuple[str, str]:
    """Title and text of a version of an entity; no two entities and versions share a text."""
    return f"Note {ref.id}", f"{ref.type} {ref.id} says {version}"


def thin(ref: EntityRef, verb: str = "updated") -> Message:
    return f"mcp.{ref.type}.{verb}", {"entity_id": ref.id}


def failed_ticks(instance: dg.DagsterInstance, since: float) -> list[InstigatorTick]:
    ticks = [
        tick
        for sensor in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        for tick in instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id)
    ]
    assert any(tick.status is TickStatus.SUCCESS for tick in ticks), "no tick ever asked for a run"
    return [tick for tick in ticks if tick.status is TickStatus.FAILURE and tick.timestamp >= since]


def runs_of(instance: dg.DagsterInstance, since: float, status: dg.DagsterRunStatus) -> list[str]:
    records = instance.get_run_records(dg.RunsFilter(statuses=[status]))
    return [record.dagster_run.run_id for record in records if record.create_timestamp.timestamp() >= since]


def test_a_backfill_and_a_burst_of_events_over_the_same_partitions_end_as_if_one_followed_the_other(
    live: Live, instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    live.stop_daemon()
    began = time.time()
    refs = [EntityRef(name, f"burst-{number}") for number in range(150) for name in TYPES]
    live.write_all({ref: texts_of(ref, 0) for ref in refs})
    live.slow_embedder(0.1)
    backfill_id = live.request_backfill(instance, definitions)
    live.publish([thin(ref, "created") for ref in refs])
    live.start_daemon()

    # While the backfill and the drains are at it, every second entity changes again, and some are deleted.
    until(lambda: live.embedded()["texts"] > 0, "there are points", within_s=PATIENCE_S)
    live.write_all({ref: texts_of(ref, 1) for ref in refs[::2]})
    for ref in refs[::50]:
        live.delete(ref)
    live.publish([thin(ref, "deleted" if ref not in live.texts else "updated") for ref in refs[::2]])
    live.quick_embedder()

    (run,) = until(
        lambda: instance.get_runs(
            dg.RunsFilter(tags={"dagster/backfill": backfill_id}, statuses=[dg.DagsterRunStatus.SUCCESS])
        ),
        "the backfill's run has succeeded",
        within_s=PATIENCE_S,
    )
    live.wait_until_converged()
    partitions = [f"{name}-{shard:02}" for name in TYPES for shard in range(4)]
    for asset in ("entities", "embeddings"):
        logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        events = [entry.get_dagster_event() for entry in logged]
        assert [e.partition for e in events if e.asset_key == dg.AssetKey(asset)] == partitions
    assert failed_ticks(instance, began) == []
    assert runs_of(instance, began, dg.DagsterRunStatus.FAILURE) == []


def test_with_two_daemons_each_run_is_executed_once_and_each_text_is_embedded_once(
    live: Live, instance: dg.DagsterInstance
) -> None:
    live.start_daemon()
    second = live.start_a_daemon("second-daemon.log")
    # A run of the test before may still wait for more messages, and would take ours with no run of its own for them.
    until(
        lambda: all(run.is_finished for run in instance.get_runs()),
        "no run is at work",
        within_s=PATIENCE_S,
    )
    began, before = time.time(), live.embedded()

    def has_embedded(texts: int) -> bool:
        return live.embedded()["texts"] - before["texts"] >= texts

    try:
        refs = [EntityRef(name, f"twice-{number}") for number in range(40) for name in TYPES]
        live.slow_embedder(0.1)
        for version in range(4):
            changed = refs[version::4]
            live.write_all({ref: texts_of(ref, version) for ref in changed})
            live.publish([thin(ref) for ref in changed])
            until(partial(has_embedded, (version + 1) * len(changed)), "they are embedded", within_s=2 * PATIENCE_S)
        live.wait_until_converged()
    finally:
        second.terminate()
        second.wait(60)

    records = [one for one in instance.get_run_records() if one.create_timestamp.timestamp() >= began]
    started = {
        one.dagster_run.run_id: len(
            instance.all_logs(one.dagster_run.run_id, of_type=dg.DagsterEventType.PIPELINE_START)
        )
        for one in records
    }
    assert started and set(started.values()) == {1}, started
    assert runs_of(instance, began, dg.DagsterRunStatus.FAILURE) == []
    after = live.embedded()
    assert after["texts"] - before["texts"] == after["distinct_texts"] - before["distinct_texts"] == len(refs)


def test_events_of_every_shape_become_searchable_and_rubbish_becomes_dead_letters_without_any_failure(
    live: Live, instance: dg.DagsterInstance
) -> None:
    live.start_daemon()
    began = time.time()
    letters_before = live.query("SELECT count(*) FROM mcp_assets.dead_letters")[0][0]

    row = EntityRef("task", "with-a-row")
    live.write(row, "Quarterly invoice", "walrus customs declaration")
    node = EntityRef("memory", "node-with-a-row")
    live.write(node, "Remember", "ocelot deployment checklist")
    page = EntityRef("page", "only-by-events")
    memory = EntityRef("memory", "memory-by-events")
    gone = EntityRef("task", "deleted-by-an-event")
    unwritten = EntityRef("page", "deleted-row")
    live.write(unwritten, "Short-lived", "pelican retention policy")

    snake = {"message_id": "m-1", "timestamp": "2026-03-01T12:00:00Z", "source": "wiki"}
    camel = {"messageId": "m-2", "timestamp": 1772366400000, "source": "kanban", "version": "1.0", "type": "event"}
    live.publish(
        [
            # The row says what is true, not the event.
            (
                "mcp.kanban.task.created",
                {**camel, "data": {"taskId": row.id, "boardId": "b", "title": "x", "description": "lies"}},
            ),
            ("mcp.memory.node.stored", {"memoryId": node.id}),
            ("mcp.wiki.page.updated", {**camel, "data": {"pageId": unwritten.id}}),
            (
                "vector.index.request",
                {
                    **snake,
                    "data": {
                        "entity_id": page.id,
                        "entity_type": "page",
                        "content": "first words",
                        "metadata": {"title": "Draft"},
                    },
                },
            ),
            (
                "mcp.memory.node.stored",
                {**camel, "data": {"memoryId": memory.id, "content": "lynx telemetry budget", "concepts": ["cost"]}},
            ),
            ("mcp.task.created", {**snake, "data": {"task_id": gone.id, "title": "Soon gone", "description": "moth"}}),
        ]
    )
    rubbish: list[Message] = [
        ("mcp.task.created", b""),
        ("mcp.task.created", b"\xff\xfe\x00binary"),
        ("mcp.task.created", b'{"taskId": "cut off'),
        ("mcp.task.created", b"[" * 100_000),
        ("mcp.task.created", b'{"taskId": "nul\\u0000"}'),
        ("mcp.task.created", {"title": "no id"}),
        ("mcp.task.created", {"taskId": "x" * 5000}),
        ("mcp.widget.created", {"widgetId": "unknown type"}),
        ("vector.index.request", {"data": {"entity_id": "1", "entity_type": "widget"}}),
        ("data.sync.request", {"sync_type": "no such sync"}),
    ]
    # Whatever is odd in them, they say which entity to look at.
    odd: list[Message] = [
        ("mcp.task.created", b'{"taskId": "t", "title": "x", "metadata": {"n": NaN}}'),
        ("mcp.task.created", b'{"taskId": "t", "title": "\\ud800"}'),
        ("mcp.task.created", {"taskId": "t", "title": ["wrong", "type"]}),
    ]
    live.write(EntityRef("task", "t"), "Clear", "heron inventory")
    live.publish([*rubbish, *odd])
    live.delete(unwritten)
    live.publish(
        [
            ("mcp.wiki.page.deleted", {"pageId": unwritten.id}),
            ("mcp.wiki.page.updated", {**camel, "data": {"pageId": page.id, "title": "Zebra", "content": "crossing"}}),
            ("mcp.task.deleted", {"task_id": gone.id}),
        ]
    )
    live.texts |= {page: "Zebra crossing", memory: "lynx telemetry budget"}

    live.wait_until_converged()
    assert live.found_by("Quarterly invoice walrus customs declaration")[0] == row
    assert live.found_by("Remember ocelot deployment checklist")[0] == node
    assert live.found_by("Zebra crossing")[0] == page
    assert live.found_by("lynx telemetry budget")[0] == memory
    letters = live.query("SELECT raw, subject FROM mcp_assets.dead_letters ORDER BY stream, seq")
    assert len(letters) - letters_before == len(rubbish)
    sent = {(subject, body if isinstance(body, bytes) else json.dumps(body).encode()) for subject, body in rubbish}
    assert sent <= {(subject, bytes(raw)) for raw, subject in letters}
    assert failed_ticks(instance, began) == []
    assert runs_of(instance, began, dg.DagsterRunStatus.FAILURE) == []


def test_a_servers_own_request_under_mcp_is_answered_by_that_server_while_the_stream_exists(live: Live) -> None:
    async def ask() -> list[bytes]:
        assert live.addresses.nats_url is not None
        client = await nats.connect(live.addresses.nats_url)
        try:

            async def answer(request: Msg) -> None:
                await request.respond(b"its own answer to " + request.subject.encode())

            for subject in ("mcp.task.get", "mcp.kanban.task.list"):
                await client.subscribe(subject, cb=answer)
            return [(await client.request(s, b"{}")).data for s in ("mcp.task.get", "mcp.kanban.task.list")]
        finally:
            await client.close()

    assert asyncio.run(ask()) == [b"its own answer to mcp.task.get", b"its own answer to mcp.kanban.task.list"]


def test_dagsters_instance_can_be_opened_while_postgres_comes_back_from_a_kill(
    live: Live,
    instance: dg.DagsterInstance,  # its environment
) -> None:
    live.kill(Part.POSTGRES)
    with dg.DagsterInstance.from_config(str(live.folder)) as opened:
        assert opened.get_runs_count() == instance.get_runs_count()


def test_two_thousand_events_converge_though_daemon_run_nats_postgres_and_qdrant_are_killed_among_them(
    live: Live, instance: dg.DagsterInstance
) -> None:
    live.start_daemon()
    before = live.embedded()
    live.slow_embedder(0.1)
    refs = [EntityRef(name, f"killed-{number}") for number in range(300) for name in TYPES]
    published = 0

    def change(version: int, chosen: list[EntityRef]) -> None:
        """New rows and events for `chosen`; a tenth are deleted again."""
        nonlocal published
        live.write_all({ref: texts_of(ref, version) for ref in chosen})
        messages = [thin(ref) for ref in chosen]
        for ref in chosen[::10]:
            live.delete(ref)
            messages.append(thin(ref, "deleted"))
        live.publish(messages)
        published += len(messages)

    def wait_for_work() -> None:
        """Until texts are being embedded: there is something in flight."""
        so_far = live.embedded()["texts"]
        until(lambda: live.embedded()["texts"] > so_far, "work goes on", within_s=PATIENCE_S)

    change(1, refs[:400])
    wait_for_work()
    pid = until(lambda: live.running_pid(instance), "a run is at work", within_s=PATIENCE_S)
    psutil.Process(pid).kill()

    change(2, refs[300:700])
    wait_for_work()
    live.kill(Part.NATS)

    change(3, refs[500:900])
    wait_for_work()
    live.kill(Part.QDRANT)

    change(4, refs[200:600])
    wait_for_work()
    live.kill(Part.POSTGRES)

    until(lambda: live.pending() is not None, "PostgreSQL answers", within_s=PATIENCE_S)
    change(5, refs[0:250])
    wait_for_work()
    live.kill_daemon()
    live.start_daemon()
    live.quick_embedder()

    assert published >= 2000
    live.wait_until_converged()
    after = live.embedded()
    repeated = (after["texts"] - after["distinct_texts"]) - (before["texts"] - before["distinct_texts"])
    in_flight = len(TYPES) * (CONCURRENCY + 1) * BATCH_SIZE
    # What was in flight at each of the five kills, at most; a text that was committed is never embedded again.
    assert repeated <= 5 * in_flight
    assert after["distinct_texts"] - before["distinct_texts"] >= len(live.texts.keys() & set(refs))

    # And once everything is at rest, events about what has not changed embed nothing.
    live.publish([thin(ref) for ref in refs])
    live.wait_until_converged()
    assert live.embedded()["texts"] == after["texts"]
