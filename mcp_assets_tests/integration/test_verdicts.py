"""Verdicts: rejected edges are away until their evidence changes, accepted ones stay, and a rebuild gives the same."""

from collections.abc import Callable

import pytest

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KEPT, Decision, EdgeKey, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.link.judging import Judged, VerdictRefused, judge
from mcp_assets.sync.views.explanations import explain
from mcp_assets.sync.views.graph import related
from mcp_assets.sync.views.verdicts import END_GONE, EVIDENCE_CHANGED, IN_FORCE, ListedVerdict, list_verdicts
from mcp_assets_tests.linking import (
    TYPES,
    AngleEmbedder,
    delete_source,
    evidence,
    graph,
    index,
    rebuild,
    relink,
    shorten_lists,
    write_source,
)

A, B, C, D = (EntityRef("task", letter) for letter in "abcd")
SEMANTIC, TOPICAL = EdgeType.SEMANTIC_SIMILARITY, EdgeType.TOPICAL_RELEVANCE
SEQUENTIAL, CROSS = EdgeType.SEQUENTIAL_DEPENDENCY, EdgeType.CROSS_REFERENCE


@pytest.fixture
def world(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Lists of one place without reserves: the vectors of a, b, c lie 10 degrees apart, and a depends on d."""
    shorten_lists(monkeypatch, 1, 1)
    platform = make_platform(embedder=AngleEmbedder(threshold=0.8), types=TYPES)
    create_source_tables(platform)
    put(platform, A, "@0 depends on task:d", tags=["red", "rare"])
    put(platform, B, "@10", tags=["red"])
    put(platform, C, "@20")
    put(platform, D, "@200")
    relink(platform)
    return platform


def put(platform: Platform, ref: EntityRef, content: str, **metadata: object) -> None:
    write_source(platform, ref, None, content, metadata)
    index(platform, ref)


def decide(
    platform: Platform, decision: Decision | None, one: EntityRef, other: EntityRef, edge_type: EdgeType | None = None
) -> Judged:
    judged = judge(platform, one, other, edge_type=edge_type, decision=decision, by="ada", note="why not")
    assert judged.linked
    return judged


def targets(platform: Platform, source: EntityRef, edge_type: EdgeType) -> list[EntityRef]:
    return sorted(edge.target for edge in graph(platform) if edge.source == source and edge.type is edge_type)


def assert_settled(platform: Platform) -> None:
    """The edges are those of a rebuild, and neither a census nor a repair changes them."""
    incremental, shown = graph(platform), evidence(platform)
    found = validate(platform, entity_types=["task"], repair=True, deep=True)
    assert not found.left
    assert not {kind for kind in found.found if "edge" in kind or "link" in kind}
    assert graph(platform) == incremental
    assert rebuild(platform) == incremental
    assert evidence(platform) == shown


def listed(platform: Platform) -> list[ListedVerdict]:
    return list_verdicts(platform, limit=10)


def test_a_rejected_edge_is_away_in_both_directions_and_frees_no_place(world: Platform) -> None:
    assert targets(world, A, SEMANTIC) == [B]
    decide(world, Decision.REJECTED, A, B, SEMANTIC)

    assert targets(world, A, SEMANTIC) == []
    assert A not in targets(world, B, SEMANTIC)
    # A newcomer behind b does not take the place that b holds.
    put(world, EntityRef("task", "e"), "@15 later")
    relink(world)
    assert targets(world, A, SEMANTIC) == []
    assert_settled(world)

    decide(world, None, B, A, SEMANTIC)
    assert targets(world, A, SEMANTIC) == [B]
    assert listed(world) == []
    assert_settled(world)


def test_a_rejected_similarity_is_back_when_a_text_changes_and_away_again_when_it_is_as_before(world: Platform) -> None:
    decide(world, Decision.REJECTED, A, B, SEMANTIC)
    # Tags are no evidence of a similarity.
    put(world, B, "@10", tags=["red", "new"])
    relink(world)
    assert targets(world, A, SEMANTIC) == []
    assert listed(world)[0].state == IN_FORCE

    put(world, B, "@9 rewritten", tags=["red"])
    relink(world)
    assert targets(world, A, SEMANTIC) == [B]
    assert listed(world)[0].state == EVIDENCE_CHANGED
    assert_settled(world)

    put(world, B, "@10", tags=["red"])
    relink(world)
    assert targets(world, A, SEMANTIC) == []
    assert_settled(world)


def test_a_rejected_topic_is_back_when_the_shared_tags_change_alone(world: Platform) -> None:
    decide(world, Decision.REJECTED, B, A, TOPICAL)
    put(world, B, "@10 another text", tags=["red", "new"])
    relink(world)
    assert targets(world, A, TOPICAL) == []

    put(world, B, "@10", tags=["red", "rare"])
    relink(world)
    assert targets(world, A, TOPICAL) == [B]
    assert_settled(world)


def test_a_rejected_reference_is_back_when_its_words_change_alone(world: Platform) -> None:
    decide(world, Decision.REJECTED, A, D, SEQUENTIAL)
    assert targets(world, A, SEQUENTIAL) == []
    assert targets(world, A, CROSS) == [D]
    text = "@0 depends on task:d"
    put(world, A, f"{text}\n\nmore", tags=["red", "rare"])
    relink(world)
    assert targets(world, A, SEQUENTIAL) == []
    assert listed(world)[0].state == IN_FORCE
    assert_settled(world)

    put(world, A, "@0 it depends on task:d now", tags=["red", "rare"])
    relink(world)
    assert targets(world, A, SEQUENTIAL) == [D]
    assert listed(world)[0].state == EVIDENCE_CHANGED
    assert_settled(world)


def test_an_accepted_edge_stays_though_no_rule_makes_it_until_an_end_is_gone(world: Platform) -> None:
    decide(world, Decision.ACCEPTED, A, D, SEQUENTIAL)
    decide(world, Decision.ACCEPTED, A, B, SEMANTIC)
    before = graph(world)
    put(world, A, "@90 nothing of it", tags=["red", "rare"])
    relink(world)

    assert targets(world, A, SEQUENTIAL) == [D]
    assert targets(world, A, CROSS) == []
    assert targets(world, A, SEMANTIC) == [B]
    key = EdgeKey(A, D, SEQUENTIAL)
    assert graph(world)[key] == before[key]
    edges, _ = related(world, A, types=[SEQUENTIAL])
    (why,), _ = explain(world, edges)
    assert (why.kept, why.words, why.verdict and why.verdict.by) == (True, "@0 depends on task:d", "ada")
    assert_settled(world)

    delete_source(world, D)
    index(world, D)
    relink(world)
    assert targets(world, A, SEQUENTIAL) == []
    assert {one.state for one in listed(world)} == {IN_FORCE, END_GONE}
    assert_settled(world)

    put(world, D, "@200")
    relink(world)
    assert targets(world, A, SEQUENTIAL) == [D]
    assert evidence(world)[key] == {**evidence(world)[key], KEPT: "verdict"}  # type: ignore[dict-item]
    assert_settled(world)


def test_a_later_verdict_replaces_the_one_before(world: Platform) -> None:
    decide(world, Decision.REJECTED, A, D, SEQUENTIAL)
    decide(world, Decision.ACCEPTED, A, D, SEQUENTIAL)
    assert targets(world, A, SEQUENTIAL) == [D]
    assert [(one.decision, one.by, one.note) for one in listed(world)] == [(Decision.ACCEPTED, "ada", "why not")]
    assert_settled(world)


def test_what_cannot_be_judged_is_said_and_changes_nothing(world: Platform) -> None:
    before = graph(world)
    for one, other, edge_type, decision, said in (
        (D, A, SEQUENTIAL, Decision.REJECTED, "it leads from task:a to task:d"),
        (A, D, SEMANTIC, Decision.ACCEPTED, "cross_reference, sequential_dependency"),
        (A, D, None, Decision.REJECTED, "name one of cross_reference, sequential_dependency"),
        (C, D, None, Decision.ACCEPTED, "nothing to judge between task:c and task:d"),
        (A, D, SEQUENTIAL, None, "no verdict about an edge task:a → task:d"),
    ):
        with pytest.raises(VerdictRefused, match=said):
            judge(world, one, other, edge_type=edge_type, decision=decision, by="ada")
    assert graph(world) == before
    assert listed(world) == []


def test_the_evidence_of_an_edge_names_words_and_place_tags_and_both_scores(world: Platform) -> None:
    put(world, C, "@20 see first", blocks=["a"])
    relink(world)
    edges, _ = related(world, A)
    explanations, missing = explain(world, edges)
    why = {(edge.source, edge.target, edge.edge_type): one for edge, one in zip(edges, explanations, strict=True)}

    assert missing is None
    sequential = why[A, D, SEQUENTIAL]
    assert (sequential.rule, sequential.words) == ("text:depends on", "@0 depends on task:d")
    assert sequential.place is not None
    assert (str(sequential.place), sequential.place.span) == ("characters 14 to 20 of task:a", (14, 20))
    assert sequential.as_dict()["place"] == {"entity": "task:a", "part": "text", "span": (14, 20)}
    assert sequential.cosine == pytest.approx(-0.9397, abs=1e-4)
    topical = why[A, B, TOPICAL]
    assert [one.tag for one in topical.tags] == ["red"]
    assert topical.relevance == 0.5
    assert topical.cosine == pytest.approx(0.9848, abs=1e-4)
    blocked = why[A, C, SEQUENTIAL]
    assert str(blocked.place) == "blocks of task:c"
