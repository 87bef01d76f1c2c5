"""Drain: the inbox of a type is worked off to its end by one drain at a time, and survives being killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mcp_assets.entities.registry import SourceTable
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.errors import CollectionMismatch
from mcp_assets.sync.inbox import drain_batch as drain_batch_module
from mcp_assets.sync.inbox import drain_workers
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.drain_lock import heartbeats, hold_drain_lock
from mcp_assets.sync.inbox.drain_requests import pending_types, undrained
from mcp_assets.sync.index.indexer import Indexer
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import InboxTuning, StoreTuning, Tuning
from mcp_assets_tests.clients import environment_of
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    entity_points,
    inbox,
    put,
    put_tasks,
    send,
    send_looks,
    sync_all,
    take_in,
    total,
    without_linger,
)
from mcp_assets_tests.openai_stub import REFUSE_MARKER, OpenAIStub
from mcp_assets_tests.waiting import until

LEFT = Tuning(inbox=InboxTuning(taken_over_s=3600.0))
"""A drain takes over no message that came before it was asked for."""

TAKEN_OVER = Tuning(inbox=InboxTuning(taken_over_s=0.0))
"""A drain takes over such messages at once."""


def put_pages(platform: Platform, texts: dict[str, str]) -> None:
    for entity_id, text in texts.items():
        put(platform, "wiki_pages", id=entity_id, title=text)


def send_pages(platform: Platform, *ids: str) -> None:
    send(platform, *(("mcp.page.updated", {"pageId": entity_id}) for entity_id in ids))


@contextmanager
def living_drain(platform: Platform, entity_type: str = "task", run_id: str = "living") -> Iterator[threading.Thread]:
    """A drain in a thread of its own; entered once it holds its lock, and joined at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            for _ in drain(platform, entity_type, run_id):
                pass
        except BaseException as error:
            errors.append(error)
            raise

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: any(beat.locked for beat in heartbeats(platform).get(entity_type, [])), "the drain lives")
        yield thread
    finally:
        thread.join()
    assert errors == []


def test_a_claim_reads_no_more_messages_than_it_takes_however_many_wait(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    send_looks(platform, *(f"t{n:04}" for n in range(2000)))
    take_in(platform)
    with platform.postgres.transaction() as connection:
        claimed = drain_batch_module.claim(make_platform(batch_size=250), connection, "task")
        read = connection.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'inbox'"
        ).fetchone()
    assert [row.entity_id for row in claimed] == [f"t{n:04}" for n in range(250)]
    assert read is not None
    assert read[0] <= 250


def test_a_drain_ends_with_an_empty_inbox_and_everything_indexed(platform: Platform) -> None:
    texts = {f"t{n}": f"Task {n}" for n in range(120)}
    put_tasks(platform, texts)
    send_looks(platform, *texts)
    take_in(platform)

    drained = list(drain(platform, "task", "run"))

    assert sum(batch.messages for batch in drained) == 120
    assert sum(total(batch).embedded for batch in drained) == 120
    assert inbox(platform) == []
    assert pending(platform).unlinked == 120
    relink(platform)
    assert pending(platform).idle
    assert_points_are(platform, texts)


def test_an_entity_whose_newest_state_was_refused_is_a_dead_letter_and_nothing_that_waits(platform: Platform) -> None:
    put_tasks(platform, {"good": "Sound", "bad": f"{REFUSE_MARKER} by the provider"})
    send_looks(platform, "good", "bad")
    drain_all(platform, "task")
    relink(platform)

    assert dead_letters(platform) == {"bad": "input_refused"}
    assert pending(platform).idle

    put_tasks(platform, {"bad": "Mended"})
    apply(platform, "task", [Wanted("bad")])

    assert not pending(platform).idle


