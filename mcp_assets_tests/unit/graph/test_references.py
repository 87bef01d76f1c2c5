"""References: uses of metadata, slugs and texts, and the edges that they make."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.registry import SOURCE_PRESETS, EntityType, EntityTypes
from mcp_assets.entities.text import build_text
from mcp_assets.graph.edges import Edge, EdgeType, strongest
from mcp_assets.graph.keys import ReferenceKey, id_key, keys_of
from mcp_assets.graph.references import MAX_CONTEXT, METADATA_KEYS, ReferenceRules, Use, pick, resolve
from mcp_assets.graph.url_references import LinkForm
from mcp_assets_tests.unit.graph.samples import ANY_JSON, ANY_TEXT, RULES, A, B, C

SEQUENTIAL, HIERARCHY = EdgeType.SEQUENTIAL_DEPENDENCY, EdgeType.CONCEPTUAL_HIERARCHY
CROSS = EdgeType.CROSS_REFERENCE
PAGE = EntityRef("page", "A")


class Entity(NamedTuple):
    ref: EntityRef
    title: str | None = None
    content: str = ""
    metadata: Mapping[str, Any] = MappingProxyType({})


def uses(entity: Entity, rules: ReferenceRules = RULES) -> tuple[Use, ...]:
    return rules.uses(*entity)


def holders_of(entities: Iterable[Entity]) -> dict[ReferenceKey, list[EntityRef]]:
    holders: dict[ReferenceKey, list[EntityRef]] = defaultdict(list)
    for entity in entities:
        for key in keys_of(entity.ref, entity.title, entity.metadata):
            holders[key].append(entity.ref)
    return holders


def edges_of(*entities: Entity, rules: ReferenceRules = RULES) -> list[Edge]:
    """All reference edges of a workspace, in order."""
    holders = holders_of(entities)
    edges = strongest(edge for entity in entities for edge in resolve(entity.ref, uses(entity, rules), holders))
    return [without_words(edges[key]) for key in sorted(edges)]


def without_words(edge: Edge) -> Edge:
    """The edge with no evidence but its rule."""
    return replace(edge, metadata={"rule": edge.metadata["rule"]})


@pytest.mark.parametrize(
    ("key", "relation", "reverse"),
    [
        ("dependencies", SEQUENTIAL, False),
        ("depends_on", SEQUENTIAL, False),
        ("blocked_by", SEQUENTIAL, False),
        ("replaces", SEQUENTIAL, False),
        ("previous", SEQUENTIAL, False),
        ("blocks", SEQUENTIAL, True),
        ("superseded_by", SEQUENTIAL, True),
        ("next", SEQUENTIAL, True),
        ("parent_id", HIERARCHY, False),
        ("parent", HIERARCHY, False),
        ("parent_page_id", HIERARCHY, False),
        ("parent_task_id", HIERARCHY, False),
        ("epic_id", HIERARCHY, False),
    ],
)
def test_each_metadata_key_makes_its_edge_in_its_direction(key: str, relation: EdgeType, reverse: bool) -> None:
    source, target = (B, A) if reverse else (A, B)
    stated = edges_of(Entity(A, metadata={key: ["task:B"]}), Entity(B))
    assert stated == [Edge(source, target, relation, 1.0, {"rule": f"metadata:{key}"})]


def test_the_table_above_names_every_key() -> None:
    assert len(METADATA_KEYS) == 13


@pytest.mark.parametrize(
    ("forward", "backward"), [("depends_on", "blocks"), ("replaces", "superseded_by"), ("previous", "next")]
)
def test_a_key_and_its_reverse_state_one_edge(forward: str, backward: str) -> None:
    both = edges_of(Entity(A, metadata={forward: ["B"]}), Entity(B, metadata={backward: ["A"]}))
    assert [edge.key for edge in both] == [(A, B, SEQUENTIAL)]
    assert [edge.key for edge in edges_of(Entity(A), Entity(B, metadata={backward: ["A"]}))] == [(A, B, SEQUENTIAL)]


@pytest.mark.parametrize(
    ("phrase", "relation", "strength"),
    [
        ("depends on", SEQUENTIAL, 0.9),
        ("blocked by", SEQUENTIAL, 0.9),
        ("follows", SEQUENTIAL, 0.8),
        ("after", SEQUENTIAL, 0.7),
        ("subtask of", HIERARCHY, 0.9),
        ("child of", HIERARCHY, 0.9),
        ("part of", HIERARCHY, 0.8),
    ],
)
def test_a_phrase_makes_its_edge_and_a_cross_reference_too(phrase: str, relation: EdgeType, strength: float) -> None:
    assert set(edges_of(Entity(A, content=f"This {phrase} task:B."), Entity(B))) == {
        Edge(A, B, CROSS, 1.0, {"rule": "text"}),
        Edge(A, B, relation, strength, {"rule": f"text:{phrase}"}),
    }


def test_metadata_outweighs_a_phrase_that_says_the_same() -> None:
    edges = edges_of(Entity(A, content="After task:B.", metadata={"depends_on": ["B"]}), Entity(B))
    assert Edge(A, B, SEQUENTIAL, 1.0, {"rule": "metadata:depends_on"}) in edges
    assert len(edges) == 2


def test_metadata_alone_makes_no_cross_reference() -> None:
    assert [edge.type for edge in edges_of(Entity(A, metadata={"parent_id": "B"}), Entity(B))] == [HIERARCHY]


def test_a_title_is_text_too() -> None:
    assert [edge.key for edge in edges_of(Entity(A, title="Follow-up of task:B"), Entity(B))] == [(A, B, CROSS)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["B", "C"], ["task:B", "task:C"]),
        ("B", ["task:B"]),
        (" B ", ["task:B"]),
        ("B, C", ["task:B, C"]),
        (7, ["task:7"]),
        (7.0, ["task:7"]),
        ([7, "8"], ["task:7", "task:8"]),
        ("page:B", ["page:B"]),
        ("Page:B", ["page:B"]),
        (["card:B", "page: B"], ["task:B", "page:B"]),
        ("urn:x:1", ["task:urn:x:1"]),
        ("a b/c.d", ["task:a b/c.d"]),
        (["B", "B"], ["task:B"]),
        (None, []),
        ("", []),
        ("page:", []),
        (True, []),
        (float("nan"), []),
        ([None, [], {}, ["B"], {"id": "B"}, False, ""], []),
        ({"id": "B"}, []),
        ("x" * 513, []),
    ],
)
def test_what_a_metadata_value_names(value: Any, expected: list[str]) -> None:
    found = uses(Entity(A, metadata={"depends_on": value}))
    assert [use.key for use in found] == expected
    assert {use.kind for use in found} <= {"id"}


def test_an_integer_too_long_to_be_an_id_names_nothing() -> None:
    assert uses(Entity(A, metadata={"depends_on": 10**5000})) == ()


@pytest.mark.parametrize(
    ("key", "source", "expected"),
    [
        ("parent_id", PAGE, "page:B"),
        ("parent_page_id", A, "page:B"),
        ("parent_task_id", PAGE, "task:B"),
        ("epic_id", PAGE, "page:B"),
    ],
)
def test_a_bare_id_means_the_sources_own_type_unless_the_key_names_one(
    key: str, source: EntityRef, expected: str
) -> None:
    assert [use.key for use in uses(Entity(source, metadata={key: "B"}))] == [expected]


def test_a_key_that_names_a_type_which_is_not_registered_means_the_sources_own() -> None:
    rules = ReferenceRules.of(EntityTypes([EntityType("article", None)]))
    entity = Entity(EntityRef("article", "1"), metadata={"parent_page_id": "2"})
    assert [use.key for use in uses(entity, rules)] == ["article:2"]


def test_a_slug_path_is_a_child_of_its_parent_among_entities_of_its_type() -> None:
    child = Entity(EntityRef("page", "1"), metadata={"slug": "Docs/Ledger"})
    parent = Entity(EntityRef("page", "2"), metadata={"slug": "docs"})
    other = Entity(EntityRef("memory", "0"), metadata={"slug": "docs"})
    assert edges_of(child, parent, other) == [Edge(child.ref, parent.ref, HIERARCHY, 1.0, {"rule": "slug"})]
    assert edges_of(child, other) == []


def test_a_parent_in_metadata_and_in_the_slug_is_one_edge() -> None:
    child = Entity(EntityRef("page", "1"), metadata={"slug": "docs/ledger", "parent_page_id": "2"})
    parent = Entity(EntityRef("page", "2"), metadata={"slug": "docs"})
    assert [edge.metadata for edge in edges_of(child, parent)] == [{"rule": "metadata:parent_page_id"}]


def test_a_title_in_brackets_finds_the_entity_of_that_title() -> None:
    page = Entity(PAGE, title="How the Ledger works")
    assert edges_of(Entity(A, content="See [[how the  ledger works|this]]."), page) == [
        Edge(A, PAGE, CROSS, 1.0, {"rule": "text"})
    ]


def test_a_duplicate_title_means_the_smallest_type_and_id() -> None:
    source = Entity(C, content="[[Notes]]")
    twins = [Entity(ref, title="Notes") for ref in (B, A, EntityRef("page", "Z"))]
    assert [edge.target for edge in edges_of(source, *twins)] == [EntityRef("page", "Z")]
    assert [edge.target for edge in edges_of(source, *twins[:2])] == [A]


def test_picking_looks_only_at_the_wanted_type() -> None:
    assert pick([B, A, PAGE]) == PAGE
    assert pick([B, A, PAGE], within="task") == A
    assert pick([PAGE], within="task") is None
    assert pick([]) is None


def test_a_link_finds_only_the_type_of_its_form() -> None:
    rules = ReferenceRules.of(SOURCE_PRESETS["mcp"], [LinkForm.of("https://wiki.example.com/{title}", "page")])
    source = Entity(A, content="https://wiki.example.com/The_Ledger")
    namesakes = [Entity(PAGE, title="The Ledger"), Entity(EntityRef("memory", "m"), title="The ledger")]
    assert [edge.target for edge in edges_of(source, *namesakes, rules=rules)] == [PAGE]


def test_references_to_itself_make_no_edge() -> None:
    metadata = {"depends_on": ["A", "task:A"], "blocks": "A", "parent_id": "A", "slug": "a"}
    assert edges_of(Entity(A, "Me", "task:A [[Me]] part of task:A", metadata)) == []


def test_a_title_that_means_itself_first_makes_no_edge_to_its_namesake() -> None:
    assert edges_of(Entity(A, "Twin", "[[Twin]]"), Entity(B, "Twin")) == []


def test_a_cycle_of_parents_is_only_edges() -> None:
    ring = [Entity(ref, metadata={"parent_id": parent.id}) for ref, parent in ((A, B), (B, C), (C, A))]
    assert [edge.key[:2] for edge in edges_of(*ring)] == [(A, B), (B, C), (C, A)]


def test_a_reference_to_nothing_is_kept_as_a_use_and_makes_an_edge_once_its_target_exists() -> None:
    source = Entity(A, content="Part of task:B and [[The Plan]].", metadata={"blocks": ["C"]})
    found = {use.reference for use in uses(source)}
    assert found == {("id", "task:B"), ("title", "the plan"), ("slug", "the plan"), ("id", "task:C")}
    assert edges_of(source) == []
    assert [edge.key[:2] for edge in edges_of(source, Entity(C))] == [(C, A)]


def test_hidden_keys_make_no_edges_and_the_others_still_do() -> None:
    entity = Entity(A, metadata={"replaces": ["B"], "depends_on": ["C"]})
    hidden = RULES.hiding("replaces", "superseded_by")
    assert [edge.target for edge in edges_of(entity, Entity(B), Entity(C), rules=hidden)] == [C]
    assert [edge.target for edge in edges_of(entity, Entity(B), Entity(C))] == [B, C]


def test_hiding_a_key_that_no_rule_reads_is_an_error() -> None:
    with pytest.raises(ValueError, match="replacs"):
        RULES.hiding("replacs")


def test_a_type_may_be_named_by_its_registered_name_and_aliases() -> None:
    assert RULES.type_names["page"] == RULES.type_names["wiki"] == "page"
    assert "page_id" not in RULES.type_names


def test_ten_thousand_references_in_one_text_are_ten_thousand_uses() -> None:
    text = "Depends on " + ", ".join(f"task:{number}" for number in [*range(10_000)] * 2)
    found = uses(Entity(A, content=text))
    assert len([use for use in found if use.relation == CROSS]) == 10_000
    assert len([use for use in found if use.relation == SEQUENTIAL]) == 10_000


METADATA = st.dictionaries(
    st.sampled_from([*METADATA_KEYS, "slug"]),
    ANY_JSON | st.lists(st.sampled_from(["A", "B", "task:C", "page:A", 7])),
    max_size=5,
)


@given(st.none() | ANY_TEXT, ANY_TEXT, METADATA)
def test_no_entity_makes_it_raise_and_uses_are_unique(
    title: str | None, content: str, metadata: dict[str, Any]
) -> None:
    found = uses(Entity(A, title, content, metadata))
    assert len(set(found)) == len(found)
    assert all(use.kind == "id" and use.within is None for use in found if use.reverse)
    assert all(len(use.context) <= MAX_CONTEXT for use in found)


TEXTS = st.lists(
    st.sampled_from(["task:A", "task:B", "page:A", "[[X]]", "[[Y]]", "depends on ", "part of ", ", ", ". "]), max_size=6
).map("".join)
STATES = st.fixed_dictionaries(
    {
        "title": st.sampled_from([None, "X", "Y"]),
        "content": TEXTS,
        "metadata": st.dictionaries(
            st.sampled_from(["depends_on", "blocks", "parent_id"]), st.lists(st.sampled_from("ABC"))
        )
        | st.sampled_from([{"slug": "s"}, {"slug": "s/t"}]),
    }
)
CHANGES = st.lists(
    st.tuples(st.sampled_from([A, B, PAGE, EntityRef("page", "B")]), st.none() | STATES), min_size=1, max_size=20
)


@given(CHANGES, st.randoms(use_true_random=False))
def test_relinking_the_users_of_changed_keys_keeps_the_edges_of_a_rebuild(
    changes: list[tuple[EntityRef, dict[str, Any] | None]], rng: random.Random
) -> None:
    """Each entity writes only the edges that it is the source of, from its uses and from the reverse uses of others."""
    entities: dict[EntityRef, Entity] = {}
    all_uses: dict[EntityRef, tuple[Use, ...]] = {}
    edges: dict[EntityRef, list[Edge]] = {}
    for ref, state in changes:
        before, uses_before = entities.pop(ref, None), all_uses.pop(ref, ())
        if state is not None:
            entities[ref] = Entity(ref, **state)
            all_uses[ref] = uses(entities[ref])
        after = entities.get(ref)
        changed_keys = (keys_of(before.ref, before.title, before.metadata) if before else frozenset()) ^ (
            keys_of(after.ref, after.title, after.metadata) if after else frozenset()
        )
        marked = {ref}
        marked |= {user for user, made in all_uses.items() if any(use.reference in changed_keys for use in made)}
        reverse = {use.reference for user in marked for use in (*all_uses.get(user, ()), *uses_before) if use.reverse}
        marked |= {other for other in entities if id_key(other) in reverse}
        holders = holders_of(entities.values())
        for source in rng.sample(sorted(marked), len(marked)):
            incoming = [
                (user, use)
                for user, made in all_uses.items()
                for use in made
                if use.reverse and use.reference == id_key(source)
            ]
            stated = [*resolve(source, all_uses.get(source, ()), holders)]
            stated += [edge for user, use in incoming for edge in resolve(user, [use], holders)]
            mine = strongest(edge for edge in stated if edge.source == source)
            edges[source] = [without_words(mine[key]) for key in sorted(mine)]
    assert [edge for ref in sorted(edges) for edge in edges[ref]] == edges_of(*entities.values())


@pytest.mark.parametrize(
    "content", ["task:B, and later:\n\nit depends on  task:B for now", "see [[Plan]]; part of page:A"]
)
def test_the_place_of_an_edges_words_is_that_of_its_mention(content: str) -> None:
    text = build_text("A title", content)
    found = RULES.uses(C, "A title", content, {})
    places = {
        (use.rule, use.key): RULES.place_of("A title", content, (use.rule, use.context), [use.reference])
        for use in found
    }
    for (_, key), place in places.items():
        assert place is not None
        assert text[place.start : place.end].strip("[]").lower() == key.lower()
    assert len(set(places.values())) == 2


def test_words_that_are_no_longer_in_the_text_or_stand_in_metadata_have_no_place_in_it() -> None:
    keys = [id_key(B)]
    assert RULES.place_of(None, "see task:B", ("text", "see task:B"), keys) is not None
    assert RULES.place_of(None, "see task:B", ("text", "saw task:B"), keys) is None
    assert RULES.place_of(None, "see task:B", ("text", "see task:B"), [id_key(A)]) is None
    assert RULES.place_of(None, "depends on task:B", ("metadata:depends_on", "depends on task:B"), keys) is None
