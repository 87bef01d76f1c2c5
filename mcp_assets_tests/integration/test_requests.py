"""Requests about many entities: worked off once, whatever happens, and each answered on NATS."""

from collections.abc import Iterator
from typing import Any

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.validation import Validation
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.inbox.outbox import publish_waiting
from mcp_assets.sync.requests import full_sync_requests, sync_requests
from mcp_assets.sync.requests.sync_requests import Answer, answer_requests
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    put,
    put_tasks,
    remove,
    rows,
    send,
    take_in,
    without_linger,
)
from mcp_assets_tests.openai_stub import REFUSE_MARKER, OpenAIStub


@pytest.fixture
def listener(platform: Platform) -> Iterator[Listener]:
    with Listener(platform.settings.require_nats_url()) as listening:
        yield listening


def ask(platform: Platform, sync_type: str, *ids: str, message_id: str | None = "m-1", **context: Any) -> None:
    data = {"sync_type": sync_type, "entity_ids": list(ids), "context": context}
    send(platform, ("data.sync.request", {"message_id": message_id, "data": data}))


def answers(platform: Platform, kind: MessageKind = MessageKind.SYNC) -> list[Answer]:
    take_in(platform)
    return list(answer_requests(platform, kind, "test"))


def inbox_size(platform: Platform) -> int:
    return int(rows(platform, "SELECT count(*) FROM {schema}.inbox")[0][0])


