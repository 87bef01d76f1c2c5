"""The names of entity types in messages."""

import pytest

from mcp_assets.events import DEFAULT_TYPE_NAMES, TypeNames


@pytest.mark.parametrize(
    ("name", "entity_type"),
    [
        ("task", "task"),
        ("Tasks", "task"),
        ("CARD", "task"),
        ("kanban", "task"),
        ("page", "page"),
        ("wiki", "page"),
        ("Wiki_Page", "page"),
        ("memory", "memory"),
        ("node", "memory"),
        ("memory_node", "memory"),
        ("board", None),
        ("", None),
    ],
)
def test_a_type_is_found_by_any_of_its_names_in_any_case(name: str, entity_type: str | None) -> None:
    assert DEFAULT_TYPE_NAMES.canonical(name) == entity_type


def test_a_type_has_its_own_id_key_first_then_the_further_ones() -> None:
    assert DEFAULT_TYPE_NAMES.id_keys("memory") == ("memory_id", "node_id")
    assert DEFAULT_TYPE_NAMES.types_of_id_keys(["node_id"]) == {"memory": "node_id"}


def test_an_alias_makes_no_id_key() -> None:
    assert DEFAULT_TYPE_NAMES.types_of_id_keys(["wiki_id"]) == {}


def test_a_hyphenated_type_has_an_id_key_that_a_message_can_spell() -> None:
    assert TypeNames.of({"design-doc": ()}).id_keys("design-doc") == ("design_doc_id",)


def test_type_names_do_not_change_with_the_mapping_they_were_made_from() -> None:
    aliases = {"task": ["card"]}
    names = TypeNames.of(aliases)
    aliases["task"].append("ticket")
    aliases["page"] = []
    assert names.known() == ("task",)
    assert names.canonical("ticket") is None


@pytest.mark.parametrize(
    ("aliases", "id_keys", "complaint"),
    [
        ({"task": ("card",), "page": ("card",)}, {}, "'card' is claimed by two"),
        ({"task": ("page",), "page": ()}, {}, "'page' is claimed by two"),
        ({"task": (), "page": ()}, {"page": ("task_id",)}, "'task_id' is claimed by two"),
        ({"task": ()}, {"page": ("sheet_id",)}, "'page', which is not among"),
        ({"Task": ()}, {}, "'Task' .* must match"),
        ({"task:": ()}, {}, "'task:' .* must match"),
        ({"task": ("",)}, {}, "'' .* must match"),
        ({"task": ()}, {"task": ("cardId",)}, "'cardId' .* must match"),
    ],
)
def test_names_that_could_not_be_distinguished_are_refused(
    aliases: dict[str, tuple[str, ...]], id_keys: dict[str, tuple[str, ...]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        TypeNames.of(aliases, id_keys)
