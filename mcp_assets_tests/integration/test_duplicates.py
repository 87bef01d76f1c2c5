"""Possible duplicates: edges that follow vectors and words, the list of pairs, the look before a text is written."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedding.protocol import TextRefused
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import Decision, EdgeType
from mcp_assets.mcp_server.duplicate_tools import DuplicateTools
from mcp_assets.mcp_server.tools import Tools
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.edge_census import EdgeRules
from mcp_assets.sync.consistency.edge_repair import link_again
from mcp_assets.sync.link.judging import judge
from mcp_assets.sync.views.duplicates import DuplicatesFound, duplicates_of_text, stored_duplicates
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    delete_source,
    evidence,
    graph,
    index,
    rebuild,
    relink,
    write_source,
)
from mcp_assets_tests.observing import rows

DUPLICATE = EdgeType.POSSIBLE_DUPLICATE
A, B, C, PAGE = EntityRef("task", "a"), EntityRef("task", "b"), EntityRef("task", "c"), EntityRef("page", "p")

TITLE = "Renew the certificate of the gateway @10"
BODY = "It ends in thirty days: order a new one, install it, restart the service, tell the people on call."
OTHER = "The lamp in the hall is broken, and the shop has none of its kind; a friend brings one on Monday."


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    """a and b are copies, as is the page; c is as near by its vector, and says something else."""
    platform = make_platform(embedder=AngleEmbedder(threshold=0.8), types=TYPES)
    create_source_tables(platform)
    write_source(platform, A, TITLE, BODY)
    write_source(platform, B, TITLE.upper(), BODY.replace("order", "oder"))
    write_source(platform, C, TITLE, OTHER)
    write_source(platform, PAGE, TITLE, f"{BODY} Ask Kim.")
    index(platform, A, B, C, PAGE)
    relink(platform)
    return platform


def pairs(platform: Platform) -> set[frozenset[str]]:
    """The pairs that have an edge, each in both directions."""
    keys = set(graph(platform, [DUPLICATE]))
    assert {(key.target, key.source) for key in keys} == {(key.source, key.target) for key in keys}
    return {frozenset((str(key.source), str(key.target))) for key in keys}


ALL_THREE = {frozenset(pair) for pair in (("task:a", "task:b"), ("task:a", "page:p"), ("task:b", "page:p"))}


def test_copies_have_edges_with_their_evidence_and_what_only_looks_like_one_has_none(world: Platform) -> None:
    assert pairs(world) == ALL_THREE

    found = {(key.source, key.target): why for key, why in evidence(world).items() if key.type is DUPLICATE}
    why = found[A, B]
    assert isinstance(why, dict)
    assert (why["rule"], why["similarity_score"]) == ("copy", 1.0)
    assert 0.7 <= why["shared_words"] < 1.0


def test_edges_follow_each_change_of_words_and_vectors_and_stay_those_of_a_rebuild(world: Platform) -> None:
    def settle(*changed: EntityRef, embed: bool = True) -> set[frozenset[str]]:
        index(world, *changed, embed=embed)
        relink(world)
        now, with_all = pairs(world), graph(world)
        assert rebuild(world) == with_all
        return now

    # Other words and the same vector, so that no list changes.
    write_source(world, B, TITLE, OTHER.replace("Monday", "Tuesday"))
    assert settle(B) == {frozenset(("task:a", "page:p")), frozenset(("task:b", "task:c"))}
    # Other words before there is a vector of them.
    write_source(world, C, TITLE, BODY)
    assert settle(C, embed=False) == {
        frozenset(pair) for pair in (("task:a", "page:p"), ("task:a", "task:c"), ("task:c", "page:p"))
    }
    # The same words and another vector; then a number in the title that no other title has: it is a subject of its own.
    write_source(world, C, TITLE.replace("@10", "@70"), BODY)
    assert settle(C) == {frozenset(("task:a", "page:p"))}
    write_source(world, PAGE, TITLE.replace("@10", "@11"), f"{BODY} Ask Kim.")
    assert settle(PAGE) == set()
    write_source(world, PAGE, TITLE, BODY)
    settle(PAGE)
    delete_source(world, A)
    assert settle(A) == set()


def test_a_census_finds_a_lost_and_a_false_edge_and_a_repair_mends_them(world: Platform) -> None:
    before = graph(world)
    rows(
        world,
        "DELETE FROM relationships WHERE relationship_type = %s AND source_id = 'a' AND target_id = 'b' RETURNING 1",
        DUPLICATE.value,
    )
    rows(
        world,
        "UPDATE relationships SET target_id = 'c' WHERE relationship_type = %s AND source_id = 'b' AND target_id = 'a'"
        " RETURNING 1",
        DUPLICATE.value,
    )
    rules = EdgeRules(world)

    drift = rules.differing([A, B, C])

    assert sorted((one.kind, str(one.ref)) for one in drift) == sorted([
        (DriftKind.MISSING_EDGE, "task:a"), (DriftKind.MISSING_EDGE, "task:b"), (DriftKind.SURPLUS_EDGE, "task:b"),
    ])  # fmt: skip
    assert link_again(world, [A, B], rules) == {A, B}
    assert graph(world) == before


def test_a_pair_that_a_team_rejects_stays_away_until_a_text_changes_and_others_stay(world: Platform) -> None:
    judge(world, A, B, edge_type=DUPLICATE, decision=Decision.REJECTED, by="kim")
    left = ALL_THREE - {frozenset(("task:a", "task:b"))}
    assert pairs(world) == left
    # A list that is written again for another reason brings it not back.
    write_source(world, C, TITLE, f"{OTHER} Or on Tuesday.")
    write_source(world, PAGE, TITLE, f"{BODY} Ask Kim or Lee.")
    index(world, C, PAGE)
    relink(world)
    assert pairs(world) == left
    now = graph(world)
    assert rebuild(world) == now

    write_source(world, B, TITLE, f"{BODY} Today.")
    index(world, B)
    relink(world)
    assert pairs(world) == ALL_THREE


def shown(found: DuplicatesFound) -> list[tuple[str | None, str]]:
    return [(str(pair.one) if pair.one else None, str(pair.other)) for pair in found.pairs]


def test_the_list_has_each_pair_once_nearest_copies_first(world: Platform) -> None:
    found = stored_duplicates(world, limit=10)
    assert {frozenset(pair) for pair in shown(found)} == ALL_THREE
    assert len(found.pairs) == 3
    assert [pair.strength for pair in found.pairs] == sorted((pair.strength for pair in found.pairs), reverse=True)
    assert found.titles[A] == TITLE
    best = stored_duplicates(world, limit=1)
    assert (shown(best), best.more) == (shown(found)[:1], 2)
    assert set(shown(stored_duplicates(world, types=["page"], limit=10))) == {
        ("page:p", "task:a"),
        ("page:p", "task:b"),
    }
    assert set(shown(stored_duplicates(world, B, limit=10))) == {("task:a", "task:b"), ("page:p", "task:b")}
    assert shown(stored_duplicates(world, C, limit=10)) == []


def test_a_text_that_is_not_written_yet_finds_what_exists(world: Platform) -> None:
    found = duplicates_of_text(world, TITLE, f"Please: {BODY}", limit=10)
    assert set(shown(found)) == {(None, "task:a"), (None, "task:b"), (None, "page:p")}
    assert shown(duplicates_of_text(world, TITLE, BODY, types=["task"], limit=1)) == [(None, "task:a")]
    assert shown(duplicates_of_text(world, TITLE.replace("@10", "@80"), BODY, limit=10)) == []
    assert shown(duplicates_of_text(world, "Something else @10", "", limit=10)) == []
    with pytest.raises(TextRefused, match="empty"):
        duplicates_of_text(world, " ", "", limit=10)


def test_a_request_gets_the_answer_of_the_tool_and_each_error_as_a_sentence(world: Platform) -> None:
    tools = DuplicateTools(world, Tools(world))

    def asked(**body: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(tools.answer(json.dumps(body).encode()))
        return answer

    of_text = asked(title=TITLE, content=BODY, types=["task"])
    assert of_text == tools.duplicates(title=TITLE, content=BODY, types=["task"]).model_dump(mode="json")
    first = of_text["duplicates"][0]
    assert (first["entity"], first["of"]) == ({"entity": "task:a", "title": TITLE}, None)
    of_entity = asked(entity="task:b")["duplicates"]
    assert {(one["entity"]["entity"], one["of"]["entity"]) for one in of_entity} == {
        ("task:a", "task:b"),
        ("page:p", "task:b"),
    }
    assert len(json.loads(tools.answer(b""))["duplicates"]) == 3

    assert "there is no entity task:zz" in asked(entity="task:zz")["error"]
    assert "not both" in str(asked(entity="task:a", title="x")["error"])
    assert "no entity type 'x': one of task, page, memory" in str(asked(title="x", types=["x"])["error"])
    assert "contents: Extra inputs" in str(asked(contents="x")["error"])
    assert "limit" in str(asked(limit=0)["error"])
    assert "docs/how-to/duplicates.md" in json.loads(tools.answer(b"no JSON"))["error"]
