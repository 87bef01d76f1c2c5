"""The data of the HTML page: what is one line, in which order lines come, and what evidence they carry."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EDGE_COLOURS, KEPT, EdgeType
from mcp_assets.sync.views.evidence import Evidence, evidence_of
from mcp_assets.sync.views.graph import ExportedEdge
from mcp_assets.sync.views.page_data import PageData

A, B, C = EntityRef("task", "a"), EntityRef("task", "b"), EntityRef("page", "c")


def edge(
    source: EntityRef,
    target: EntityRef,
    edge_type: str = "cross_reference",
    strength: float | None = 1.0,
    metadata: Mapping[str, Any] | None = None,
    origin: str | None = "mcp_assets",
) -> ExportedEdge:
    title = target.id.upper()
    return ExportedEdge(*source, *target, edge_type, strength, metadata or {}, origin, None, title)


def test_similarity_in_both_directions_is_one_line_and_references_in_both_are_two() -> None:
    data = PageData.of(
        [
            edge(A, B, "semantic_similarity", 0.8),
            edge(B, A, "semantic_similarity", 0.8),
            edge(A, C, "topical_relevance", 0.5),
            edge(C, A, "topical_relevance", 0.4),
            edge(A, B),
            edge(B, A),
        ]
    )
    assert data.rows == 6
    assert [(line.source, line.target, line.type, line.both) for line in data.lines] == [
        (A, B, "cross_reference", False),
        (B, A, "cross_reference", False),
        (A, B, "semantic_similarity", True),
        (A, C, "topical_relevance", False),
        (C, A, "topical_relevance", False),
    ]


def test_the_strongest_come_first_and_of_equally_strong_ones_the_types_take_turns() -> None:
    edges = [edge(A, EntityRef("page", str(number)), "topical_relevance") for number in range(4)]
    edges += [edge(B, EntityRef("page", str(number))) for number in range(2)]
    edges += [edge(A, B, "semantic_similarity", 0.99), edge(B, C, "other", None), edge(C, A, "nan", float("nan"))]
    lines = PageData.of(edges).lines
    assert all((one.strength or 0) >= (other.strength or 0) for one, other in pairwise(lines))
    assert [line.type for line in lines[:6]] == [
        "cross_reference", "topical_relevance", "cross_reference", "topical_relevance", "topical_relevance",
        "topical_relevance",
    ]  # fmt: skip
    assert lines == PageData.of(reversed(edges)).lines


def test_of_equal_edges_no_entity_has_all_its_own_before_the_others_have_some() -> None:
    hub = [edge(A, EntityRef("page", f"{number:02}")) for number in range(20)]
    small = [edge(B, EntityRef("memory", str(number))) for number in range(3)]
    lines = PageData.of(hub + small).lines
    assert {line.source for line in lines[:4]} == {A}  # the most connected first
    assert {line.source for line in lines[4:7]} == {B}


@pytest.mark.parametrize(
    ("metadata", "evidence"),
    [
        ({"rule": "text", "context": "see task:b", "reference_type": "id"}, Evidence("text", "see task:b")),
        ({"rule": "tags", "shared": ["x", "y"]}, Evidence("tags", "x, y")),
        ({"rule": "cosine", "model": "m", "similarity_score": 0.7}, Evidence("cosine", "model m")),
        ({"rule": "slug"}, Evidence("slug", "")),
        ({"rule": "slug", KEPT: "verdict"}, Evidence("slug, kept by a verdict", "")),
        ({}, Evidence("", "")),
        ({"why": ["another", 1]}, Evidence("", '{"why": ["another", 1]}')),
        ({"context": "x" * 600}, Evidence("", "x" * 500)),
        ({"rule": 1, "shared": "x"}, Evidence("", '{"rule": 1, "shared": "x"}')),
    ],
)
def test_the_evidence_is_the_rule_and_its_words(metadata: dict[str, Any], evidence: Evidence) -> None:
    assert evidence_of(metadata) == evidence


def test_shared_tags_are_shown_with_their_weights() -> None:
    shared = {"rule": "tags", "shared": ["rare", "common", "new"]}
    (line,) = PageData.of([edge(A, B, metadata=shared)], {"rare": 0.5, "common": 0.1}).lines
    assert line.evidence.words == "rare (0.50), common (0.10), new"


def test_the_columns_say_what_the_lines_say() -> None:
    edges = [edge(A, C, metadata={"rule": "text", "context": "see"}), edge(C, B, "blocks", None, origin=None)]
    found = PageData.of(edges).as_json(EntityUrl.of("https://wiki.example.org/{type}/{id}"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["entityTypes"] == ["page", "task"]
    assert found["edgeTypes"] == [
        {"name": "cross_reference", "colour": EDGE_COLOURS[EdgeType.CROSS_REFERENCE], "directed": True},
        {"name": "blocks", "colour": "#7f7f7f", "directed": True},
    ]
    vertices = found["vertices"]
    assert (vertices["id"], vertices["title"]) == (["c", "a", "b"], ["C", "", "B"])
    assert vertices["url"][1] == "https://wiki.example.org/task/a"
    columns = found["edges"]
    assert (columns["source"], columns["target"], columns["strength"]) == ([1, 0], [0, 2], [1.0, None])
    texts = [[found["texts"][columns[name][line]] for name in ("rule", "words", "origin")] for line in (0, 1)]
    assert texts == [["text", "see", "mcp_assets"], ["", "", ""]]
    assert "url" not in PageData.of(edges).as_json()["vertices"]


def test_the_same_edges_give_the_same_places_and_none_gives_none() -> None:
    edges = [edge(EntityRef("task", str(one)), EntityRef("task", str(one * one % 17))) for one in range(2, 17)]
    assert PageData.of(edges).as_json() == PageData.of(edges).as_json()
    assert PageData.of([]).as_json()["vertices"]["x"] == []


def test_an_edge_type_without_an_entity_type_is_kept() -> None:
    lost = ExportedEdge(None, "1", None, "2", "x", 0.5, {}, None, None, None)
    assert [str(ref) for ref in PageData.of([lost]).titles] == ["?:1", "?:2"]
