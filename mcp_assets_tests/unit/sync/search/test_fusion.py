"""Fusion: rankings are merged by ranks, weights and shares."""

from mcp_assets.entities.refs import EntityRef
from mcp_assets.sync.search.fusion import Ranked, fuse

A, B, C = (EntityRef("task", letter) for letter in "abc")


def test_an_entity_that_is_first_everywhere_scores_one() -> None:
    fused = fuse({"words": (3.0, [Ranked(A, 9.0)]), "meaning": (1.0, [Ranked(A, 0.8), Ranked(B, 0.7)])})

    assert [one.ref for one in fused] == [A, B]
    assert fused[0].score == 1.0
    assert [(part.ranking, part.rank, part.score) for part in fused[0].contributions] == [
        ("words", 1, 9.0),
        ("meaning", 1, 0.8),
    ]


def test_the_ranking_of_more_weight_decides() -> None:
    rankings = [Ranked(A, 1.0), Ranked(B, 0.9)], [Ranked(B, 1.0), Ranked(A, 0.9)]

    assert fuse({"words": (3.0, rankings[0]), "meaning": (1.0, rankings[1])})[0].ref == A
    assert fuse({"words": (1.0, rankings[0]), "meaning": (3.0, rankings[1])})[0].ref == B


def test_an_entity_gets_of_a_ranking_what_its_share_is() -> None:
    fused = fuse({"words": (3.0, [Ranked(A, 5.0, share=0.2)]), "meaning": (1.0, [Ranked(B, 0.9)])})

    assert [one.ref for one in fused] == [B, A]


def test_equal_scores_are_ordered_by_type_and_id() -> None:
    fused = fuse({"words": (1.0, [Ranked(C, 1.0), Ranked(A, 0.9)]), "meaning": (1.0, [Ranked(A, 1.0), Ranked(C, 0.9)])})

    assert [one.ref for one in fused] == [A, C]
    assert fused[0].score == fused[1].score


def test_rankings_without_weight_or_entities_add_nothing() -> None:
    assert fuse({}) == []
    assert [one.score for one in fuse({"words": (0.0, [Ranked(A, 1.0)])})] == [0.0]