def test_a_living_drain_takes_in_and_indexes_what_is_published_meanwhile(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    with living_drain(make_platform(drain_linger_s=2)):
        for n in range(3):
            put_tasks(platform, {f"t{n}": f"Task {n}"})
            send_looks(platform, f"t{n}")
            until(lambda n=n: f"t{n}" in entity_points(platform), f"t{n} has a point")  # type: ignore[misc]

    assert inbox(platform) == []


@pytest.mark.tuning(LEFT)
def test_a_second_drain_of_the_type_ends_at_once_whatever_waits_and_one_of_another_type_does_not(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    texts = {"t1": "slow one", "t2": "slow two", "t3": "left for later"}
    put_tasks(platform, texts)
    put_pages(platform, {"p": "A page"})
    send_looks(platform, *texts)
    send_pages(platform, "p")
    take_in(platform)
    stub.add_fault("hang", times=None, contains="slow")
    with living_drain(make_platform(batch_size=1, embedding_concurrency=1, drain_linger_s=0)) as first:
        try:
            until(lambda: stub.stats()["requests"] == 1, "a request hangs")
            assert list(drain(platform, "task", "second")) == []
            assert first.is_alive()
            assert inbox(platform) == ["t1", "t2", "t3", "p"]
            assert [beat.run_id for beat in heartbeats(platform)["task"]] == ["living"]
            assert sum(batch.messages for batch in drain(without_linger(platform), "page", "other")) == 1
        finally:
            stub.clear_faults()

    assert_points_are(platform, texts)


def test_a_drain_beats_while_it_lives_and_leaves_no_beat_behind(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    with living_drain(make_platform(drain_linger_s=1)):
        (beat,) = heartbeats(platform)["task"]
        assert (beat.run_id, beat.locked) == ("living", True)

    assert heartbeats(platform) == {}


def test_a_drain_that_fails_lets_go_of_its_lock(platform: Platform, stub: OpenAIStub) -> None:
    put_tasks(platform, {"t": "A task"})
    send_looks(platform, "t")
    take_in(platform)
    stub.add_fault("insufficient_quota", times=None)
    with pytest.raises(Exception, match="quota"):
        list(drain(platform, "task", "run"))
    assert heartbeats(platform) == {}
    stub.clear_faults()

    assert sum(batch.messages for batch in drain(platform, "task", "next")) == 1


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        pytest.param(
            "status", {"status": 500, "message": "failed to encode response: unsupported value: NaN"}, id="500"
        ),
        pytest.param("page", {"status": 403}, id="a page of HTML"),
        pytest.param("drop", {}, id="a cut connection"),
        pytest.param("hang", {}, id="no answer"),
    ],
)
def test_one_text_at_which_the_provider_fails_is_a_dead_letter_and_its_neighbours_are_indexed(
    make_platform: Callable[..., Platform], platform: Platform, stub: OpenAIStub, kind: Any, fields: dict[str, Any]
) -> None:
    own = make_platform(embedding_timeout_s=0.5, drain_linger_s=0)
    texts = {f"t{n}": f"Task {n}" for n in range(9)}
    put_tasks(own, texts | {"poison": "POISON"})
    send_looks(own, *texts, "poison")
    take_in(own)
    stub.add_fault(kind, times=None, contains="POISON", **fields)

    list(drain(own, "task", "run"))

    assert inbox(own) == []
    assert dead_letters(own) == {"poison": "embedding_failed"}
    assert_points_are(own, texts)
    assert {stub.times_embedded(text) for text in texts.values()} == {1}


def test_a_message_that_comes_as_a_drain_lets_go_is_not_left_behind(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks(platform, {"t": "A task"})
    real = drain_workers.DrainWorkers._until_idle
    calls: list[int] = []

    def until_idle(*args: Any) -> None:
        real(*args)
        calls.append(1)
        if len(calls) == 1:
            send_looks(platform, "t")
            # On a busy machine a single look at the stream may end before the message has come.
            until(lambda: take_in(platform) and inbox(platform), "the message is in the inbox")

    monkeypatch.setattr(drain_workers.DrainWorkers, "_until_idle", until_idle)
    assert sum(batch.messages for batch in drain(platform, "task", "run")) == 1

    assert len(calls) == 2
    assert inbox(platform) == []


def test_a_drain_hands_over_after_its_longest_time_and_the_next_goes_on(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    own = make_platform(drain_max_s=0.2, batch_size=1, embedding_concurrency=1)
    texts = {f"t{n}": f"Task {n}" for n in range(40)}
    put_tasks(own, texts)
    send_looks(own, *texts)
    take_in(own)
    stub.add_fault("latency", times=None, latency_s=0.05)

    list(drain(own, "task", "first"))

    assert 0 < len(inbox(own)) < 40
    stub.clear_faults()
    drain_all(platform)
    assert_points_are(platform, texts)


# Taking over.


def test_a_living_drain_takes_over_what_comes_of_other_types_and_lets_go_of_all_together(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    with living_drain(make_platform(drain_linger_s=2)):
        put_pages(platform, {"p": "A page"})
        send_pages(platform, "p")
        until(lambda: "p" in entity_points(platform, "page"), "the page has a point")
        seen = heartbeats(platform)
        assert {(name, beat.run_id, beat.locked) for name, of_type in seen.items() for beat in of_type} == {
            ("task", "living", True),
            ("page", "living", True),
        }
        put_tasks(platform, {"t": "A task"})
        send_looks(platform, "t")
        until(lambda: "t" in entity_points(platform), "the task has a point")

    assert inbox(platform) == []
    assert heartbeats(platform) == {}


def test_what_waited_before_a_drain_began_is_left_to_the_run_asked_for_it_but_not_for_long(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"t": "A task"})
    put_pages(platform, {"p": "A page"})
    send_pages(platform, "p")
    send_looks(platform, "t")
    take_in(platform)

    patient = make_platform(tuning=LEFT)
    assert [batch.entity_type for batch in drain(patient, "task", "run") if batch.messages] == ["task"]
    assert inbox(platform) == ["p"]

    hasty = make_platform(tuning=TAKEN_OVER)
    assert [batch.entity_type for batch in drain(hasty, "task", "run") if batch.messages] == ["page"]
    assert inbox(platform) == []


def test_a_drain_whose_type_is_drained_takes_over_nothing(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_pages(platform, {"p": "A page"})
    send_pages(platform, "p")
    take_in(platform)
    with hold_drain_lock(make_platform(), "task", "other") as alone:
        assert alone
        assert list(drain(make_platform(tuning=TAKEN_OVER), "task", "run")) == []
    assert inbox(platform) == ["p"]


def test_of_two_drains_that_could_take_over_a_type_one_does(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    texts = {f"m{n}": f"Memory {n}" for n in range(60)}
    for entity_id, text in texts.items():
        put(platform, "memory_nodes", id=entity_id, content=text)
    stub.add_fault("latency", times=None, latency_s=0.05)
    with (
        living_drain(make_platform(drain_linger_s=1.5, batch_size=5), "task", "first"),
        living_drain(make_platform(drain_linger_s=1.5, batch_size=5), "page", "second"),
    ):
        send(platform, *(("mcp.memory.node.updated", {"memoryId": entity_id}) for entity_id in texts))
        holders = set()
        while len(entity_points(platform, "memory")) < len(texts):
            locked = {beat.run_id for beat in heartbeats(platform).get("memory", []) if beat.locked}
            assert len(locked) <= 1
            holders |= locked

    assert len(holders) == 1
    assert {stub.times_embedded(text) for text in texts.values()} == {1}


def test_an_error_of_a_type_taken_over_is_reported_and_ends_neither_the_drain_nor_is_it_tried_over_and_over(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    stub.add_fault("insufficient_quota", times=None, contains="broken")
    put_pages(platform, {"p": "A broken page"})
    batches: list[Any] = []
    with closing(drain(make_platform(drain_linger_s=1.5), "task", "run")) as draining:
        worker = threading.Thread(target=lambda: batches.extend(draining))
        worker.start()
        until(lambda: "task" in heartbeats(platform), "the drain lives")
        send_pages(platform, "p")
        until(lambda: any(batch.error for batch in batches), "the drain of pages has failed")
        assert "page" not in heartbeats(platform)
        put_tasks(platform, {"t": "A task"})
        send_looks(platform, "t")
        until(lambda: "t" in entity_points(platform), "the task has a point")
        worker.join()

    (failed,) = [batch for batch in batches if batch.error]
    assert failed.entity_type == "page"
    assert "quota" in str(failed.error)
    assert inbox(platform) == ["p"]
    assert stub.stats()["requests"] == 2


def test_an_error_of_a_drains_own_type_is_raised_once_what_it_took_over_is_worked_off(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make_platform(tuning=TAKEN_OVER, batch_size=1, embedding_concurrency=1, drain_linger_s=1.5)
    pages = {f"p{n}": f"Page {n}" for n in range(40)}
    put_pages(platform, pages)
    put_tasks(platform, {"t": "A broken task"})
    stub.add_fault("latency", times=None, latency_s=0.05)
    real = Indexer.run

    def run(self: Indexer, *args: Any, **options: Any) -> Any:
        if self._type == "task":
            raise CollectionMismatch("made for another model")
        return real(self, *args, **options)

    monkeypatch.setattr(Indexer, "run", run)
    with pytest.raises(CollectionMismatch), closing(drain(own, "task", "run")) as batches:
        send_pages(platform, *pages)
        assert next(batches).entity_type == "page"
        send_looks(platform, "t")
        list(batches)

    assert_points_are(platform, pages, "page")
    assert inbox(platform) == ["t"]
    assert heartbeats(platform) == {}


def test_a_type_that_the_embedder_is_slow_with_keeps_no_other_waiting(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    stub.add_fault("hang", times=None, contains="slow")
    with living_drain(make_platform(drain_linger_s=1)):
        try:
            put_pages(platform, {"p": "A slow page"})
            send_pages(platform, "p")
            until(lambda: stub.stats()["requests"] == 1, "a request hangs")
            put_tasks(platform, {"t": "A task"})
            send_looks(platform, "t")
            until(lambda: "t" in entity_points(platform), "the task has a point")
            assert inbox(platform) == ["p"]
        finally:
            stub.clear_faults()

    assert_points_are(platform, {"p": "A slow page"}, "page")


def test_many_batches_of_several_types_at_once_do_not_starve_each_other_of_connections(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    tuning = replace(TAKEN_OVER, stores=StoreTuning(postgres_timeout_s=2.0))
    own = make_platform(tuning=tuning, batch_size=1, embedding_concurrency=16)
    texts = {f"e{n}": f"Entity {n}" for n in range(60)}
    put_tasks(own, texts)
    put_pages(own, texts)
    for entity_id, text in texts.items():
        put(own, "memory_nodes", id=entity_id, content=text)
    send(own, *(("mcp.memory.node.updated", {"memoryId": entity_id}) for entity_id in texts))
    send_pages(own, *texts)
    send_looks(own, *texts)
    take_in(own)
    stub.add_fault("latency", times=None, latency_s=0.02)

    batches = list(drain(own, "task", "run"))

    assert [batch.error for batch in batches if batch.error] == []
    assert sum(batch.messages for batch in batches) == 180
    assert inbox(own) == []


def test_a_drain_that_is_closed_lets_go_of_every_type_and_what_it_had_not_done_is_in_the_inbox(
    platform: Platform, make_platform: Callable[..., Platform], stub: OpenAIStub
) -> None:
    own = make_platform(tuning=TAKEN_OVER, batch_size=1, embedding_concurrency=1, drain_linger_s=60)
    tasks, pages = {f"t{n}": f"Task {n}" for n in range(40)}, {f"p{n}": f"Page {n}" for n in range(40)}
    put_tasks(own, tasks)
    put_pages(own, pages)
    send_looks(own, *tasks)
    send_pages(own, *pages)
    take_in(own)
    stub.add_fault("latency", times=None, latency_s=0.05)
    with closing(drain(own, "task", "closed")) as batches:
        while next(batches).entity_type != "page":
            pass

    assert heartbeats(platform) == {}
    assert 0 < len(inbox(platform)) < 80
    stub.clear_faults()
    drain_all(platform)
    assert_points_are(platform, tasks)
    assert_points_are(platform, pages, "page")


# Unknown entities.


def drain_batch(platform: Platform) -> Iterator[Any]:
    yield drain_batch_module.drain_batch(platform, "task", Indexer(platform, "task"))


def test_a_delete_of_an_unknown_entity_is_done_and_no_dead_letter(platform: Platform) -> None:
    send(platform, ("mcp.task.deleted", {"taskId": "nobody"}), ("mcp.task.archived", {"taskId": "nobody else"}))
    drain_all(platform)

    assert inbox(platform) == []
    assert dead_letters(platform) == {}
    assert entity_points(platform) == {}


def test_the_dead_letter_of_an_unknown_entity_is_deleted_once_its_row_comes(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        drain_batch_module._dead_letter_unknown(
            platform,
            connection,
            "task",
            [drain_batch_module.InboxRow("entity", "S", 1, 1, "late", "mcp.task.updated", "look", None, "1", 2, None)],
        )
    put_tasks(platform, {"late": "Here at last"})
    sync_all(platform)

    assert dead_letters(platform) == {}


# Order, duplicates, superseded states.


def test_duplicates_and_disorder_in_the_inbox_end_in_what_the_newest_event_says(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = make_platform(batch_size=2, drain_linger_s=0)
    send(
        own,
        ("mcp.task.created", {"taskId": "a", "title": "First"}),
        ("mcp.task.created", {"taskId": "b", "title": "First"}),
        ("mcp.task.updated", {"taskId": "a", "title": "Second"}),
        ("mcp.task.deleted", {"taskId": "b"}),
        ("mcp.task.moved", {"taskId": "a"}),
        ("mcp.task.created", {"taskId": "c", "title": "Only"}),
        ("mcp.task.created", {"taskId": "c", "title": "Only"}),
        ("mcp.task.deleted", {"taskId": "d"}),
        ("mcp.task.restored", {"taskId": "d", "title": "Back"}),
    )
    drain_all(own)

    assert_points_are(own, {"a": "Second", "c": "Only", "d": "Back"})


def test_an_older_event_taken_in_later_changes_nothing(platform: Platform) -> None:
    send(platform, ("mcp.task.created", {"taskId": "a", "title": "Old"}))
    take_in(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.inbox SET not_before = now() + interval '1 hour'")
    send(platform, ("mcp.task.updated", {"taskId": "a", "title": "New"}), ("mcp.task.deleted", {"taskId": "b"}))
    drain_all(platform)
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE mcp_assets.inbox SET not_before = now()")
    drain_all(platform)

    assert inbox(platform) == []
    assert_points_are(platform, {"a": "New"})


def test_an_entity_superseded_while_it_was_embedded_stays_in_the_inbox_until_its_newest_state_is_written(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_platform()
    put_tasks(platform, {"a": "Old words", "b": "Paint it"})
    send_looks(platform, "a", "b")
    take_in(platform)
    real = platform.embedder.embed

    def embed(texts: Any, **options: Any) -> Any:
        put_tasks(other, {"a": "New words"})
        apply(other, "task", [Wanted("a")])
        return real(texts, **options)

    with monkeypatch.context() as patched:
        patched.setattr(platform.embedder, "embed", embed)
        (drained,) = drain_batch(platform)

    assert drained.report.superseded == {"a"}
    assert inbox(platform) == ["a"]
    assert set(entity_points(platform)) == {"b"}
    drain_all(platform)
    assert_points_are(platform, {"a": "New words", "b": "Paint it"})


def test_ids_are_those_of_the_source_however_a_message_spells_them(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE TABLE docs (id uuid PRIMARY KEY, title text, content text)")
        connection.execute("CREATE TABLE issues (id bigint PRIMARY KEY, title text, content text)")
    own = make_platform(
        types={
            "doc": TypeMapping(source=SourceTable(table="docs", metadata={}), collection="docs"),
            "issue": TypeMapping(source=SourceTable(table="issues", metadata={}), collection="issues"),
        },
        drain_linger_s=0,
    )
    name = "0e4ad4b5-6f6e-4d3f-9a51-52b7e8a3f9aa"
    put(own, "docs", id=name, title="A document")
    put(own, "issues", id=7, title="An issue")
    send(
        own,
        ("mcp.doc.updated", {"docId": name.upper()}),
        ("mcp.doc.updated", {"docId": "{" + name + "}"}),
        ("mcp.doc.updated", {"docId": name}),
        ("mcp.issue.updated", {"issueId": 7}),
        ("mcp.issue.updated", {"issueId": "007"}),
        ("mcp.doc.created", {"docId": "not a UUID", "title": "By event"}),
        ("mcp.issue.created", {"issueId": "seven", "title": "By event"}),
        ("mcp.issue.created", {"issueId": "9" * 30, "title": "By event too"}),
    )
    drain_all(own)

    assert set(entity_points(own, "doc", "docs")) == {name, "not a UUID"}
    assert set(entity_points(own, "issue", "issues")) == {"7", "seven", "9" * 30}
    assert dead_letters(own) == {}
    assert sync_all(own, "doc").deleted == sync_all(own, "issue").deleted == 0


# Killed at any instruction.


def test_what_a_killed_drain_had_taken_over_is_done_by_the_next_drain_of_that_type(
    platform: Platform, stub: OpenAIStub
) -> None:
    pages = {f"p{n:02}": f"Page {n:02}" for n in range(60)}
    put_pages(platform, pages)
    stub.add_fault("latency", times=None, latency_s=0.1)
    with subprocess.Popen(
        [sys.executable, "-c", DRAIN_UNTIL_KILLED],
        env=os.environ | environment_of(platform.settings, EMBEDDING_CONCURRENCY="3", MCP_ASSETS_BATCH_SIZE="5"),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        until(lambda: "task" in heartbeats(platform), "the drain lives")
        send_pages(platform, *pages)
        assert process.stdout.readline(), "the drain ended before it was killed"
        assert [(beat.run_id, beat.locked) for beat in heartbeats(platform)["page"]] == [("doomed", True)]
        process.send_signal(signal.SIGKILL)
    assert 0 < len(entity_points(platform, "page")) < 60
    stub.clear_faults()
    until(lambda: not any(beat.locked for beat in heartbeats(platform)["page"]), "the dead drain holds no lock")

    waiting = pending_types(platform, MessageKind.ENTITY)
    assert list(undrained(waiting, [], heartbeats(platform), platform.tuning.inbox)) == ["page"]
    drain_all(platform, "page")

    assert_points_are(platform, pages, "page")
    assert inbox(platform) == []


DRAIN_UNTIL_KILLED = """
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.platform import Platform

platform = Platform(Settings(_env_file=None))
for drained in drain(platform, "task", "doomed"):
    print(drained.messages, flush=True)
"""


def test_a_drain_killed_again_and_again_loses_nothing_duplicates_nothing_and_wastes_only_what_was_in_flight(
    platform: Platform, stub: OpenAIStub
) -> None:
    texts = {f"t{n:03}": f"Task {n:03}" for n in range(600)}
    put_tasks(platform, texts)
    send_looks(platform, *texts)
    stub.add_fault("latency", times=None, latency_s=0.03)
    kills = 2
    for after in range(1, kills + 1):
        with subprocess.Popen(
            [sys.executable, "-c", DRAIN_UNTIL_KILLED],
            env=os.environ | environment_of(platform.settings, EMBEDDING_CONCURRENCY="3", MCP_ASSETS_BATCH_SIZE="20"),
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            for _ in range(after):
                assert process.stdout.readline(), "the drain ended before it was killed"
            process.send_signal(signal.SIGKILL)
    assert 0 < len(entity_points(platform)) < 600
    stub.clear_faults()

    drain_all(platform)

    assert_points_are(platform, texts)
    assert inbox(platform) == []
    assert dead_letters(platform) == {}
    in_flight = (3 + 1) * 20
    assert stub.stats()["texts"] <= 600 + kills * in_flight
    assert {stub.times_embedded(text) for text in texts.values()} <= {1, 2, 3}
