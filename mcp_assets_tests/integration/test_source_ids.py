"""Ids of source rows that are none of an entity: named, dead-lettered, and in nobody's way."""

import random
from collections.abc import Callable

import psycopg
import pytest
from pydantic import SecretStr

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import MAX_ID_BYTES
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.source_tables.ids import NAMELESS
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.index.full_sync import count_differing
from mcp_assets.sync.index.sweep import sweep_slice
from mcp_assets.sync.views.doctor import _source
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import (
    assert_points_are,
    dead_letters,
    drain_all,
    inbox,
    ledger,
    put,
    put_tasks,
    rows,
    send,
    send_looks,
    sync_all,
)

VIEW = """
CREATE VIEW v AS
SELECT id, title, description FROM tasks
UNION ALL SELECT NULL, 'without an id', 'x' UNION ALL SELECT '', 'without one, too', 'x'
UNION ALL SELECT 'twice', 'one of two', 'x' UNION ALL SELECT 'twice', 'the other', 'x'
UNION ALL SELECT repeat('é', 600), 'too many bytes and characters', 'x'
"""


def on_view(make_platform: Callable[..., Platform], url: str | None = None) -> Platform:
    source = SourceTable(table="v", content=("description",))
    changes = {} if url is None else {"source_database_url": SecretStr(url)}
    return make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=source)}, **changes)


@pytest.fixture(params=["the platform's database", "another database"])
def view(
    request: pytest.FixtureRequest, make_platform: Callable[..., Platform], platform: Platform, settings: Settings
) -> Platform:
    """A platform whose source is a view with one sound row and rows of every fault, in either database."""
    url = None
    if request.param == "another database":
        own = settings.require_database_url()
        with psycopg.connect(own, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)")
            connection.execute("CREATE DATABASE elsewhere")
        url = own.replace("/test?", "/elsewhere?")
        create_source_tables(make_platform(source_database_url=SecretStr(url)))
    with psycopg.connect(url or settings.require_database_url(), autocommit=True) as connection:
        connection.execute("INSERT INTO tasks (id, title) VALUES ('t1', 'Sound')")
        connection.execute(VIEW)
    return on_view(make_platform, url)


def test_rows_without_an_id_with_one_that_repeats_or_is_too_long_are_named_and_stop_nothing(view: Platform) -> None:
    for force in (False, True):
        counts = sync_all(view, force=force)
        assert counts.failed >= 4
        assert set(ledger(view)) == {"t1"}
        assert_points_are(view, {"t1": "Sound"})
    letters = dead_letters(view)
    too_long = next(name for name in letters if name.startswith("é"))
    assert letters == {NAMELESS: "missing_id", "twice": "repeated_id", too_long: "bad_id"}
    errors = dict(rows(view, "SELECT error_kind, error FROM {schema}.dead_letters"))
    assert "2 rows of the source table have no id" in errors["missing_id"]
    assert "living row of the source table bears this id" in errors["repeated_id"]
    assert str(MAX_ID_BYTES) in errors["bad_id"]


def test_doctor_and_census_name_them_and_a_sweep_starts_no_runs_for_them(view: Platform) -> None:
    sync_all(view)
    with pytest.raises(
        StoreRefused, match=r"2 rows of the source table have no id.*; it is mapped in MCP_ASSETS_TYPES"
    ):
        _source(view, "task")
    found = validate(view, entity_types=["task"]).found
    assert sum(count for kind, count in found.items() if str(kind) == "unusable_source_row") == 3
    assert "3 unusable_source_row" in evaluate(view, "ledger_matches_source").summary
    with view.postgres.session() as session:
        for _ in range(8):
            sweep_slice(view, session, "task")
            drain_all(view)
    asked = rows(view, "SELECT entity_id FROM {schema}.sweep_findings WHERE look_at IS NOT NULL")
    assert asked in ([], [("twice",)])
    with view.postgres.session() as session:
        sweep_slice(view, session, "task")
    assert inbox(view) == []


def test_the_letters_are_resolved_when_the_view_is_mended(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = on_view(make_platform)
    with platform.postgres.transaction() as connection:
        connection.execute(VIEW.encode())
    sync_all(own)
    assert len(dead_letters(own)) == 3
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE OR REPLACE VIEW v AS SELECT id, title, description FROM tasks")
    put_tasks(platform, {"twice": "Once by now"})
    sync_all(own)

    assert dead_letters(own) == {}
    assert count_differing(own) == 0


def test_of_rows_that_bear_one_id_the_living_one_counts_if_there_is_one_such(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE TABLE versions (id text, title text, content text, current boolean)")
        connection.execute(
            "INSERT INTO versions VALUES ('a', 'Old', '', false), ('a', 'New', '', true), ('a', 'Older', '', false)"
        )
    source = SourceTable(table="versions", alive="current")
    own = make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=source)})
    sync_all(own)
    send_looks(own, "a")
    drain_all(own)

    assert_points_are(own, {"a": "New"})
    assert dead_letters(own) == {}


def test_two_entities_whose_ids_are_as_long_as_they_may_be_are_linked_in_an_index_that_holds_them(
    platform: Platform,
) -> None:
    chance = random.Random(1)

    def longest() -> str:
        # Four bytes a character, none of which compress.
        return "".join(chr(chance.randrange(0x20000, 0x2A000)) for _ in range(MAX_ID_BYTES // 4))

    first, second = longest(), longest()
    title = "".join(chr(chance.randrange(0x20000, 0x2A000)) for _ in range(600))
    put_tasks(platform, {"A": "alpha"})
    put(platform, "tasks", id="X", title="X", description="see task:A")
    for entity_id in (first, second):
        put(platform, "memory_nodes", id=entity_id, title=title, content="one two three", tags=["x"])
    sync_all(platform)
    sync_all(platform, "memory")
    relink(platform)

    edges = set(rows(platform, "SELECT source_id, target_id FROM public.relationships"))
    assert ("X", "A") in edges
    assert {(first, second), (second, first)} & edges


def test_an_id_of_too_many_bytes_in_an_event_is_a_dead_letter_that_names_the_bound(platform: Platform) -> None:
    send(platform, ("mcp.memory.stored", {"memoryId": "漢" * 400, "content": "words"}))
    send(platform, ("mcp.memory.stored", {"memoryId": "漢" * 341, "content": "words"}))
    drain_all(platform)

    ((error,),) = rows(platform, "SELECT error FROM {schema}.dead_letters")
    assert "has 1200 bytes in UTF-8; an id has at most 1024" in error
    assert set(ledger(platform, "memory")) == {"漢" * 341}
