"""PostgreSQL restored from a backup, beside a Qdrant and a stream that are newer, older or gone (I2, I3, I8, I12).

docs/how-to/backup.md says what the platform does by itself and what a person does; here it is done, in each cell.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import SecretStr
from qdrant_client import models

import mcp_assets
from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests import pg_tools
from mcp_assets_tests.clients import key_in, qdrant_of
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.nats_servers import Server
from mcp_assets_tests.observing import (
    dead_letters,
    drain_all,
    entity_points,
    ledger,
    look_again,
    put,
    put_tasks,
    remove,
    send,
    sync_all,
    take_in,
)
from mcp_assets_tests.openai_stub import OpenAIStub

Age = Literal["newer", "older", "gone"]

DIMENSION = 16

TYPES = ("task", "page", "memory")
LOOKS = 3
"""Rechecks of an event about an unknown entity, before it becomes a dead letter."""

KEPT_TASKS = [f"kept-{n}" for n in range(4)]


@dataclass(frozen=True)
class QdrantState:
    """What a Qdrant holds of ours: the points of each collection."""

    points: dict[str, list[models.PointStruct]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "nats", "server_name: ours")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def start(make_platform: Callable[..., Platform], server: Server) -> Callable[[], Platform]:
    """Starts the platform: all of it is stopped while a store is restored."""
    return lambda: make_platform(nats_url=SecretStr(server.url), shards=2, similarity_threshold=0.5)


@pytest.fixture
def place(settings: Settings, server: Server, stub: OpenAIStub, tmp_path: Path) -> Place:
    """Where a person calls the command."""
    return Place(
        tmp_path,
        bare_environment()
        | {
            "DATABASE_URL": settings.require_database_url(),
            "NATS_URL": server.url,
            "QDRANT_URL": settings.require_qdrant_url(),
            "QDRANT_API_KEY": key_in(settings),
            "EMBEDDING_PROVIDER": "openai",
            "OPENAI_BASE_URL": stub.base_url,
            "EMBEDDING_MODEL": settings.embedding_model or "",
            "EMBEDDING_DIMENSION": str(settings.embedding_dimension),
            "MCP_ASSETS_SHARDS": "2",
            "SIMILARITY_THRESHOLD": "0.5",
        },
    )


def before_all(platform: Platform) -> None:
    """The state of which an older Qdrant and an older stream are."""
    create_source_tables(platform)
    platform.nats.ensure_stream(platform.settings.streams[0])
    for name in KEPT_TASKS:
        put(platform, "tasks", id=name, title=f"Task {name} about gates", tags=["gates"])
    put(platform, "wiki_pages", id="p", title="Gates", content="How gates are mended: task:kept-1")
    put(platform, "tasks", id="gone-before", title="Task that the backup does not have any more")
    send(platform, ("mcp.memory.stored", {"memoryId": "heard", "content": "Heard of gates first"}))
    at_rest(platform)


def until_the_backup(platform: Platform) -> None:
    put(platform, "tasks", id="kept-1", title="Task kept-1 about fences")
    put(platform, "tasks", id="in-backup", title="Task that the backup has, after task:kept-0")
    remove(platform, "tasks", "gone-before")
    send(
        platform,
        ("mcp.memory.stored", {"memoryId": "heard", "content": "Heard of gates before the backup"}),
        ("mcp.memory.stored", {"memoryId": "heard-of-fences", "content": "Heard of fences"}),
    )
    at_rest(platform)


def after_the_backup(platform: Platform) -> None:
    put(platform, "tasks", id="kept-1", title="Task kept-1 about walls")
    put(platform, "tasks", id="kept-2", title="Task kept-2 about gates", status="done")
    put(platform, "tasks", id="late", title="Task that the backup does not have yet")
    remove(platform, "tasks", "in-backup", "kept-3")
    send(
        platform,
        ("mcp.task.updated", {"taskId": "kept-1"}),
        ("mcp.task.created", {"taskId": "late"}),
        ("mcp.task.deleted", {"taskId": "in-backup"}),
        ("mcp.memory.stored", {"memoryId": "heard", "content": "Heard of walls after the backup"}),
        ("mcp.memory.stored", {"memoryId": "heard-late", "content": "Heard after the backup only"}),
        ("mcp.memory.deleted", {"memoryId": "heard-of-fences"}),
    )
    at_rest(platform)


def at_rest(platform: Platform) -> None:
    """What sensors and their runs do: take in, drain, the full syncs that are wanted, look again, link."""
    drain_all(platform)
    for entity_type in TYPES:
        sync_all(platform, entity_type)
    for _ in link_until_done(platform):
        pass


def qdrant_state(platform: Platform) -> QdrantState:
    client = qdrant_of(platform.settings)
    try:
        names = [one.name for one in client.get_collections().collections]
        return QdrantState(
            {
                name: [
                    models.PointStruct(id=one.id, vector=one.vector, payload=one.payload)  # type: ignore[arg-type]
                    for one in client.scroll(name, limit=1000, with_payload=True, with_vectors=True)[0]
                ]
                for name in names
            }
        )
    finally:
        client.close()


def set_qdrant(settings: Settings, state: QdrantState | None) -> None:
    """Put the points of `state` in place of all others; None: no collection is left."""
    client = qdrant_of(settings)
    try:
        for one in client.get_collections().collections:
            if state is None:
                client.delete_collection(one.name)
                continue
            client.delete(one.name, models.Filter(must_not=[models.HasIdCondition(has_id=[])]), wait=True)
            if state.points.get(one.name):
                client.upsert(one.name, state.points[one.name], wait=True)
    finally:
        client.close()


def truth(platform: Platform) -> dict[str, Any]:
    """The texts of the entities that live, by the ledger."""
    return {
        f"{entity_type}:{entity_id}": row["title"] or row["content"]
        for entity_type in TYPES
        for entity_id, row in ledger(platform, entity_type).items()
        if not row["deleted"]
    }


PAGE = Path(mcp_assets.__file__).parents[1] / "docs" / "how-to" / "backup.md"


def test_the_page_backs_up_and_restores_with_the_options_that_are_tested_here() -> None:
    page = PAGE.read_text()
    assert f'{" ".join(pg_tools.DUMP)} --file mcp.dump "$DATABASE_URL"' in page
    assert f'{" ".join(pg_tools.RESTORE)} --dbname "$DATABASE_URL" mcp.dump' in page


BY_THE_BACKUP = {
    **{f"task:kept-{n}": f"Task kept-{n} about gates" for n in (0, 2, 3)},
    "task:kept-1": "Task kept-1 about fences",
    "task:in-backup": "Task that the backup has, after task:kept-0",
    "page:p": "Gates",
}
"""The entities with a source row."""

BY_EVENTS: dict[Age, dict[str, str]] = {
    "newer": {"memory:heard": "Heard of walls after the backup", "memory:heard-late": "Heard after the backup only"},
    "older": {"memory:heard": "Heard of gates before the backup", "memory:heard-of-fences": "Heard of fences"},
    "gone": {"memory:heard": "Heard of gates before the backup", "memory:heard-of-fences": "Heard of fences"},
}
"""The entities that live by events alone, by the age of the stream: what it still holds is read again."""

EMBEDDED: dict[tuple[Age, Age], set[str]] = {
    # What a newer Qdrant holds of another text, or not at all. What the stream brings again is embedded again.
    ("newer", "newer"): {"task:kept-1", "task:in-backup", "task:kept-3", "memory:heard", "memory:heard-late"},
    ("newer", "older"): {"task:kept-1", "task:in-backup", "task:kept-3", "memory:heard", "memory:heard-of-fences"},
    ("older", "newer"): {"task:kept-1", "task:in-backup", "memory:heard", "memory:heard-late"},
    ("older", "older"): {"task:kept-1", "task:in-backup", "memory:heard", "memory:heard-of-fences"},
    ("gone", "newer"): {*BY_THE_BACKUP, *BY_EVENTS["newer"]},
    ("gone", "older"): {*BY_THE_BACKUP, *BY_EVENTS["older"]},
}
"""By the ages of Qdrant and of the stream, the entities whose texts are paid for again. A stream that is gone brings
as little back as an older one."""


@pytest.mark.parametrize("stream", ["newer", "older", "gone"])
@pytest.mark.parametrize("qdrant", ["newer", "older", "gone"])
def test_a_database_from_a_backup_and_stores_of_another_time_come_to_what_the_backup_says(
    qdrant: Age,
    stream: Age,
    start: Callable[[], Platform],
    place: Place,
    server: Server,
    stub: OpenAIStub,
    settings: Settings,
    tmp_path: Path,
) -> None:
    platform = start()
    before_all(platform)
    oldest = qdrant_state(platform)
    server.keep()
    until_the_backup(platform)
    assert truth(platform) == BY_THE_BACKUP | BY_EVENTS["older"]
    pg_tools.dump(settings, tmp_path / "mcp.dump")
    after_the_backup(platform)

    # All of the platform is stopped. PostgreSQL is restored on another server, the other stores are set back or lost.
    platform.close()
    pg_tools.restore(settings, tmp_path / "mcp.dump")
    if qdrant != "newer":
        set_qdrant(settings, oldest if qdrant == "older" else None)
    if stream == "older":
        server.set_back()
    elif stream == "gone":
        server.lose_all()
    stub.reset_stats()

    refused = place.run("status")
    assert (refused.code, "`mcp-assets accept postgres`" in refused.stderr) == (3, True)
    assert place.run("accept", "postgres").code == 0

    # What the platform does by itself: it reads the stream, and asks for full syncs where it was set back or is gone.
    platform = start()
    take_in(platform)
    assert set(wanted_full_syncs(platform)) == (set() if stream == "newer" else set(TYPES))
    drain_all(platform, *TYPES)
    for _ in range(LOOKS):
        look_again(platform)
        drain_all(platform, "task")

    # What a person does. An event of a task that the backup does not have is a dead letter, as of any unknown entity.
    assert dead_letters(platform) == ({"late": "unknown_entity"} if stream == "newer" else {})
    assert place.run("dlq", "purge", "--kind", "unknown_entity", "--yes").code == 0
    synced = place.run("sync", "--full")
    assert synced.code == 0, synced.stderr
    assert wanted_full_syncs(platform) == {}
    repaired = place.run("validate", "--repair")
    assert repaired.code == 0, repaired.stderr
    deep = place.answer("validate", "--deep")
    assert deep["found"] == {}

    assert truth(platform) == BY_THE_BACKUP | BY_EVENTS[stream]
    living = truth(platform)
    for entity_type in TYPES:
        ids = {name.partition(":")[2] for name in living if name.startswith(f"{entity_type}:")}
        assert entity_points(platform, entity_type).keys() == ids
    paid = EMBEDDED[qdrant, "newer" if stream == "newer" else "older"]
    assert stub.stats()["texts"] == len(paid), stub.stats()


def test_a_change_of_model_that_ended_after_the_backup_stands_and_no_text_is_paid_for_again(
    make_platform: Callable[..., Platform], place: Place, stub: OpenAIStub, settings: Settings, tmp_path: Path
) -> None:
    old = make_platform(shards=2)
    create_source_tables(old)
    put_tasks(old, {name: f"Task {name}" for name in KEPT_TASKS})
    sync_all(old)
    pg_tools.dump(settings, tmp_path / "mcp.dump")
    changed = make_platform(shards=2, embedding_model="other", previous_model="stub", previous_dimension=DIMENSION)
    for entity_type in TYPES:
        sync_all(changed, entity_type)
    assert changed.qdrant.alias_target("kanban_tasks") == f"kanban_tasks__other_{DIMENSION}"

    for platform in (old, changed):
        platform.close()
    pg_tools.restore(settings, tmp_path / "mcp.dump")
    stub.reset_stats()
    new_model = {"EMBEDDING_MODEL": "other", "NATS_URL": settings.require_nats_url()}
    assert place.run("accept", "postgres", given=new_model).code == 0
    synced = place.run("sync", "--full", given=new_model)
    assert synced.code == 0
    repaired = place.run("validate", "--repair", given=new_model)
    assert repaired.code == 0
    assert place.answer("validate", "--deep", given=new_model)["found"] == {}
    assert stub.stats()["texts"] == 0
