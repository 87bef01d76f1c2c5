"""Verdicts, applied to the edges that the rules make: what is rejected stays away, what is accepted stays."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KEPT, Decision, Edge, EdgeKey, EdgeType, End, ListedEdge, Verdict, Verdicts
from mcp_assets.graph.verdicts import evidence_of_edge

A, B, C = (EntityRef("task", letter) for letter in "abc")
ENDS = {A: End("text of a", frozenset({"red", "green"})), B: End("text of b", frozenset({"red", "blue"}))}
SEMANTIC, TOPICAL, CROSS = EdgeType.SEMANTIC_SIMILARITY, EdgeType.TOPICAL_RELEVANCE, EdgeType.CROSS_REFERENCE

METADATA: Mapping[EdgeType, Mapping[str, Any]] = {
    SEMANTIC: {"rule": "cosine", "model": "m", "similarity_score": 0.9},
    TOPICAL: {"rule": "tags", "shared": ["red"]},
    CROSS: {"rule": "text", "reference_type": "id", "context": "see task:b"},
}

CHANGES: tuple[tuple[EdgeType, Mapping[EntityRef, End], Mapping[str, Any]], ...] = (
    (SEMANTIC, {A: End("another text", ENDS[A].tags)}, {}),
    (SEMANTIC, {B: End("another text", ENDS[B].tags)}, {}),
    (TOPICAL, {A: End("text of a", frozenset({"red", "blue"}))}, {}),
    (CROSS, {}, {"context": "never mind task:b"}),
    (CROSS, {}, {"rule": "metadata:depends_on"}),
)
"""Changes of an edge's evidence: its type, the ends that changed, the metadata that changed."""

NO_CHANGES: tuple[tuple[EdgeType, Mapping[EntityRef, End], Mapping[str, Any]], ...] = (
    (SEMANTIC, {A: End("text of a", frozenset({"new"}))}, {"model": "another", "similarity_score": 0.7}),
    (TOPICAL, {A: End("another text", frozenset({"red", "new"}))}, {}),
    (CROSS, {A: End("another text", frozenset())}, {}),
)
"""Changes that are none of the evidence: scores, models, tags that are not shared, text elsewhere."""


def verdict(
    edge_type: EdgeType,
    decision: Decision,
    now: Mapping[EntityRef, End | None] = ENDS,
    *,
    source: EntityRef = A,
    target: EntityRef = B,
    strength: float | None = 0.5,
) -> Verdict:
    metadata = METADATA[edge_type]
    evidence = evidence_of_edge(edge_type, metadata, ENDS[source], ENDS[target])
    key = EdgeKey(source, target, edge_type)
    return Verdict(key, decision, evidence, strength, metadata, now.get(source), now.get(target))


def made(edge_type: EdgeType, **changed: Any) -> Edge:
    return Edge(A, B, edge_type, 0.9, {**METADATA[edge_type], **changed})


def judged(found: Verdict, *edges: Edge) -> list[Edge]:
    """By both functions, which have to agree for a type that has lists."""
    verdicts, edge_type = Verdicts([found]), found.key.type
    result = list(verdicts.judged([A, B], [edge_type], edges))
    if edge_type in (SEMANTIC, TOPICAL):
        listed = [ListedEdge(edge.source, edge.target, edge.strength, json.dumps(edge.metadata)) for edge in edges]
        by_list = [edge.of_type(edge_type) for edge in verdicts.judged_list([A, B], edge_type, listed)]
        assert by_list == result
    return result


@pytest.mark.parametrize("edge_type", [SEMANTIC, TOPICAL, CROSS])
def test_a_rejected_edge_stays_away_and_other_edges_stay(edge_type: EdgeType) -> None:
    other = Edge(A, C, edge_type, 0.8)
    assert judged(verdict(edge_type, Decision.REJECTED), made(edge_type), other) == [other]


@pytest.mark.parametrize(("edge_type", "ends", "metadata"), CHANGES)
def test_a_rejected_edge_is_back_when_its_evidence_changes(
    edge_type: EdgeType, ends: Mapping[EntityRef, End], metadata: Mapping[str, Any]
) -> None:
    edge = made(edge_type, **metadata)
    assert judged(verdict(edge_type, Decision.REJECTED, {**ENDS, **ends}), edge) == [edge]


@pytest.mark.parametrize(("edge_type", "ends", "metadata"), NO_CHANGES)
def test_scores_models_and_what_the_edge_does_not_rest_on_bring_no_rejected_edge_back(
    edge_type: EdgeType, ends: Mapping[EntityRef, End], metadata: Mapping[str, Any]
) -> None:
    assert judged(verdict(edge_type, Decision.REJECTED, {**ENDS, **ends}), made(edge_type, **metadata)) == []


@pytest.mark.parametrize("edge_type", [SEMANTIC, TOPICAL, CROSS])
def test_an_accepted_edge_is_that_of_the_rules_while_they_make_it_and_that_of_the_verdict_afterwards(
    edge_type: EdgeType,
) -> None:
    accepted = verdict(edge_type, Decision.ACCEPTED)
    assert judged(accepted, made(edge_type)) == [made(edge_type)]
    assert judged(accepted) == [Edge(A, B, edge_type, 0.5, {**METADATA[edge_type], KEPT: "verdict"})]


@pytest.mark.parametrize("gone", [A, B])
def test_no_edge_is_kept_without_both_ends_or_where_there_was_none(gone: EntityRef) -> None:
    assert judged(verdict(CROSS, Decision.ACCEPTED, {**ENDS, gone: None})) == []
    assert judged(verdict(SEMANTIC, Decision.ACCEPTED, strength=None)) == []


def test_only_edges_of_the_sources_and_types_asked_for_are_kept() -> None:
    accepted = Verdicts([verdict(CROSS, Decision.ACCEPTED)])
    assert list(accepted.judged([B], [CROSS], [])) == []
    assert list(accepted.judged([A], [SEMANTIC], [])) == []
    assert list(accepted.judged_list([A], SEMANTIC, [])) == []


def test_a_verdict_is_about_one_direction() -> None:
    mirrored = Edge(B, A, SEMANTIC, 0.9)
    assert judged(verdict(SEMANTIC, Decision.REJECTED), made(SEMANTIC), mirrored) == [mirrored]


def test_a_changed_entity_has_all_edges_judged_again_of_which_it_is_an_end() -> None:
    verdicts = Verdicts([verdict(SEMANTIC, Decision.REJECTED), verdict(CROSS, Decision.REJECTED, source=B, target=A)])
    assert verdicts.sources_of([B], [SEMANTIC]) == {A}
    assert verdicts.sources_of([B], [SEMANTIC, CROSS]) == {A, B}
    assert verdicts.sources_of([C], [SEMANTIC, CROSS]) == set()


def test_without_verdicts_the_edges_are_given_back_as_they_are() -> None:
    edges: list[Edge] = [made(SEMANTIC)]
    listed: list[ListedEdge] = []
    assert Verdicts().judged([A], [SEMANTIC], edges) is edges
    assert Verdicts().judged_list([A], SEMANTIC, listed) is listed
