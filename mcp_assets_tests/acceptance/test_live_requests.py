"""Requests about many entities as their senders meet them: messages to a running daemon, answers read from NATS."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil
import pytest

from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.acceptance.live import BATCH_SIZE, CONCURRENCY, TABLES, Live, Message
from mcp_assets_tests.clients import qdrant_at
from mcp_assets_tests.listening import Listener
from mcp_assets_tests.waiting import until

TYPES = list(TABLES)

PATIENCE_S = 120.0

# What Dagster 1.13 does inside itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `__fields__` attribute is deprecated",
    "ignore:Function `AssetSelection.sources` is deprecated",
)


@pytest.fixture(autouse=True)
def quick(live: Live) -> Iterator[None]:
    yield
    live.quick_embedder()


@pytest.fixture(scope="module")
def listener(live: Live) -> Iterator[Listener]:
    assert live.addresses.nats_url is not None
    with Listener(live.addresses.nats_url) as listening:
        yield listening


def request(message_id: str, sync_type: str, *ids: str, **context: Any) -> Message:
    data = {"sync_type": sync_type, "entity_ids": list(ids), "context": context}
    return "data.sync.request", {"message_id": message_id, "source": "test", "data": data}


def test_a_full_sync_asked_for_by_messages_is_one_backfill_that_a_killed_run_does_not_stop(
    live: Live, instance: dg.DagsterInstance, listener: Listener
) -> None:
    live.settings["MCP_ASSETS_SWEEP"] = "false"  # a drain would do it first
    live.start_daemon()
    refs = [EntityRef(name, f"full-{number}") for number in range(120) for name in TYPES]
    live.write_all({ref: (f"Note {ref.id}", f"{ref.type} {ref.id} says so") for ref in refs})
    before = live.embedded()
    live.slow_embedder(0.2)

    live.publish([request("full-1", "full_sync")])
    until(
        lambda: live.embedded()["texts"] >= before["texts"] + 3 * BATCH_SIZE,
        "three batches are embedded",
        within_s=PATIENCE_S,
    )
    live.publish([request("full-1", "full_sync"), request("full-2", "full_sync", entity_types=["page"])])
    pid = until(lambda: live.running_pid(instance), "a run is at work", within_s=PATIENCE_S)
    psutil.Process(pid).kill()
    live.quick_embedder()

    subject, first = listener.answer("full-1", PATIENCE_S)
    assert subject == "data.sync.completed", first
    subject, second = listener.answer("full-2", PATIENCE_S)
    assert subject == "data.sync.completed", second
    # The second came when the first had begun to compare, so that its own followed.
    asked = {reported["data"]["backfill_id"]: reported["data"]["counts"]["scanned"] for reported in (first, second)}
    assert list(asked.values()) == [len(refs), len(refs) // len(TYPES)]
    assert {backfill.backfill_id for backfill in instance.get_backfills()} == set(asked)
    runs = instance.get_runs(dg.RunsFilter.for_backfill(first["data"]["backfill_id"]))
    assert sorted(run.status.value for run in runs) == ["FAILURE", "SUCCESS"]
    live.wait_until_converged()
    after = live.embedded()
    assert after["distinct_texts"] - before["distinct_texts"] == len(refs)
    assert (after["texts"] - before["texts"]) - len(refs) <= (CONCURRENCY + 1) * BATCH_SIZE


def test_each_kind_of_request_is_answered(live: Live, instance: dg.DagsterInstance, listener: Listener) -> None:
    live.start_daemon()
    task, page = EntityRef("task", "answered"), EntityRef("page", "answered-page")
    live.write(task, "Budget", "heron turbine schedule")
    live.write(page, "Plan", "depends on task:answered")
    live.publish(
        [
            request("incremental", "incremental_sync", "answered", str(page), "task:nobody"),
            ("vector.index.request", {"message_id": "index", "data": {"entity_id": task.id, "entity_type": "task"}}),
            (
                "relationship.analyze.request",
                {"message_id": "relate", "data": {"entity_id": page.id, "entity_type": "page"}},
            ),
        ]
    )

    subject, reported = listener.answer("incremental", PATIENCE_S)
    assert subject == "data.sync.completed"
    assert sorted(reported["data"]["entities"]) == [str(page), str(task)]
    assert reported["data"]["unknown"] == ["task:nobody"]
    assert listener.answer("index", PATIENCE_S)[0] == "vector.index.completed"
    subject, reported = listener.answer("relate", PATIENCE_S)
    assert subject == "relationship.analyze.completed"
    assert [one["entity_id"] for one in reported["data"]["entities"]] == [page.id]

    # What Qdrant holds of one is lost behind the platform's back.
    client = qdrant_at(live.addresses)
    try:
        client.delete("kanban_tasks", [str(point_id(task))], wait=True)
    finally:
        client.close()
    live.publish([request("conflict", "conflict_resolution", str(task), str(page))])
    subject, reported = listener.answer("conflict", PATIENCE_S)
    assert subject == "data.sync.completed"
    found = {
        (one["entity"], one["place"], one["difference"]): one["settled"] for one in reported["data"]["differences"]
    }
    assert found[str(task), "qdrant", "missing"] is True
    live.wait_until_converged()


def test_validation_is_answered_on_both_of_its_subjects(live: Live, listener: Listener) -> None:
    live.start_daemon()
    live.publish(
        [
            ("data.validate.request", {"message_id": "validate", "data": {}}),
            request("data-validation", "data_validation", repair=False),
        ]
    )
    subject, reported = listener.answer("validate", PATIENCE_S)
    assert subject == "data.validate.completed", reported
    assert reported["data"]["counts"]["checked"] > 0
    assert listener.answer("data-validation", PATIENCE_S)[0] == "data.sync.completed"


def test_a_request_that_is_none_is_answered_with_the_reason_and_is_a_dead_letter(
    live: Live, listener: Listener
) -> None:
    live.start_daemon()
    bad = {
        "bad-type": request("bad-type", "no_such_sync"),
        "nobody": request("nobody", "incremental_sync", "nobody", "widget:1"),
        "bad-strategy": request("bad-strategy", "conflict_resolution", "nobody", strategy="mine"),
        "too-many": request("too-many", "incremental_sync", *(f"nobody-{number}" for number in range(20_000))),
        "no-entity": ("vector.index.request", {"message_id": "no-entity", "data": {"entity_type": "task"}}),
    }
    live.publish(list(bad.values()))
    reported = {name: listener.answer(name, PATIENCE_S) for name in bad}
    assert {name: subject for name, (subject, _) in reported.items()} == {
        **dict.fromkeys(bad, "data.sync.failed"),
        "no-entity": "vector.index.failed",
    }
    assert all(body["data"]["error"] for _, body in reported.values())
    letters = {letter["data"]["requests"][0] for letter in listener.all("mcp_assets.dead_letter", len(bad), PATIENCE_S)}
    assert letters == set(bad)
