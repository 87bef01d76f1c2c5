"""Tables with a key of several columns: synchronised by the text form of the key, in either database."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from mcp_assets.cli.load_entities import load, parse_records
from mcp_assets.entities.composite_ids import join_id
from mcp_assets.entities.refs import SLOTS, slot_of
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.source_tables.mapping_sql import MappedTable
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.index.full_sync import count_differing
from mcp_assets.sync.index.sweep import sweep_slice
from mcp_assets_tests.linking import relink
from mcp_assets_tests.observing import assert_points_are, dead_letters, drain_all, ledger, rows, send, sync_all

ISSUES = """
CREATE TABLE issues (
    project text, number integer, summary text NOT NULL, body text, labels text[] NOT NULL DEFAULT '{}',
    parent_number integer, PRIMARY KEY (number, project)
)
"""
"""The index names the columns in another order than the mapping."""

MAPPING = SourceTable(
    table="issues",
    id=("project", "number"),
    title="summary",
    content=("body",),
    metadata={"tags": "labels", "parent_id": ("project", "parent_number")},
    updated_at=None,
)

TRICKY = [("a/b", 1), ("a", 1), ("a~1b", 1), ("a~", -1), ("~", 1), ("", 0), ("é\U0001f600", 7), ("%s", 2), ("ab", 10)]


@pytest.fixture(params=["the platform's database", "another database"])
def site(
    request: pytest.FixtureRequest, make_platform: Callable[..., Platform], platform: Platform, settings: Settings
) -> "Site":
    changes: dict[str, Any] = {}
    url = settings.require_database_url()
    if request.param == "another database":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS elsewhere WITH (FORCE)")
            connection.execute("CREATE DATABASE elsewhere")
        url = url.replace("/test?", "/elsewhere?")
        changes["source_database_url"] = SecretStr(url)
    own = make_platform(types={"task": TypeMapping(collection="kanban_tasks", source=MAPPING)}, **changes)
    made = Site(own, url)
    made.execute(ISSUES)
    return made


class Site:
    """A platform over one table with a composite key."""

    def __init__(self, platform: Platform, url: str) -> None:
        self.platform = platform
        self._url = url

    def execute(self, statement: str, *parameters: Any) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    def put(self, project: str, number: int, summary: str, parent: int | None = None) -> str:
        self.execute(
            "INSERT INTO issues (project, number, summary, parent_number) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (project, number) DO UPDATE SET summary = excluded.summary",
            project,
            number,
            summary,
            parent,
        )
        return join_id([project, str(number)])


def test_each_key_is_an_entity_of_its_own_whatever_its_columns_hold(site: Site) -> None:
    texts = {site.put(project, number, f"Title {n}"): f"Title {n}" for n, (project, number) in enumerate(TRICKY)}
    assert len(texts) == len(TRICKY)

    assert sync_all(site.platform).embedded == len(TRICKY)
    assert_points_are(site.platform, texts)
    stored = dict(rows(site.platform, "SELECT entity_id, slot FROM {schema}.entities"))
    assert stored == {name: slot_of(name) for name in texts}
    assert count_differing(site.platform) == 0
    assert validate(site.platform, entity_types=["task"], deep=True).found == {}


def test_rows_are_found_by_the_text_form_of_their_key(site: Site) -> None:
    names = [site.put(project, number, project) for project, number in TRICKY]
    reader = site.platform.source("task")
    assert reader is not None
    with site.platform.postgres.transaction() as connection:
        found = reader.read(connection, [*names, "ab", "ab/x", "ab/10/1", "ab/99999999999", "a~2/1", ""])
        canonical = reader.canonical_ids(connection, ["ab/010", "ab/x"])

    assert {name: row.title for name, row in found.items()} == {
        name: project for name, (project, _) in zip(names, TRICKY, strict=True)
    }
    assert canonical == {"ab/010": "ab/10", "ab/x": "ab/x"}


def test_events_carry_the_text_form_and_deletions_reach_the_points(site: Site) -> None:
    kept = site.put("a/b", 1, "Kept")
    gone = site.put("a", 1, "Gone")
    send(site.platform, *(("mcp.task.created", {"taskId": name}) for name in (kept, gone)))
    drain_all(site.platform)
    assert_points_are(site.platform, {kept: "Kept", gone: "Gone"})

    site.put("a/b", 1, "Changed")
    site.execute("DELETE FROM issues WHERE project = 'a'")
    send(site.platform, *(("mcp.task.updated", {"taskId": name}) for name in (kept, gone)))
    drain_all(site.platform)
    assert_points_are(site.platform, {kept: "Changed"})


def test_a_change_without_an_event_is_found_by_the_sweep_and_by_a_full_sync(site: Site) -> None:
    for number in range(30):
        site.put("p", number, f"Title {number}")
    sync_all(site.platform)
    site.put("p", 7, "Changed behind its back")
    site.execute("DELETE FROM issues WHERE number = 8")
    for _ in range(4):
        with site.platform.postgres.session() as session:
            sweep_slice(site.platform, session, "task")
        drain_all(site.platform)
    living = dict(rows(site.platform, "SELECT entity_id, title FROM {schema}.entities WHERE deleted_at IS NULL"))
    assert (living["p/7"], "p/8" in living) == ("Changed behind its back", False)

    site.put("p", 9, "Changed, too")
    assert count_differing(site.platform) == 1
    counts = sync_all(site.platform)
    assert (counts.embedded, counts.deleted) == (1, 0)


def test_each_shard_takes_its_own_keys(site: Site, make_platform: Callable[..., Platform]) -> None:
    names = {site.put(f"p{number % 3}", number, f"Title {number}") for number in range(40)}
    table = MappedTable(MAPPING)
    found: set[str] = set()
    with psycopg.connect(site._url) as connection:
        for low in range(0, SLOTS, SLOTS // 4):
            slots = (low, low + SLOTS // 4)
            statement = table.fill("SELECT {id} FROM {table} WHERE {has_entity}", has_entity=table.has_entity_in(slots))
            part = {row[0] for row in connection.execute(statement)}
            assert all(slots[0] <= slot_of(name) < slots[1] for name in part)
            assert not found & part
            found |= part
    assert found == names


def test_a_row_with_a_null_in_its_key_has_no_id(site: Site, make_platform: Callable[..., Platform]) -> None:
    site.put("p", 1, "Sound")
    site.execute(
        "CREATE VIEW v AS SELECT project, number, summary, body, labels, parent_number FROM issues"
        " UNION ALL SELECT 'p', NULL, 'without a number', '', '{}', NULL"
        " UNION ALL SELECT 'q', 2, 'one of two', '', '{}', NULL UNION ALL SELECT 'q', 2, 'the other', '', '{}', NULL"
    )
    mapping = TypeMapping(collection="kanban_tasks", source=MAPPING.model_copy(update={"table": "v"}))
    changed = make_platform(types={"task": mapping}, source_database_url=site.platform.settings.source_database_url)

    sync_all(changed)
    assert_points_are(changed, {"p/1": "Sound"})
    assert dead_letters(changed) == {"(no id)": "missing_id", "q/2": "repeated_id"}


def test_a_parent_of_several_columns_makes_the_hierarchy(site: Site) -> None:
    parent = site.put("a/b", 1, "The parent")
    child = site.put("a/b", 2, "The child", parent=1)
    orphan = site.put("a/b", 3, "Without a parent")
    sync_all(site.platform)
    relink(site.platform)

    edges = rows(
        site.platform,
        "SELECT source_id, target_id FROM public.relationships WHERE relationship_type = 'conceptual_hierarchy'",
    )
    assert edges == [(child, parent)] or edges == [(parent, child)]
    assert "parent_id" not in ledger(site.platform)[orphan]["metadata"]


def test_a_text_mentions_an_entity_by_its_whole_id(site: Site) -> None:
    named = site.put("ABC", 1, "The gate")
    naming = site.put("ABC", 2, f"Depends on task:{named}, not on task:ABC")
    sync_all(site.platform)
    relink(site.platform)

    edges = rows(
        site.platform,
        "SELECT source_id, target_id, relationship_type FROM public.relationships"
        " WHERE relationship_type IN ('cross_reference', 'sequential_dependency') ORDER BY 3",
    )
    assert {frozenset(edge[:2]) for edge in edges} == {frozenset((naming, named))}
    assert [edge[2] for edge in edges] == ["cross_reference", "sequential_dependency"]


def test_entities_are_loaded_into_the_columns_of_their_key(site: Site) -> None:
    records = [
        {"entity_type": "task", "entity_id": "a~1b/1", "title": "One", "content": "x", "metadata": {"tags": ["t"]}},
        {"entity_type": "task", "entity_id": "c/2", "title": "Two", "metadata": {"parent_id": "c/1"}},
    ]
    types = site.platform.settings.entity_types
    for _ in range(2):
        assert sum(len(batch) for batch in load(site.platform, parse_records(records, "here", types))) == 2
    with psycopg.connect(site._url) as connection:
        found = connection.execute("SELECT project, number, parent_number FROM issues ORDER BY 1").fetchall()
    assert found == [("a/b", 1, None), ("c", 2, 1)]

    with pytest.raises(StoreRefused, match=r"'seven' is none of the source table issues: its key has the columns pro"):
        list(load(site.platform, parse_records([{**records[0], "entity_id": "seven"}], "here", types)))


def test_an_index_serves_the_look_up(site: Site) -> None:
    for number in range(200):
        site.put("p", number, "x")
    site.execute("ANALYZE issues")
    table = MappedTable(MAPPING)
    with psycopg.connect(site._url) as connection:
        parameters = table.parameters_of(connection, ["p/7"])
        assert parameters is not None
        assert table.ids_are_unique(connection)
        connection.execute("SET enable_seqscan = off")
        explain = sql.SQL("EXPLAIN SELECT 1 FROM issues WHERE {}").format(table.has_id_of())
        plan = "\n".join(row[0] for row in connection.execute(explain, parameters))
    assert "Index Cond" in plan


def test_a_table_need_not_have_the_columns_that_are_defaults(
    make_platform: Callable[..., Platform], platform: Platform
) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("CREATE TABLE docs (id text PRIMARY KEY, title text, content text)")
    types = {"task": TypeMapping(collection="kanban_tasks", source=SourceTable(table="docs"))}
    own = make_platform(types=types)
    records = [{"entity_type": "task", "entity_id": "d", "title": "T", "updated_at": "2026-01-01T00:00:00Z"}]
    assert len(list(load(own, parse_records(records, "here", types)))) == 1
    reader = own.source("task")
    assert reader is not None
    with own.postgres.transaction() as connection:
        assert reader.updated_at(connection, ["d"]) == {}

    named = SourceTable(table="docs", updated_at="updated_at")
    reader = make_platform(types={"task": TypeMapping(source=named)}).source("task")
    assert reader is not None
    with own.postgres.transaction() as connection, pytest.raises(StoreRefused, match="updated_at"):
        reader.updated_at(connection, ["d"])
