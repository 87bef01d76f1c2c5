"""Answers: true of work that began after the request, kept with what they answer, published until NATS has them."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats
import pytest
from nats.js import api

from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox import outbox
from mcp_assets.sync.inbox.announce import answer_relinked
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.outbox import count_waiting, forget_old, publish_waiting
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.full_sync_requests import FullSync
from mcp_assets.sync.requests.sync_requests import Answer, answer_requests
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import InboxTuning, Tuning
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import dead_letters, put, put_tasks, rows, send, sync_all, take_in, without_linger


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with Listener(platform.settings.require_nats_url()) as listening:
        yield listening


@pytest.fixture
def deaf(make_platform: Callable[..., Platform]) -> Platform:
    """The same platform where NATS cannot be reached."""
    return make_platform(nats_url="nats://127.0.0.1:9")


def ask(platform: Platform, sync_type: str, *ids: str, message_id: str = "m-1", **context: Any) -> None:
    data = {"sync_type": sync_type, "entity_ids": list(ids), "context": context}
    send(platform, ("data.sync.request", {"message_id": message_id, "data": data}))


def answers(platform: Platform) -> list[Answer]:
    take_in(platform)
    return list(answer_requests(platform, MessageKind.SYNC, "test"))


def full_sync_of(platform: Platform, answer: Answer) -> FullSync:
    sync = full_sync_requests.find(platform, answer.result["backfill_id"])
    assert sync is not None
    return sync


# A full sync answers only requests that were made before it compared.


def test_a_full_sync_request_joins_one_that_has_not_begun_to_compare(platform: Platform, listener: Listener) -> None:
    ask(platform, "full_sync", message_id="first")
    (first,) = answers(platform)
    full_sync_requests.started(platform, full_sync_of(platform, first).id)
    ask(platform, "full_sync", message_id="second")
    (second,) = answers(platform)
    assert second.result["backfill_id"] == first.result["backfill_id"]
    full_sync_requests.finish(platform, full_sync_of(platform, first), None)
    assert {one["correlation_id"] for one in listener.all("data.sync.completed", 2)} == {"first", "second"}


def test_a_full_sync_request_made_after_another_has_begun_to_compare_is_answered_by_one_of_its_own(
    platform: Platform, listener: Listener
) -> None:
    ask(platform, "full_sync", message_id="first")
    (first,) = answers(platform)
    earlier = full_sync_of(platform, first)
    full_sync_requests.begins_to_compare(platform, earlier.id)
    ask(platform, "full_sync", message_id="second")
    ask(platform, "full_sync", message_id="third")

    second, third = answers(platform)

    assert second.result["backfill_id"] == third.result["backfill_id"] != earlier.id
    full_sync_requests.finish(platform, earlier, None)
    assert listener.one("data.sync.completed")["correlation_id"] == "first"
    full_sync_requests.finish(platform, full_sync_of(platform, second), None)
    assert [one["correlation_id"] for one in listener.all("data.sync.completed", 3)] == [
        "first",
        "second",
        "third",
    ]


def test_a_request_that_joins_in_the_moment_the_full_sync_finishes_is_answered(
    platform: Platform, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(platform, "full_sync", message_id="first")
    (first,) = answers(platform)
    sync = full_sync_of(platform, first)
    ask(platform, "full_sync", message_id="second")
    take_in(platform)
    joined, finishing = threading.Event(), threading.Event()
    original = full_sync_requests.result_of

    def slowly(*given: Any) -> dict[str, Any]:
        if threading.current_thread().name.startswith("asker") and not joined.is_set():
            joined.set()
            assert finishing.wait(10)
        return original(*given)

    def finish() -> None:
        finishing.set()
        full_sync_requests.finish(platform, sync, None)

    monkeypatch.setattr(full_sync_requests, "result_of", slowly)
    with ThreadPoolExecutor(2, thread_name_prefix="asker") as threads:
        asking = threads.submit(lambda: list(answer_requests(platform, MessageKind.SYNC, "asker")))
        assert joined.wait(10)
        finishing_ = threading.Thread(target=finish)
        finishing_.start()
        asking.result()
        finishing_.join()

    assert listener.answer("first")[0] == listener.answer("second")[0] == "data.sync.completed"
    assert full_sync_requests.unfinished(platform) == []


def test_the_answer_of_a_full_sync_reports_the_types_that_were_asked_for(
    platform: Platform, listener: Listener
) -> None:
    ask(platform, "full_sync", message_id="all")
    ask(platform, "full_sync", message_id="pages", entity_types=["page"])
    first, second = answers(platform)
    assert first.result["backfill_id"] == second.result["backfill_id"]
    sync = full_sync_of(platform, first)
    put_tasks(platform, {"t1": "one"})
    put(platform, "wiki_pages", id="p1", title="Page", content="text")
    writer = full_sync_requests.ProgressWriter(platform, sync.id)
    for entity_type in ("task", "page"):
        for news in full_sync(platform, entity_type, range(platform.settings.shards)):
            writer.worked(entity_type, news.shard, news.counts, news.differing) if not news.complete else None
    writer.flush()
    full_sync_requests.finish(platform, sync, None)

    everything, pages = listener.answer("all")[1]["data"], listener.answer("pages")[1]["data"]
    assert everything["counts"]["embedded"] == 2
    assert (pages["entity_types"], pages["counts"]["embedded"]) == (["page"], 1)
    assert pages["counts_by_type"].keys() == {"page"}


# Other answers are true, too.


@pytest.mark.parametrize("sync_type", ["incremental_sync", "conflict_resolution"])
def test_a_request_with_an_empty_list_is_done_with_nothing(
    platform: Platform, listener: Listener, sync_type: str
) -> None:
    ask(platform, sync_type)
    answers(platform)
    reported = listener.one("data.sync.completed")["data"]
    assert not any(reported["counts"].values())
    assert reported["entities"] == []
    assert dead_letters(platform) == {}


def test_the_edges_in_an_answer_are_those_of_its_own_entities(platform: Platform, listener: Listener) -> None:
    put_tasks(platform, {"t1": "see page:p1", "t2": "see page:p1"})
    put(platform, "wiki_pages", id="p1", title="Page", content="depends on task:t1, depends on task:t2")
    sync_all(platform, "task")
    ask(platform, "incremental_sync", "page:p1")
    answers(platform)
    own = rows(platform, "SELECT count(*) FROM public.relationships WHERE source_id = 'p1'")
    everything = rows(platform, "SELECT count(*) FROM public.relationships")
    reported = listener.one("data.sync.completed")["data"]["counts"]
    assert [(reported["edges_added"],)] == own
    assert everything > own


def test_the_counts_of_an_index_answer_are_those_of_the_entities_that_were_asked_for(
    platform: Platform, listener: Listener
) -> None:
    put_tasks(platform, {f"t{n}": f"text {n}" for n in range(5)})
    send(
        platform,
        *(("mcp.task.updated", {"taskId": f"t{n}"}) for n in range(1, 5)),
        ("vector.index.request", {"message_id": "i", "data": {"entity_id": "t0", "entity_type": "task"}}),
    )
    take_in(platform)
    list(drain(without_linger(platform), "task", "test"))
    publish_waiting(platform)
    answer = listener.answer("i")[1]["data"]
    assert (answer["entities"], answer["counts"]["scanned"], answer["counts"]["embedded"]) == (["task:t0"], 1, 1)
    (other,) = [one["data"] for one in listener.all("vector.index.completed", 2) if one["data"] != answer]
    assert (len(other["entities"]), other["counts"]["embedded"], other["requests"]) == (4, 4, [])


def test_a_request_to_relink_is_answered_once_its_entity_is_linked_by_whichever_linker(
    platform: Platform, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "see task:t2", "t2": "two"})
    sync_all(platform)
    for name in ("r-1", "r-2"):
        body = {"message_id": name, "data": {"entity_id": "t1", "entity_type": "task"}}
        send(platform, ("relationship.analyze.request", body))
    take_in(platform)
    list(drain(without_linger(platform), "task", "test"))
    assert answer_relinked(platform) == 0, "its marks are there"

    list(link_until_done(platform))

    assert answer_relinked(platform) == 2
    publish_waiting(platform)
    subject, reported = listener.answer("r-1")
    assert subject == "relationship.analyze.completed"
    assert reported["data"]["requests"] == ["r-1", "r-2"]
    assert reported["data"]["added"] == {"cross_reference": 1}
    assert reported["data"]["entities"] == [{"entity_type": "task", "entity_id": "t1", "edges": {"cross_reference": 1}}]
    assert answer_relinked(platform) == 0


def test_an_edge_that_a_request_to_relink_removed_is_reported(platform: Platform, listener: Listener) -> None:
    put_tasks(platform, {"t1": "see task:t2", "t2": "two"})
    sync_all(platform)
    list(link_until_done(platform))
    put_tasks(platform, {"t1": "nothing to see"})
    body = {"message_id": "r", "data": {"entity_id": "t1", "entity_type": "task"}}
    send(platform, ("relationship.analyze.request", body))
    take_in(platform)
    list(drain(without_linger(platform), "task", "test"))
    list(link_until_done(platform))
    answer_relinked(platform)
    publish_waiting(platform)
    reported = listener.answer("r")[1]["data"]
    assert (reported["relinked"], reported["added"], reported["removed"]) == (1, {}, {"cross_reference": 1})


# Answers arrive.


def test_an_answer_that_cannot_be_published_waits_in_the_outbox_and_fails_nothing(
    platform: Platform, deaf: Platform, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "t1", message_id="late")
    take_in(platform)
    (answer,) = answer_requests(deaf, MessageKind.SYNC, "test")
    assert answer.error is None
    assert "results wait to be published" in caplog.text
    assert (count_waiting(platform), rows(platform, "SELECT count(*) FROM {schema}.inbox")) == (1, [(0,)])

    assert publish_waiting(platform) == 1
    assert listener.answer("late")[0] == "data.sync.completed"
    assert count_waiting(platform) == 0


def test_answers_that_wait_are_reported_by_status_and_forgotten_when_their_stream_would_not_keep_them_any_more(
    platform: Platform, deaf: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        ask(platform, "incremental_sync", message_id=f"m{number}")
    take_in(platform)
    assert len(list(answer_requests(deaf, MessageKind.SYNC, "test"))) == 2
    reported = pending(platform)
    assert reported.answers == reported.as_dict()["answers"] == 2
    assert "answers: 2 wait in the outbox until NATS takes them" in reported.lines()

    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.outbox SET made_at = now() - interval '73 hours' WHERE id % 2 = 0")
    assert forget_old(platform, 3.0) == 1
    assert "1 results that could not be published for 3 days" in caplog.text
    assert pending(platform).answers == 1
    assert forget_old(platform, 3.0) == 0


def test_the_answers_to_events_are_kept_in_the_transaction_that_takes_them_out_of_the_inbox(
    platform: Platform, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one"})
    body = {"message_id": "i", "data": {"entity_id": "t1", "entity_type": "task"}}
    send(platform, ("vector.index.request", body))
    take_in(platform)
    draining = drain(without_linger(platform), "task", "test")
    assert next(draining).messages == 1
    draining.close()  # The process might as well be killed here: nothing was published.
    assert listener.heard() == []
    publish_waiting(platform)
    assert listener.answer("i")[0] == "vector.index.completed"


def test_an_answer_published_again_after_a_kill_is_kept_by_the_stream_once(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(platform, "incremental_sync", message_id="twice")
    take_in(platform)
    query = platform.postgres.query

    def killed(name: str) -> Any:
        if name == "delete_results":
            raise KeyboardInterrupt
        return query(name)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(platform.postgres, "query", killed)
        list(answer_requests(platform, MessageKind.SYNC, "test"))
    assert count_waiting(platform) == 1
    assert publish_waiting(platform) == 1
    assert [one["correlation_id"] for one in kept(platform.settings)] == ["twice"]


def test_a_listener_that_was_away_reads_the_answers_from_the_stream(platform: Platform) -> None:
    ask(platform, "incremental_sync", message_id="while away")
    send(platform, ("mcp.task.created", b"not json"))
    answers(platform)
    assert [one["correlation_id"] for one in kept(platform.settings)] == ["while away"]


def test_where_no_stream_may_be_made_results_are_published_without_a_stream(
    make_platform: Callable[..., Platform], platform: Platform, listener: Listener
) -> None:
    own = make_platform(create_stream=False)
    ask(own, "incremental_sync", message_id="heard")
    answers(own)
    assert listener.answer("heard")[0] == "data.sync.completed"
    assert count_waiting(own) == 0


def test_where_another_stream_takes_the_results_that_one_keeps_them(platform: Platform, listener: Listener) -> None:
    async def make() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        await client.jetstream().add_stream(name="THEIRS", subjects=["data.*.completed"])
        await client.close()

    asyncio.run(make())
    ask(platform, "incremental_sync", message_id="theirs")
    answers(platform)
    assert [one["correlation_id"] for one in kept(platform.settings, "THEIRS")] == ["theirs"]
    assert listener.answer("theirs")[0] == "data.sync.completed"


def test_the_results_stream_can_be_made_before_the_first_result(platform: Platform) -> None:
    platform.nats.ensure_results_stream()
    assert kept(platform.settings) == []


def test_a_results_stream_that_is_deleted_is_made_again(platform: Platform) -> None:
    ask(platform, "incremental_sync", message_id="first")
    answers(platform)

    async def delete() -> None:
        client = await nats.connect(platform.settings.require_nats_url())
        await client.jetstream().delete_stream(platform.settings.results_stream)
        await client.close()

    asyncio.run(delete())
    ask(platform, "incremental_sync", message_id="second")
    answers(platform)
    publish_waiting(platform)
    assert [one["correlation_id"] for one in kept(platform.settings)] == ["second"]


@pytest.mark.tuning(Tuning(inbox=InboxTuning(results_at_once=3)))
def test_waiting_results_are_published_some_at_a_time_in_their_order(platform: Platform, listener: Listener) -> None:
    with platform.postgres.transaction() as connection:
        for number in range(8):
            outbox.keep(platform, connection, outbox.ResultMessage("data.sync.completed", {"number": number}))
    assert publish_waiting(platform) == 8
    heard = [reported["data"]["number"] for reported in listener.all("data.sync.completed", 8)]
    assert sorted(heard) == list(range(8))
    assert [number // 3 for number in heard] == [0, 0, 0, 1, 1, 1, 2, 2]


def kept(settings: Settings, stream: str | None = None) -> list[dict[str, Any]]:
    """The results that the stream holds."""

    async def read() -> list[dict[str, Any]]:
        client = await nats.connect(settings.require_nats_url())
        try:
            subscription = await client.jetstream().subscribe(
                ">",
                stream=stream or settings.results_stream,
                ordered_consumer=True,
                config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.ALL),
            )
            state = (await client.jetstream().stream_info(stream or settings.results_stream)).state
            return [json.loads((await subscription.next_msg(5)).data) for _ in range(state.messages)]
        finally:
            await client.close()

    return asyncio.run(read())