def test_an_incremental_sync_brings_just_the_named_entities_up_to_date_from_their_rows(
    platform: Platform, stub: OpenAIStub, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one", "t2": "two", "t3": "three"})
    put(platform, "wiki_pages", id="p1", title="Page", content="depends on task:t1")
    ask(platform, "incremental_sync", "t1", "task:t2", "page:p1")

    (answer,) = answers(platform)

    assert answer.error is None
    assert_points_are(platform, {"t1": "one", "t2": "two"})
    assert stub.stats()["texts"] == 3
    reported = listener.one("data.sync.completed")
    assert reported["correlation_id"] == "m-1"
    assert reported["data"]["entities"] == ["task:t1", "task:t2", "page:p1"]
    assert reported["data"]["counts"]["embedded"] == 3
    assert rows(platform, "SELECT DISTINCT source_id, target_id FROM public.relationships WHERE source_id = 'p1'") == [
        ("p1", "t1")
    ]
    assert inbox_size(platform) == 0


def test_a_bare_id_names_the_entities_of_every_type_that_have_it(platform: Platform) -> None:
    put_tasks(platform, {"same": "a task"})
    put(platform, "memory_nodes", id="same", title="a memory", content="")
    ask(platform, "incremental_sync", "same")
    (answer,) = answers(platform)
    assert answer.result["entities"] == ["task:same", "memory:same"]


def test_unknown_ids_are_reported_and_a_request_of_nothing_else_fails_with_the_reason(
    platform: Platform, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "t1", "task:nobody", "widget:7", message_id="some")
    ask(platform, "incremental_sync", "nobody", "widget:7", message_id="none")

    answers(platform)

    assert listener.one("data.sync.completed")["data"]["unknown"] == ["task:nobody", "widget:7"]
    failed = listener.one("data.sync.failed")
    assert failed["correlation_id"] == "none"
    assert "none of the 2 entities" in failed["data"]["error"]
    assert dead_letters(platform) == {"2": "request_failed"}


def test_a_row_that_is_gone_ends_its_entity_and_a_refused_text_is_reported(
    platform: Platform, stub: OpenAIStub, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one", "t2": "two"})
    ask(platform, "incremental_sync", "t1", "t2")
    answers(platform)
    remove(platform, "tasks", "t1")
    put_tasks(platform, {"t2": REFUSE_MARKER})
    listener.clear()
    ask(platform, "incremental_sync", "t1", "t2")

    answers(platform)

    reported = listener.one("data.sync.completed")["data"]
    assert reported["entities"] == ["task:t1"]
    assert reported["counts"]["deleted"] == 1
    assert [one["entity"] for one in reported["failed"]] == ["task:t2"]


def test_ids_that_do_not_fit_a_message_are_cut_off_with_a_count(platform: Platform, listener: Listener) -> None:
    long = [f"{'x' * 480}{number}" for number in range(1_900)]
    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "t1", *long)
    (answer,) = answers(platform)
    reported = listener.one("data.sync.completed")["data"]
    assert len(answer.result["unknown"]) == 1_900
    assert len(reported["unknown"]) + reported.get("omitted", {}).get("unknown", 0) == 1_900


def test_a_full_sync_is_asked_for_once_however_often_its_message_comes(platform: Platform, listener: Listener) -> None:
    ask(platform, "full_sync", message_id="again")
    ask(platform, "full_sync", message_id="again")
    ask(platform, "full_sync", message_id="other", entity_types=["tasks"])
    answers(platform)
    (sync,) = full_sync_requests.unfinished(platform)
    assert sync.entity_types == ["task", "page", "memory"]

    full_sync_requests.finish(platform, sync, None)
    assert [one["correlation_id"] for one in listener.all("data.sync.completed", 3)] == [
        "again",
        "again",
        "other",
    ]

    ask(platform, "full_sync", message_id="again")
    answers(platform)
    assert full_sync_requests.unfinished(platform) == []
    assert listener.all("data.sync.completed", 4)[-1]["data"]["backfill_id"] == sync.id

    ask(platform, "full_sync", message_id="a new one", entity_types=["page"], force=True)
    answers(platform)
    (sync,) = full_sync_requests.unfinished(platform)
    assert (list(sync.entity_types), sync.force) == (["page"], True)


@pytest.mark.parametrize(
    ("sync_type", "context", "reason"),
    [
        ("full_sync", {"entity_types": ["widget"]}, "widget"),
        ("full_sync", {"entity_types": "task"}, "must be a list"),
        ("full_sync", {"force": "yes"}, "context.force"),
        ("conflict_resolution", {"strategy": "mine"}, "source, newest, report"),
        ("data_validation", {"repair": 1}, "context.repair"),
    ],
)
def test_a_request_that_cannot_be_done_as_it_stands_is_answered_with_what_is_wrong(
    platform: Platform, listener: Listener, sync_type: str, context: dict[str, Any], reason: str
) -> None:
    put_tasks(platform, {"t1": "one"})
    ask(platform, sync_type, "t1", **context)
    answers(platform)
    assert reason in listener.one("data.sync.failed")["data"]["error"]
    assert list(dead_letters(platform).values()) == ["request_failed"]
    assert inbox_size(platform) == 0


def test_a_request_is_put_off_while_a_store_is_silent_and_given_up_in_the_end(
    platform: Platform, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("Qdrant does not answer")

    platform.settings.retry_delay_ms = 600_000
    monkeypatch.setattr(sync_requests, "bring_up_to_date", silent)
    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "t1")
    for attempt in range(1, platform.tuning.requests.tries):
        (answer,) = answers(platform)
        assert (answer.error, answer.is_final) == ("Qdrant does not answer", False)
        assert rows(platform, "SELECT attempts, not_before > now() FROM {schema}.inbox") == [(attempt, True)]
        rows(platform, "UPDATE {schema}.inbox SET not_before = now() RETURNING 1")
    (answer,) = answers(platform)
    assert answer.is_final
    assert listener.one("data.sync.failed")["correlation_id"] == "m-1"
    assert dead_letters(platform) == {"1": "unavailable"}
    assert inbox_size(platform) == 0


def test_a_request_whose_worker_dies_is_there_again(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    put_tasks(platform, {"t1": "one"})
    ask(platform, "incremental_sync", "t1")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sync_requests, "bring_up_to_date", dies)
        answers(platform)
    assert inbox_size(platform) == 1
    (answer,) = answers(platform)
    assert answer.error is None


def test_a_validation_mends_what_it_finds_unless_its_request_says_not_to(
    platform: Platform, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def validate(_: Platform, **given: Any) -> Validation:
        calls.append(given)
        drift = Drift(DriftKind.ORPHAN_VECTOR, EntityRef("task", "t1"), "the entity is not living")
        return Validation(5, {"orphan_vector": 2}, {"orphan_vector": 2}, (drift,))

    monkeypatch.setattr(sync_requests, "validate", validate)
    put_tasks(platform, {"t1": "one"})
    send(platform, ("data.validate.request", {"messageId": "v-1", "data": {}}))
    ask(platform, "data_validation", "t1", repair=False, deep=True)

    answers(platform, MessageKind.VALIDATE)
    answers(platform)

    assert [(call["repair"], call["deep"], call["entities"]) for call in calls] == [
        (True, False, []),
        (False, True, [EntityRef("task", "t1")]),
    ]
    assert calls[1]["entity_types"] == ["task"]
    reported = listener.one("data.validate.completed")
    assert reported["correlation_id"] == "v-1"
    assert reported["data"]["found"] == {"orphan_vector": 2}
    assert reported["data"]["examples"] == [
        {"kind": "orphan_vector", "entity": "task:t1", "detail": "the entity is not living"}
    ]
    assert listener.one("data.sync.completed")["data"]["sync_type"] == "data_validation"


def test_index_requests_are_answered_with_what_was_done_and_what_was_not(
    platform: Platform, stub: OpenAIStub, listener: Listener
) -> None:
    put_tasks(platform, {"t1": "one", "t2": REFUSE_MARKER})
    send(
        platform,
        *(
            ("vector.index.request", {"message_id": f"i-{name}", "data": {"entity_id": name, "entity_type": "task"}})
            for name in ("t1", "t2")
        ),
    )
    take_in(platform)
    list(drain(without_linger(platform), "task", "test"))
    publish_waiting(platform)

    completed = listener.one("vector.index.completed")
    assert completed["correlation_id"] == "i-t1"
    assert completed["data"]["entities"] == ["task:t1"]
    assert completed["data"]["counts"]["embedded"] == 1
    failed = listener.one("vector.index.failed")
    assert failed["correlation_id"] == "i-t2"
    assert [one["entity"] for one in failed["data"]["failed"]] == ["task:t2"]
