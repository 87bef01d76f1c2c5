"""Doctor: each part of a mapping is tried by itself, and what hangs on a failed check is not tried."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.js import JetStreamContext
from pydantic import SecretStr

from mcp_assets.entities.registry import SOURCE_PRESETS, SourceTable
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.source_tables.examine import Examined, examine
from mcp_assets.sync.views import doctor
from mcp_assets.sync.views.doctor import Diagnosis, diagnose, failures
from mcp_assets_tests.nats_servers import on_jetstream
from mcp_assets_tests.observing import put_tasks, sync_all

Diagnosed = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def diagnosed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Diagnosed:
    def run(**changes: Any) -> dict[str, Diagnosis]:
        changed = settings.model_copy(update=changes)
        changed.__dict__.pop("entity_types", None)
        monkeypatch.setattr(doctor, "load_settings", lambda: changed)
        return {one.name: one for one in diagnose()}

    return run


def examined(platform: Platform, mapping: SourceTable) -> Examined:
    with platform.postgres.transaction() as connection:
        return examine(mapping, "mcp_assets", connection)


def test_a_sound_platform_is_tried_once_in_every_part(platform: Platform, diagnosed: Diagnosed) -> None:
    put_tasks(platform, {"t1": "A task"})
    sync_all(platform)
    before = platform.nats.state(platform.settings.streams[0])
    found = diagnosed()

    assert {one.state for one in found.values()} == {"ok"}
    assert list(found) == [
        "settings", "postgres", "source task", "source page", "source memory", "relationships", "nats", "streams",
        "publish", "qdrant", "collections", "model change", "embedder", "search",
    ]  # fmt: skip
    assert found["source task"].message.startswith("table tasks, 1 living rows of 1")
    assert "no rows yet" in found["source page"].message
    assert "Qdrant 1." in found["qdrant"].message
    assert "task:t1" in found["search"].message
    # The test message left nothing behind.
    assert platform.nats.state(platform.settings.streams[0]) == before


def test_what_hangs_on_a_failed_check_is_not_tried(platform: Platform, diagnosed: Diagnosed) -> None:
    found = diagnosed(qdrant_url="http://127.0.0.1:1")
    assert {name: one.state for name, one in found.items() if one.state != "ok"} == {
        "qdrant": "bad",
        "collections": "not tried",
        "search": "not tried",
    }
    assert found["collections"].message == "it needs qdrant"
    assert failures(list(found.values())) == 1


def test_a_subject_that_no_stream_takes_is_named(settings: Settings, diagnosed: Diagnosed) -> None:
    async def add(js: JetStreamContext) -> None:
        await js.add_stream(name="SITE", subjects=["mcp.>", "data.sync.request"])

    on_jetstream(settings.require_nats_url(), add)
    message = diagnosed(streams=("SITE",), create_stream=False)["streams"].message
    assert "No stream takes vector.index.request, relationship.analyze.request, data.validate.request:" in message


def test_a_published_change_feed_without_a_stream_is_wrong(settings: Settings, diagnosed: Diagnosed) -> None:
    assert diagnosed(publish_changes=True)["change feed"].state == "bad"

    async def add(js: JetStreamContext) -> None:
        await js.add_stream(name="SITE", subjects=["mcp_assets.changes.>"])

    on_jetstream(settings.require_nats_url(), add)
    assert diagnosed(publish_changes=True)["change feed"].state == "ok"


def test_what_an_older_qdrant_lacks_is_said(
    platform: Platform, diagnosed: Diagnosed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Platform, "qdrant_version", lambda _: "1.15.4")
    found = diagnosed()["qdrant"]
    assert found.ok
    assert "before 1.16, collections bear no mark of this platform" in found.message
    monkeypatch.setattr(Platform, "qdrant_version", lambda _: "1.9.0-dev")
    found = diagnosed()["qdrant"]
    assert (found.state, "lacks queries by group" in found.message) == ("bad", True)


def test_the_place_of_a_mapping_at_fault_is_named(
    platform: Platform, settings: Settings, diagnosed: Diagnosed, tmp_path: Path
) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text("types:\n  page:\n    source: {title: headline}\n  task:\n    source: {table: jobs}\n")
    mapped = Settings(_env_file=None, sources_file=file)  # type: ignore[call-arg]
    messages = {
        name: one.message for name, one in diagnosed(sources_file=file, types=dict(mapped._types_of_file or {})).items()
    }
    assert messages["source page"].endswith("it is mapped in " + f"{file}, line 2")
    assert "there is no table or view jobs" in messages["source task"]
    assert "no rows yet" in messages["source memory"]


def test_without_an_address_each_part_that_needs_it_says_so(diagnosed: Diagnosed) -> None:
    found = diagnosed(database_url=None, nats_url=None, qdrant_url=None)
    assert "DATABASE_URL is not set" in found["postgres"].message
    assert found["source task"].state == found["search"].state == "not tried"


def test_a_column_that_is_absent_is_named_with_its_field(platform: Platform) -> None:
    known = SOURCE_PRESETS["mcp"]["task"].source
    assert known is not None
    wrong = known.model_copy(update={"title": "titel", "metadata": {"tags": "labels", "parent_id": ("a", "parent_id")}})

    found = examined(platform, wrong).wrong
    assert [sentence.partition(" (it has")[0] for sentence in found] == [
        "title: tasks has no column titel",
        "metadata.tags: tasks has no column labels",
        "metadata.parent_id: tasks has no column a",
    ]
    assert "board_id" in found[0]
    assert examined(platform, SourceTable(table="no.such")).wrong == [
        "there is no table or view no.such, or the user may not look into its schema"
    ]


def test_a_predicate_that_postgresql_refuses_is_named(platform: Platform) -> None:
    mapping = SourceTable(table="tasks", content=("description",), alive="archived_at IS NUL")
    (wrong,) = examined(platform, mapping).wrong
    assert wrong.startswith("alive `archived_at IS NUL`: PostgreSQL refuses it (")
    (wrong,) = examined(platform, mapping.model_copy(update={"alive": "title"})).wrong
    assert "alive `title`" in wrong


def test_defaults_that_do_not_exist_are_noted(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, title text, content text)")
    found = examined(platform, SourceTable(table="docs"))
    assert found.wrong == []
    assert any("updated_at" in note for note in found.notes)
    named = examined(platform, SourceTable(table="docs", updated_at="updated_at"))
    assert any(sentence.startswith("updated_at: docs has no column updated_at") for sentence in named.wrong)
    (wrong,) = examined(platform, SourceTable(table="tasks")).wrong
    assert wrong.startswith("content: tasks has no column content, the default")


def test_ids_that_are_null_or_repeated_are_wrong_and_a_view_is_counted(platform: Platform) -> None:
    put_tasks(platform, {"a": "A"})
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE VIEW sound AS SELECT id, title FROM tasks")
        connection.execute("CREATE VIEW faulty AS TABLE sound UNION ALL TABLE sound UNION ALL SELECT NULL, 'x'")
    sound = examined(platform, SourceTable(table="sound", content=(), updated_at=None))
    assert (sound.kind, sound.wrong, sound.living) == ("view", [], 1)
    assert sound.notes == ["it is a view, so that no key keeps its ids apart: they were counted, and none repeats"]
    (wrong,) = examined(platform, SourceTable(table="faulty", content=())).wrong
    assert "1 rows of the source table have no id" in wrong
    assert "2 living rows of the source table bear this id" in wrong


def test_a_table_without_an_index_on_its_id_is_noted(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE TABLE heap (id text, title text, content text, updated_at timestamptz)")
    notes = examined(platform, SourceTable(table="heap")).notes
    assert notes == [
        "no unique index on (id) keeps the ids apart: they were counted, and none repeats",
        "no index begins with a column of (id), so that each event reads the whole table: make one",
    ]


def test_rows_that_no_predicate_decides_are_noted(platform: Platform) -> None:
    put_tasks(platform, {"a": "A", "b": "B"})
    mapping = SourceTable(table="tasks", content=("description",), alive="status <> 'done'")
    assert examined(platform, mapping).notes == [
        "no row is alive by `status <> 'done'`: every entity of the type counts as deleted",
        "for 2 rows `status <> 'done'` is neither true nor false, because a column is NULL: they count as deleted",
    ]


def test_a_table_that_may_not_be_read_says_what_to_grant(
    platform: Platform, diagnosed: Diagnosed, settings: Settings
) -> None:
    url = settings.require_database_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    away = url.replace("mcp@", "reader@", 1)
    found = diagnosed(source_database_url=SecretStr(away))
    assert found["source task"].state == "bad"
    assert "grant SELECT on tasks" in found["source task"].message
