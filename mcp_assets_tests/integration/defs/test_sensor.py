"""The sensor, tick by tick: whom it asks to work, and whom it leaves alone."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import DagsterEvent
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from pydantic import SecretStr

from mcp_assets.defs.keys import DRAIN_TAG, EDGES, EMBEDDINGS, ENTITIES, FULL_SYNC_TAG, REASON_TAG
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_lock import hold_drain_lock
from mcp_assets.sync.index.provider_outage import provider_outages, provider_refuses
from mcp_assets.sync.index.store_outage import QdrantProbe
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import InboxTuning, IndexTuning, Tuning
from mcp_assets_tests.integration.defs.conftest import CODE_LOCATION, Ran
from mcp_assets_tests.observing import inbox, ledger, replace_stream, take_in
from mcp_assets_tests.openai_stub import OpenAIStub

Tick = Callable[[], SensorExecutionData]
Write = Callable[..., None]

EVERY_ASSET = [key.to_user_string() for key in (ENTITIES, EMBEDDINGS, EDGES)]
"""Lost events are made good when their entities are linked, too."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Ticks that end soon."""
    return settings.model_copy(update={"sensor_tick_s": 0.6})


@pytest.fixture
def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Tick:
    repository = definitions.get_repository_def()
    platform = (definitions.resources or {})["platform"]

    def evaluate() -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"platform": platform}
        ) as context:
            return repository.get_sensor_def("vector_index_sensor").evaluate_tick(context)

    return evaluate


def make_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    """A run in the instance that nobody executes."""
    made = create_run_for_test(
        instance,
        job_name="index",
        tags={f"mcp_assets/{name}": value for name, value in tags.items()},
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(CODE_LOCATION, "__repository__"), "index"),
    )
    event = DagsterEvent(_EVENTS[status].value, made.job_name) if status in _EVENTS else None
    if event is not None:
        instance.run_storage.handle_run_event(made.run_id, event)
    found = instance.get_run_by_id(made.run_id)
    assert found is not None
    assert found.status is status
    return found


_EVENTS = {
    dg.DagsterRunStatus.QUEUED: dg.DagsterEventType.PIPELINE_ENQUEUED,
    dg.DagsterRunStatus.STARTING: dg.DagsterEventType.PIPELINE_STARTING,
    dg.DagsterRunStatus.STARTED: dg.DagsterEventType.PIPELINE_START,
    dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.PIPELINE_SUCCESS,
    dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.PIPELINE_FAILURE,
    dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.PIPELINE_CANCELED,
}


def types_of(told: SensorExecutionData, tag: str = DRAIN_TAG) -> list[str]:
    """Entity types that runs with `tag` are asked for, in the order of the requests."""
    return [request.tags[tag] for request in told.run_requests or () if tag in request.tags]


def thin(entity_type: str, *ids: str) -> list[tuple[str, bytes]]:
    return [(f"mcp.{entity_type}.updated", b'{"entity_id": "%s"}' % entity_id.encode()) for entity_id in ids]


def test_a_tick_asks_once_for_each_type_with_pending_work_over_all_its_shards(platform: Platform, tick: Tick) -> None:
    platform.nats.publish(thin("task", *(f"t{n}" for n in range(100))) + thin("memory", "m1", "m2"))

    told = tick()

    assert sorted(types_of(told)) == ["memory", "task"]
    assert types_of(told, FULL_SYNC_TAG) == []
    for request in told.run_requests or ():
        entity_type = request.tags[DRAIN_TAG]
        assert request.tags["dagster/asset_partition_range_start"] == f"{entity_type}-00"
        assert request.tags["dagster/asset_partition_range_end"] == f"{entity_type}-03"
        assert request.asset_selection == [ENTITIES, EMBEDDINGS, EDGES]
        assert request.asset_check_keys == []
        assert request.run_key is None
        assert request.run_config == {}
        assert request.tags[REASON_TAG].startswith(f"events of {entity_type} wait, the oldest for ")
    assert told.cursor == "102 messages taken in; runs: " + ", ".join(types_of(told))


@pytest.mark.timeout(30)
def test_events_that_come_without_end_do_not_keep_a_tick_from_asking(platform: Platform, tick: Tick) -> None:
    platform.settings.sensor_tick_s = 300
    asked = threading.Event()

    def publish() -> None:
        while not asked.wait(0.01):
            platform.nats.publish(thin("task", "t1"))

    with ThreadPoolExecutor(1) as beside:
        publishing = beside.submit(publish)
        try:
            assert types_of(tick()) == ["task"]
        finally:
            asked.set()
        publishing.result()


