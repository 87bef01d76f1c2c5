"""Mapping proposals: names in the singular, texts that YAML takes for texts, tables that hold no entities left out."""

from pathlib import Path

import pytest

from mcp_assets.entities.mapping_proposal import Proposal, TableShape, propose
from mcp_assets.mapping_file import MappingFile


def proposed(*tables: TableShape) -> Proposal:
    return propose(tables)


def table(called: str, **columns: str) -> TableShape:
    return TableShape(called, "table", {"id": "bigint", **columns}, ("id",))


@pytest.mark.parametrize(
    ("name", "entity_type"),
    [
        ("stories", "story"),
        ("app.issues", "issue"),
        ("boxes", "box"),
        ("status", "status"),
        ("classes", "class"),
        ("cards", "task"),
        ("wiki_pages", "page"),
        ("News-Items", "news_item"),
        ("2024_notes", "_2024_note"),
    ],
)
def test_a_type_is_named_as_its_table_in_the_singular_or_as_events_name_it(name: str, entity_type: str) -> None:
    assert proposed(table(name, title="text", body="text")).types == (entity_type,)


def test_two_tables_of_one_name_make_two_types() -> None:
    found = proposed(*(table(name, body="text") for name in ("notes", "old.notes", "older.note")))
    assert found.types == ("note", "old_note", "older_note")


@pytest.mark.parametrize("name", ["on", "No", "a b", "a: b", "#x", "ä", "1", "null", "'", '"', "a\\b", "-"])
def test_any_name_of_a_column_is_a_text_in_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    shape = TableShape("docs", "table", {name: "text", "title": "text", "body": "text"}, (name,))
    path.write_text(propose([shape]).text, encoding="utf-8")
    source = MappingFile(path, "mcp", preset_is_set=False).types["doc"].source
    assert source is not None
    assert source.id == name


def test_tables_without_texts_are_left_out_with_the_reason() -> None:
    found = proposed(
        table("users", name="text", email="text"),
        table("counters", value="integer"),
        TableShape(
            "links", "table", {"a": "bigint", "b": "bigint", "note": "text"}, ("a", "b"), {("a",): "x", ("b",): "y"}
        ),
    )
    assert found.types == ()
    assert set(found.left_out.values()) == {
        "it has a name and no text",
        "it has no column that seems to be a text",
        "it joins other tables",
    }


def test_a_reference_to_the_table_itself_is_the_parent() -> None:
    shape = TableShape(
        "docs", "table", {"id": "bigint", "body": "text", "above": "bigint"}, ("id",), {("above",): "docs"}
    )
    assert "parent_id: above" in propose([shape]).text
