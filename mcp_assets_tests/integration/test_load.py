"""Load: JSON lines become source rows as an MCP server would have written them; a bad line is named."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_assets.cli.load_entities import LoadError, create_source_tables, load, parse_lines, parse_records
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.errors import StoreRefused
from mcp_assets_tests.observing import assert_points_are, entity_points, rows, sync_all

TASK: dict[str, Any] = {"entity_type": "task", "entity_id": "t1", "title": "Mend the gate", "content": "It sags."}


def load_all(platform: Platform, *records: Any) -> int:
    lines = [record if isinstance(record, str | bytes) else json.dumps(record) for record in records]
    return sum(len(batch) for batch in load(platform, parse_lines(lines, "a file", platform.settings.entity_types)))


def test_lines_of_every_type_become_rows_that_are_indexed(platform: Platform) -> None:
    count = load_all(
        platform,
        TASK,
        "",
        {"entity_type": "page", "entity_id": "p1", "title": "Gates", "content": "All of them."},
        {"entity_type": "memory", "entity_id": "m1", "title": None, "content": "It was green."},
    )

    assert count == 3
    for entity_type in ("task", "page", "memory"):
        sync_all(platform, entity_type)
    assert_points_are(platform, {"t1": "Mend the gate It sags."})
    assert_points_are(platform, {"p1": "Gates All of them."}, "page")
    assert_points_are(platform, {"m1": "It was green."}, "memory")


def test_metadata_go_to_the_columns_mapped_for_them_and_the_rest_to_the_free_column(platform: Platform) -> None:
    metadata = {"tags": ["wood", "garden"], "status": "open", "due_date": "2026-05-01", "sprint": {"n": 3}}
    load_all(platform, {**TASK, "metadata": metadata})

    ((tags, status, due, free),) = rows(platform, "SELECT tags, status, due_date::text, metadata FROM tasks")
    assert (tags, status, due, free) == (["wood", "garden"], "open", "2026-05-01", {"sprint": {"n": 3}})
    sync_all(platform)
    payload = entity_points(platform)["t1"].payload
    assert {key: payload[key] for key in metadata} == metadata


def test_the_last_of_several_lines_about_an_entity_wins_and_loading_again_replaces(platform: Platform) -> None:
    load_all(platform, TASK, {**TASK, "title": "Second"}, {**TASK, "entity_type": "page", "title": "A page"})
    assert rows(platform, "SELECT id, title FROM tasks") == [("t1", "Second")]

    load_all(platform, {**TASK, "title": "Third", "content": None})
    assert rows(platform, "SELECT title, description FROM tasks") == [("Third", "")]
    assert rows(platform, "SELECT title FROM wiki_pages") == [("A page",)]


def test_times_are_kept_and_where_none_is_given_the_column_says_what_stands(platform: Platform) -> None:
    load_all(platform, {**TASK, "created_at": "2026-01-02T03:04:05+02:00", "updated_at": None})

    ((created, updated, tags),) = rows(platform, "SELECT created_at, updated_at, tags FROM tasks")
    assert created == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert updated is not None
    assert tags == []


def test_more_lines_than_a_batch_are_loaded_and_reported_batch_by_batch(platform: Platform) -> None:
    records = ({**TASK, "entity_id": str(n)} for n in range(2500))
    batches = list(load(platform, parse_records(records, "records", ["task"])))

    assert [len(batch) for batch in batches] == [1000, 1000, 500]
    assert rows(platform, "SELECT count(*) FROM tasks") == [(2500,)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting"),
        ("[1]", "not a JSON object"),
        (b"\xff", "utf-8"),
        ("[" * 100_000, "recursion"),
        ({"entity_id": "1"}, "entity_type is missing"),
        ({"entity_type": "task"}, "entity_id is missing"),
        ({**TASK, "entity_type": "sprint"}, r"'sprint' is not registered \(registered: memory, page, task\)"),
        ({**TASK, "entity_id": ""}, "entity_id must be a text of 1 to 512"),
        ({**TASK, "entity_id": 7}, "entity_id must be a text"),
        ({**TASK, "entity_id": "x" * 513}, "entity_id has 513 characters; an id has at most 512"),
        ({**TASK, "title": 7}, "title and content must be texts"),
        ({**TASK, "metadata": []}, "metadata must be an object"),
        ({**TASK, "created_at": "yesterday"}, "yesterday"),
        ({**TASK, "updated_at": 1700000000}, "RFC 3339"),
    ],
)
def test_a_line_that_is_no_entity_is_named_with_its_reason(line: Any, why: str) -> None:
    text = line if isinstance(line, str | bytes) else json.dumps(line)

    with pytest.raises(LoadError, match=rf"^tasks.jsonl, line 3: .*{why}"):
        list(parse_lines([json.dumps(TASK), "", text], "tasks.jsonl", ["task", "page", "memory"]))


@pytest.mark.parametrize(
    "metadata",
    [{"due_date": "someday"}, {"x": "a\0b"}, {"x": "\ud800"}, {"x": float("nan")}],
    ids=["no date", "NUL", "lone surrogate", "NaN"],
)
def test_a_value_that_its_column_cannot_hold_is_refused_and_nothing_of_its_batch_is_loaded(
    platform: Platform, metadata: dict[str, Any]
) -> None:
    with pytest.raises(StoreRefused, match="the source table tasks cannot be written"):
        load_all(platform, TASK, {**TASK, "entity_id": "bad", "metadata": metadata})

    assert rows(platform, "SELECT count(*) FROM tasks") == [(0,)]


def test_an_absent_source_table_is_refused_with_what_to_do(make_platform: Callable[..., Platform]) -> None:
    with pytest.raises(StoreRefused, match=r"tasks cannot be written.*--create-tables"):
        load_all(make_platform(), TASK)


def test_a_type_without_a_source_table_cannot_be_loaded(make_platform: Callable[..., Platform]) -> None:
    with pytest.raises(LoadError, match="the entity type note has no source table: publish its events"):
        load_all(make_platform(types={"note": TypeMapping()}), {**TASK, "entity_type": "note"})


def test_source_tables_are_made_once_and_left_alone_afterwards(platform: Platform) -> None:
    load_all(platform, TASK)
    create_source_tables(platform)

    assert rows(platform, "SELECT id FROM tasks") == [("t1",)]