@pytest.mark.tuning(Tuning(inbox=InboxTuning(messages_a_read=50)))
def test_a_burst_has_its_drains_asked_for_before_all_of_it_is_taken_in(platform: Platform, tick: Tick) -> None:
    platform.nats.publish(thin("task", *(f"t{n}" for n in range(120))))

    assert types_of(tick()) == ["task"]

    assert len(inbox(platform)) == 50


def test_a_tick_without_any_message_skips(platform: Platform, tick: Tick) -> None:
    told = tick()
    assert told.run_requests == []
    assert told.skip_message == "no message taken in; nothing waits for a run"


def test_rubbish_alone_asks_for_no_run_and_fails_no_tick(platform: Platform, tick: Tick) -> None:
    platform.nats.publish([("mcp.task.created", b"\xff\x00"), ("mcp.widget.created", b"{}"), ("mcp.a.b.deleted", b"")])
    told = tick()
    assert told.run_requests == []
    assert (told.skip_message or "").startswith("3 messages taken in, 3 of them unreadable (see `mcp-assets dlq list`)")
    with platform.postgres.transaction() as connection:
        letters = connection.execute("SELECT count(*) FROM mcp_assets.dead_letters").fetchone()
    assert letters == (3,)


def test_no_run_is_asked_for_while_a_drain_lives_and_one_is_once_it_has_gone(
    platform: Platform, tick: Tick, write: Write
) -> None:
    write("task", {"t1": "one", "t2": "two", "t3": "three"})
    platform.nats.publish(thin("task", "t1"))
    assert types_of(tick()) == ["task"]
    with closing(drain(platform, "task", "some run")) as living:
        next(living)
        platform.nats.publish(thin("task", "t2"))
        assert tick().run_requests == []

    platform.nats.publish(thin("task", "t3"))
    assert types_of(tick()) == ["task"]


def test_what_comes_while_a_drain_of_another_type_lives_is_left_to_it_at_first(platform: Platform, tick: Tick) -> None:
    with hold_drain_lock(platform, "task", "some run"):
        platform.nats.publish(thin("page", "p1"))
        assert tick().run_requests == []

        platform.tuning = Tuning(inbox=InboxTuning(left_to_drains_s=0.0))
        assert types_of(tick()) == ["page"]


@pytest.mark.parametrize(
    ("status", "asked"),
    [
        (dg.DagsterRunStatus.QUEUED, []),
        (dg.DagsterRunStatus.NOT_STARTED, []),
        (dg.DagsterRunStatus.STARTING, []),
        (dg.DagsterRunStatus.STARTED, []),
        (dg.DagsterRunStatus.SUCCESS, ["task"]),
        (dg.DagsterRunStatus.FAILURE, ["task"]),
        (dg.DagsterRunStatus.CANCELED, ["task"]),
    ],
)
def test_a_run_that_was_asked_for_just_now_counts_until_it_is_finished(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick, status: dg.DagsterRunStatus, asked: list[str]
) -> None:
    platform.nats.publish(thin("task", "t1"))
    make_run(instance, status, drain="task")
    assert types_of(tick()) == asked


def test_an_unfinished_run_of_another_type_or_job_is_no_drain(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick
) -> None:
    platform.nats.publish(thin("task", "t1"))
    make_run(instance, dg.DagsterRunStatus.STARTED, drain="page")
    make_run(instance, dg.DagsterRunStatus.STARTED)
    assert types_of(tick()) == ["task"]


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
)
def test_work_of_a_run_that_never_began_to_drain_is_asked_for_again(
    platform: Platform,
    instance: dg.DagsterInstance,
    tick: Tick,
    status: dg.DagsterRunStatus,
) -> None:
    platform.nats.publish(thin("task", "t1"))
    make_run(instance, status, drain="task")
    assert tick().run_requests == []
    platform.tuning = Tuning(inbox=InboxTuning(starting_s=0.0))
    assert types_of(tick()) == ["task"]


def test_work_of_a_run_that_beat_once_and_was_killed_is_asked_for_again(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick
) -> None:
    platform.nats.publish(thin("task", "t1"))
    killed = make_run(instance, dg.DagsterRunStatus.STARTED, drain="task")
    with platform.postgres.transaction() as connection:
        # What a drain leaves behind that had no time to say goodbye: a beat, and no lock.
        connection.execute(platform.postgres.query("heartbeat"), {"entity_type": "task", "run_id": killed.run_id})
    assert types_of(tick()) == ["task"]


