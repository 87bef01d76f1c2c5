"""The plan says what the full sync then does, and writes nothing."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedding.profiles import ModelProfile, profile_for
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import CollectionNotOurs
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.link.marks import mark_shards
from mcp_assets.sync.views.plan import Plan, make_plan, model_named, partitions_named
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import points, put, put_tasks, remove, rows, sync_all
from mcp_assets_tests.openai_stub import vector_of

FAKE = profile_for("fake", dimension=16)
LONG = "A long paragraph about gates.\n\n" * 600
Make = Callable[..., Platform]


class CountingEmbedder:
    """Embeds in this process and keeps what it is sent."""

    def __init__(self, profile: ModelProfile = FAKE) -> None:
        self.profile = profile
        self.concurrency = 2
        self.sent: list[str] = []
        self._lock = threading.Lock()

    def embed(
        self, texts: Sequence[str], *, stopping: threading.Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        with self._lock:
            self.sent += texts
        outcomes = [EmbeddingOutcome(self.embed_query(text), None) for text in texts]
        return EmbeddingResult(outcomes, sum(len(text.encode()) for text in texts) // 2)

    def embed_query(self, text: str) -> Vector:
        return vector_of(text, self.profile.dimension)

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def embedder() -> CountingEmbedder:
    return CountingEmbedder()


@pytest.fixture
def counted(make_platform: Make, embedder: CountingEmbedder) -> Platform:
    """A platform with source tables, whose embedder counts."""
    own = make_platform(embedder=embedder)
    create_source_tables(own)
    return own


def everything(platform: Platform, *types: str) -> dict[str, range]:
    return dict.fromkeys(types or platform.settings.entity_types, range(platform.settings.shards))


def contents(platform: Platform) -> dict[str, object]:
    """All that the stores hold: each table of the platform and beside it, and each collection."""
    held: dict[str, object] = {"aliases": platform.qdrant.aliases()}
    names = rows(
        platform, "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', %s)", "mcp_assets"
    )
    with platform.postgres.transaction() as connection:
        for name in names:
            statement = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(*name))
            held[".".join(name)] = connection.execute(statement).fetchall()
    for collection in platform.qdrant.collections():
        held[collection] = sorted((key, str(point.payload)) for key, point in points(platform, collection).items())
    return held


def planned(platform: Platform, *types: str, **how: Any) -> Plan:
    """The plan, of which is asserted that it changed nothing."""
    before = contents(platform)
    plan = make_plan(platform, everything(platform, *types), **how)
    assert contents(platform) == before
    return plan


def sync_as_planned(platform: Platform, embedder: CountingEmbedder, *, force: bool = False) -> Plan:
    """Plan and do a full sync of tasks, and assert that it did what the plan said."""
    plan = planned(platform, "task", force=force)
    embedder.sent.clear()
    counts: Counts = sync_all(platform, force=force)
    total = plan.total()
    sent = plan.models[0].texts if plan.models else 0
    distinct = plan.models[0].distinct_texts if plan.models else 0
    assert (len(embedder.sent), len(set(embedder.sent))) == (sent, distinct)
    done = (counts.embedded, counts.updated, counts.deleted, counts.empty)
    assert done == (total.embed, total.update, total.delete, total.empty)
    assert counts.failed == total.refused
    mark_shards(platform, "task", range(platform.settings.shards), force=force)
    marked = rows(platform, "SELECT count(DISTINCT entity_id) FROM {schema}.relink_marks WHERE entity_type = 'task'")
    assert marked == [(total.link,)]
    return plan


def test_the_full_sync_does_what_the_plan_said(counted: Platform, embedder: CountingEmbedder) -> None:
    put_tasks(counted, {f"t{number:02}": f"Task {number % 20}" for number in range(30)})
    put(counted, "tasks", id="long", title="Long", description=LONG)
    put(counted, "tasks", id="empty", title=" ", description="")

    first = sync_as_planned(counted, embedder)
    assert first.total().embed == 31
    # Ten tasks have the text of another one; the long text has chunks, of which some are equal.
    assert 21 < first.models[0].distinct_texts < first.models[0].texts < first.total().texts
    assert first.builds == ["kanban_tasks__fake_16"]
    relink(counted)

    assert sync_as_planned(counted, embedder).total().link == 0

    put(counted, "tasks", id="t01", title="Task 1", priority="high")
    put(counted, "tasks", id="t02", title="Another text")
    put(counted, "tasks", id="t03", title="Task 3", created_at="2020-01-01")
    put(counted, "tasks", id="long", title="Short", description="by now")
    put(counted, "tasks", id="empty", title="Not empty any more")
    put(counted, "tasks", id="t04", title="", description=None)
    put(counted, "tasks", id="new", title="New")
    remove(counted, "tasks", "t05", "t06")
    then = sync_as_planned(counted, embedder)
    assert (then.total().embed, then.total().update, then.total().delete, then.total().empty) == (4, 1, 2, 1)
    assert then.models[0].distinct_texts == 4
    relink(counted)

    forced = sync_as_planned(counted, embedder, force=True)
    assert forced.models[0].texts > forced.models[0].distinct_texts


def test_the_plan_is_that_of_each_partition(counted: Platform, embedder: CountingEmbedder) -> None:
    put_tasks(counted, {f"t{number:02}": f"Task {number}" for number in range(40)})
    whole = {(part.entity_type, part.shard): part for part in planned(counted).partitions}
    assert len(whole) == 3 * counted.settings.shards
    chosen = partitions_named(counted.settings, counted.settings.entity_types, ["task-03", "task-01"])
    some = make_plan(counted, chosen)

    assert [(part.entity_type, part.shard) for part in some.partitions] == [("task", 1), ("task", 3)]
    assert all(part == whole[part.entity_type, part.shard] for part in some.partitions)
    assert sum(part.embed for part in whole.values()) == 40
    with pytest.raises(ValueError, match="no partition 'task-09': one of task-00"):
        partitions_named(counted.settings, ["task"], ["task-09"])


def test_a_vanished_collection_is_planned_to_be_filled_again(counted: Platform, embedder: CountingEmbedder) -> None:
    put_tasks(counted, {f"t{number}": f"Task {number}" for number in range(12)})
    sync_as_planned(counted, embedder)
    relink(counted)
    counted.qdrant.drop_collection("kanban_tasks__fake_16")

    assert sync_as_planned(counted, embedder).models[0].texts == 12


def test_a_changed_mapping_embeds_the_texts_that_differ_alone(
    counted: Platform, embedder: CountingEmbedder, make_platform: Make
) -> None:
    put_tasks(counted, {f"t{number}": f"Task {number}" for number in range(12)})
    put(counted, "tasks", id="t3", title="Task 3", description="with a description")
    sync_as_planned(counted, embedder)
    relink(counted)
    source = SourceTable(table="tasks", content=())
    changed = make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=source)}, embedder=embedder)

    plan = sync_as_planned(changed, embedder)
    # The other rows lose metadata that the new mapping does not name.
    assert (plan.models[0].texts, plan.total().embed) == (1, 1)


def test_another_number_of_shards_embeds_nothing(
    counted: Platform, embedder: CountingEmbedder, make_platform: Make
) -> None:
    put_tasks(counted, {f"t{number}": f"Task {number}" for number in range(12)})
    sync_as_planned(counted, embedder)
    relink(counted)
    resharded = make_platform(embedder=embedder, shards=7)

    plan = planned(resharded)
    assert (len(plan.partitions), plan.models, plan.total().link) == (21, [], 0)


@pytest.mark.parametrize("kept", [True, False], ids=["the old model configured", "frozen"])
def test_a_change_of_model_is_planned_before_anything_is_made(
    make_platform: Make, platform: Platform, embedder: CountingEmbedder, kept: bool
) -> None:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(12)})
    sync_all(platform)
    relink(platform)
    put(platform, "tasks", id="t1", title="Changed meanwhile")
    previous = {"previous_model": "stub", "previous_dimension": 16} if kept else {}
    changed = make_platform(embedder=embedder, **previous)

    plan = planned(changed, "task")
    by_model = {model.model: model.texts for model in plan.models}
    assert by_model == {"fake": 12, **({"stub": 1} if kept else {})}
    assert plan.builds == ["kanban_tasks__fake_16"]
    assert plan.total().link == 12
    sync_all(changed)
    assert len(embedder.sent) == len(set(embedder.sent)) == 12

    # By another model than that of the settings, before they are changed.
    asked = planned(changed, "task", profile=model_named("third", 8))
    assert {model.model: model.texts for model in asked.models} == {"third": 12}


def test_a_plan_for_another_model_needs_no_setting(platform: Platform) -> None:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(12)})
    sync_all(platform)

    plan = planned(platform, "task", profile=model_named("text-embedding-3-small", None))
    (model,) = plan.models
    assert (model.model, model.dimension, model.texts, model.seconds) == ("text-embedding-3-small", 1536, 12, None)
    assert model.usd is not None
    assert 0 < model.usd < 0.01
    assert plan.builds == ["kanban_tasks__text-embedding-3-small_1536"]


def test_tables_in_another_database_are_planned_too(
    make_platform: Make, embedder: CountingEmbedder, settings: Settings
) -> None:
    own = settings.require_database_url()
    with psycopg.connect(own, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)")
        connection.execute("CREATE DATABASE elsewhere")
    url = own.replace("/test?", "/elsewhere?")
    away = make_platform(embedder=embedder, source_database_url=SecretStr(url))
    create_source_tables(away)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tasks (id, title) SELECT 't' || n, 'Task ' || n % 9 FROM generate_series(1, 30) n"
        )

    assert sync_as_planned(away, embedder).models[0].distinct_texts == 9


def test_deletions_that_a_person_has_to_allow_are_held_back(counted: Platform, embedder: CountingEmbedder) -> None:
    put_tasks(counted, {f"t{number}": f"Task {number}" for number in range(60)})
    sync_as_planned(counted, embedder)
    rows(counted, "DELETE FROM tasks RETURNING id")

    plan = planned(counted, "task")
    assert plan.total().delete == 0
    assert "60 of 60 entities of the type task would be removed" in plan.held_back[0]


def test_rows_that_cannot_be_entities_are_counted_as_refused(
    make_platform: Make, platform: Platform, embedder: CountingEmbedder
) -> None:
    put_tasks(platform, {"t1": "Sound"})
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE VIEW v AS SELECT id, title FROM tasks UNION ALL SELECT NULL, 'x'")
    source = SourceTable(table="v", content=())
    own = make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=source)}, embedder=embedder)

    assert sync_as_planned(own, embedder).total().refused == 1


def test_a_collection_of_others_ends_the_plan_as_it_would_end_the_sync(counted: Platform) -> None:
    from qdrant_client import models

    client = qdrant_of(counted.settings)
    try:
        client.create_collection("kanban_tasks", models.VectorParams(size=4, distance=models.Distance.COSINE))
        client.upsert("kanban_tasks", [models.PointStruct(id=1, vector=[1.0, 0, 0, 0], payload={"x": 1})], wait=True)
    finally:
        client.close()
    with pytest.raises(CollectionNotOurs, match="kanban_tasks"):
        make_plan(counted, everything(counted, "task"))


def test_time_and_tokens_are_those_that_full_syncs_measured(counted: Platform, embedder: CountingEmbedder) -> None:
    put_tasks(counted, {f"t{number:03}": f"Task {number:03}" for number in range(100)})
    (before,) = planned(counted, "task").models
    assert (before.seconds, before.tokens_are_measured, before.runs_measured) == (None, False, 0)
    assert before.tokens == -(-100 * len("Task 000") // 4)
    sync_all(counted)
    put_tasks(counted, {f"u{number:03}": f"Word {number:03}" for number in range(10)})

    (after,) = planned(counted, "task").models
    # The embedder counts a token for two bytes.
    assert (after.tokens, after.tokens_are_measured, after.runs_measured) == (40, True, 1)
    assert after.seconds is not None
    assert after.texts_per_s is not None
    assert after.seconds == pytest.approx(10 / after.texts_per_s)


def test_a_price_that_is_set_counts_for_the_model_of_the_settings(
    make_platform: Make, embedder: CountingEmbedder
) -> None:
    priced = make_platform(embedder=embedder, embedding_price=1_000_000.0)
    create_source_tables(priced)
    put_tasks(priced, {"t": "12345678"})

    assert [model.usd for model in planned(priced, "task").models] == [2.0]
    assert [model.usd for model in planned(priced, "task", profile=model_named("other", 8)).models] == [None]


def test_few_texts_are_not_measured(counted: Platform) -> None:
    put_tasks(counted, {"t": "alone"})
    sync_all(counted)
    assert rows(counted, "SELECT count(*) FROM {schema}.embedding_rates") == [(0,)]
