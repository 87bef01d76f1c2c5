"""The registry: entity types in their order, their collections, and the presets that are shipped."""

import pytest
from pydantic import ValidationError

from mcp_assets.entities.registry import SOURCE_PRESETS, EntityType, EntityTypes, SourceTable
from mcp_assets.events import TypeNames


def test_types_stand_in_the_order_in_which_they_were_given() -> None:
    types = EntityTypes([EntityType(name, None) for name in ("b", "a", "c")])

    assert list(types) == ["b", "a", "c"]
    assert len(types) == 3
    assert "a" in types
    assert types.get("x") is None


def test_a_type_without_a_collection_goes_to_the_shared_one() -> None:
    types = EntityTypes([EntityType("a", None), EntityType("b", None, "own"), EntityType("c", None)])

    assert types["a"].collection_name == types["c"].collection_name == "cross_references"
    assert types.collections() == ["cross_references", "own"]


@pytest.mark.parametrize("preset", SOURCE_PRESETS)
def test_a_preset_has_tasks_pages_and_memories_with_collections_of_their_own(preset: str) -> None:
    types = SOURCE_PRESETS[preset]

    assert list(types) == ["task", "page", "memory"]
    assert types.collections() == ["kanban_tasks", "wiki_pages", "memory_nodes"]
    assert all(entity_type.source is not None for entity_type in types.values())


@pytest.mark.parametrize("preset", SOURCE_PRESETS)
def test_the_names_of_a_preset_are_unambiguous(preset: str) -> None:
    types = SOURCE_PRESETS[preset]
    names = TypeNames.of(
        {name: entity_type.aliases for name, entity_type in types.items()},
        {name: entity_type.id_keys for name, entity_type in types.items()},
    )

    assert {names.canonical(name) for name in ("card", "kanban", "tasks")} == {"task"}
    assert {names.canonical(name) for name in ("wiki", "wiki_page", "pages")} == {"page"}
    assert {names.canonical(name) for name in ("node", "memory_nodes", "memories")} == {"memory"}


def test_a_mapping_with_a_key_that_is_none_of_its_own_is_refused() -> None:
    with pytest.raises(ValidationError, match="contents"):
        SourceTable.model_validate({"table": "docs", "contents": ["body"]})


def test_a_mapping_cannot_be_changed() -> None:
    mapping = SourceTable(table="docs")

    with pytest.raises(ValidationError, match="frozen"):
        mapping.table = "other"