def test_lost_events_give_one_full_sync_a_type_and_their_drains_are_asked_for_beside_it(
    platform: Platform,
    instance: dg.DagsterInstance,
    tick: Tick,
    write: Write,
    run: Callable[..., Ran],
) -> None:
    write("task", {"t0": "read", "t1": "its event is lost"})
    platform.nats.publish(thin("task", "t0"))
    run("task-00", "task-03", drain=True)
    replace_stream(platform)
    platform.nats.publish(thin("task", "t2"))

    told = tick()

    assert sorted(types_of(told, FULL_SYNC_TAG)) == ["memory", "page", "task"]
    assert types_of(told) == ["task"]
    for request in told.run_requests or ():
        if FULL_SYNC_TAG in request.tags:
            entity_type = request.tags[FULL_SYNC_TAG]
            assert request.run_config == {}
            assert request.tags["dagster/asset_partition_range_start"] == f"{entity_type}-00"
            assert request.tags["dagster/asset_partition_range_end"] == f"{entity_type}-03"

    # Two of them are under way, and nothing is known of the third.
    for entity_type, status in (("task", dg.DagsterRunStatus.STARTED), ("page", dg.DagsterRunStatus.QUEUED)):
        make_run(instance, status, full_sync=entity_type)
    assert types_of(tick(), FULL_SYNC_TAG) == ["memory"]

    assert run("memory-00", "memory-03", assets=EVERY_ASSET).success
    assert types_of(tick(), FULL_SYNC_TAG) == []


def test_a_full_sync_that_fails_each_time_keeps_no_event_of_its_type_waiting_and_is_asked_for_more_and_more_seldom(
    platform: Platform,
    instance: dg.DagsterInstance,
    tick: Tick,
    write: Write,
    run: Callable[..., Ran],
) -> None:
    write("task", {f"t{n}": f"text {n}" for n in range(150)})
    assert run("task-00", "task-03").success
    with platform.postgres.transaction() as connection:
        # So much is gone that a person has to allow the full sync.
        connection.execute("DELETE FROM tasks WHERE id NOT IN ('t1', 't2')")
        connection.execute(
            platform.postgres.query("want_full_syncs"), {"entity_types": ["task"], "reason": "messages were discarded"}
        )
    write("task", {"t1": "changed"})
    platform.nats.publish(thin("task", "t1"))
    take_in(platform)

    told = tick()
    assert (types_of(told, FULL_SYNC_TAG), types_of(told)) == (["task"], ["task"])
    assert run("task-00", "task-03", drain=True).success
    assert inbox(platform) == []
    assert ledger(platform)["t1"]["content"] == "changed"
    assert not run("task-00", "task-03").success

    make_run(instance, dg.DagsterRunStatus.FAILURE, full_sync="task")
    assert types_of(tick(), FULL_SYNC_TAG) == []
    platform.tuning = Tuning(inbox=InboxTuning(full_sync_again_s=0.0))
    assert types_of(tick(), FULL_SYNC_TAG) == ["task"]


def test_a_full_sync_of_some_shards_or_of_one_asset_does_not_count_as_the_one_that_is_wanted(
    platform: Platform, tick: Tick, write: Write, run: Callable[..., Ran]
) -> None:
    write("task", {"t0": "read"})
    platform.nats.publish(thin("task", "t0"))
    run("task-00", "task-03", drain=True)
    replace_stream(platform)
    platform.nats.publish(thin("task", "t0"))
    assert "task" in types_of(tick(), FULL_SYNC_TAG)

    run("task-00", "task-02")
    run("task-00", "task-03", assets=["entities"])
    assert "task" in types_of(tick(), FULL_SYNC_TAG)

    run("task-00", "task-03", assets=EVERY_ASSET)
    assert "task" not in types_of(tick(), FULL_SYNC_TAG)


def test_while_the_provider_refuses_everything_one_run_tries_it_at_a_time_each_after_twice_the_wait(
    platform: Platform, tick: Tick, write: Write, run: Callable[..., Ran], stub: OpenAIStub
) -> None:
    write("task", {"t1": "text"})
    write("page", {"p1": "text"})
    stub.add_fault("insufficient_quota", times=None)
    platform.nats.publish(thin("task", "t1") + thin("page", "p1"))
    assert sorted(types_of(tick())) == ["page", "task"]

    waits = []
    for _ in range(3):
        assert not run("task-00", "task-03", drain=True).success
        assert tick().run_requests == []
        (outage,) = provider_outages(platform)
        waits.append((outage.tries, round(outage.next_try_in_s / 60)))
        let_the_wait_be_over(platform)
        assert len(types_of(tick())) == 1
        assert tick().run_requests == []
    assert waits == [(1, 1), (2, 2), (3, 4)]
    assert "quota" in outage.reason

    finding = evaluate(platform, "provider_answers")
    assert not finding.passed
    assert "quota" in finding.summary
    told = pending(platform)
    assert [line for line in told.lines() if "has embedded nothing" in line] == told.as_dict()["provider"]
    assert len(told.provider) == 1

    stub.clear_faults()
    assert run("task-00", "task-03", drain=True).success
    assert evaluate(platform, "provider_answers").passed
    assert pending(platform).provider == []


def test_a_full_sync_after_lost_events_is_not_asked_for_at_each_tick_while_the_provider_refuses_everything(
    platform: Platform, tick: Tick
) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("INSERT INTO mcp_assets.wanted_full_syncs (entity_type, reason) VALUES ('task', 'a gap')")
    provider_refuses(platform, platform.settings.profile, "no quota")
    assert tick().run_requests == []

    let_the_wait_be_over(platform)

    assert types_of(tick(), FULL_SYNC_TAG) == ["task"]


@pytest.fixture
def tick_of(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Callable[[str], SensorExecutionData]:
    repository = definitions.get_repository_def()
    platform = (definitions.resources or {})["platform"]

    def evaluate(sensor: str) -> SensorExecutionData:
        with dg.build_sensor_context(
            instance=instance, repository_def=repository, resources={"platform": platform}
        ) as context:
            return repository.get_sensor_def(sensor).evaluate_tick(context)

    return evaluate


@pytest.mark.tuning(Tuning(index=IndexTuning(qdrant_answer_valid_s=0.0)))
def test_no_run_is_asked_for_while_qdrant_is_silent_and_the_next_tick_asks_once_it_answers(
    platform: Platform, tick_of: Callable[[str], SensorExecutionData], write: Write
) -> None:
    write("task", {"t1": "text"})
    platform.nats.publish(
        [*thin("task", "t1"), ("relationship.analyze.request", b'{"entity_type": "task", "entity_id": "t1"}')]
    )
    with platform.postgres.transaction() as connection:
        connection.execute("INSERT INTO mcp_assets.wanted_full_syncs (entity_type, reason) VALUES ('task', 'a gap')")
    at, platform.settings.qdrant_url = platform.settings.qdrant_url, "http://127.0.0.1:9"
    platform.companion(QdrantProbe).close()
    for sensor in ("vector_index_sensor", "relationship_sensor"):
        told = tick_of(sensor)
        assert told.run_requests == []
        assert "no run is asked for until Qdrant answers: Qdrant does not answer at http://127.0.0.1:9" in (
            told.skip_message or ""
        )
    assert len(inbox(platform)) == 2, "events are taken in meanwhile"
    (line,) = pending(platform).unavailable
    assert "Qdrant does not answer" in line
    assert "no run that needs it is asked for" in line

    platform.settings.qdrant_url = at

    told = tick_of("vector_index_sensor")
    assert (types_of(told, FULL_SYNC_TAG), types_of(told)) == (["task"], ["task"])
    assert types_of(tick_of("relationship_sensor")) == ["task"]


def test_a_drain_that_fails_at_once_each_time_is_not_asked_for_at_each_tick(
    platform: Platform, instance: dg.DagsterInstance, tick: Tick
) -> None:
    platform.nats.publish(thin("task", "t1") + thin("page", "p1"))
    make_run(instance, dg.DagsterRunStatus.FAILURE, drain="task")
    assert sorted(types_of(tick())) == ["page", "task"]
    make_run(instance, dg.DagsterRunStatus.FAILURE, drain="task")
    assert types_of(tick()) == ["page"]
    platform.tuning = Tuning(inbox=InboxTuning(drain_again_s=0.0))
    assert sorted(types_of(tick())) == ["page", "task"]


def test_a_tick_that_skips_names_the_streams_that_it_could_not_read(platform: Platform, tick: Tick) -> None:
    platform.settings.streams = ("AAA", *platform.settings.streams)
    told = tick()
    assert "not read: stream AAA" in (told.skip_message or "")


def let_the_wait_be_over(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.provider_outages SET next_try_at = now()")


def test_a_tick_fails_where_a_store_is_silent_and_does_not_look_like_one_without_messages(
    platform: Platform, tick: Tick
) -> None:
    platform.settings.database_url = SecretStr("postgresql://nobody@127.0.0.1:9/nowhere")
    platform.settings.retry_attempts = 1
    platform.postgres.close()
    del platform.postgres  # made anew, with the changed settings, when it is asked for
    with pytest.raises(StoreUnavailable):
        tick()
