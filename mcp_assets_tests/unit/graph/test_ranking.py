"""Ranked lists: order, ties, and that incremental changes give what a rebuild gives."""

from collections.abc import Mapping

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.ranking import (
    LIST_LENGTH,
    UNKNOWN,
    Known,
    Neighbour,
    Ranking,
    after_changes,
    cut,
    differing,
    ranked,
    work_in,
)
from mcp_assets_tests.unit.graph.samples import A, B, C

D, E = EntityRef("task", "D"), EntityRef("task", "E")
LIMIT, KEPT = 3, 4


def listed(*neighbours: tuple[EntityRef, float]) -> Ranking:
    return tuple(Neighbour(*neighbour) for neighbour in neighbours)


def test_neighbours_are_ordered_by_score_then_type_then_id_and_cut_at_the_limit() -> None:
    page, memory = EntityRef("page", "Z"), EntityRef("memory", "Z")
    neighbours = listed((B, 0.5), (A, 0.5), (page, 0.5), (memory, 0.5), (C, 0.9))
    assert ranked(neighbours, limit=4) == listed((C, 0.9), (memory, 0.5), (page, 0.5), (A, 0.5))


def test_a_list_has_twenty_places() -> None:
    everybody = [Neighbour(EntityRef("task", f"{number:02}"), 0.5) for number in range(25)]
    assert ranked(everybody) == tuple(everybody[:20])
    assert LIST_LENGTH == 20


FULL = Known(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.7)
SHORT = Known(listed((A, 0.9), (B, 0.8)))
SPARED = Known(listed((A, 0.9), (B, 0.8), (C, 0.7), (D, 0.6)), 0.6)


@pytest.mark.parametrize(
    ("known", "changed", "score", "expected"),
    [
        (FULL, D, 0.85, Known(listed((A, 0.9), (D, 0.85), (B, 0.8), (C, 0.7)), 0.7)),
        (FULL, D, 0.7, FULL),
        (FULL, D, None, FULL),
        (FULL, A, 0.75, Known(listed((B, 0.8), (A, 0.75), (C, 0.7)), 0.7)),
        (FULL, C, 0.7, FULL),
        (FULL, A, None, None),
        (FULL, A, 0.6, None),
        (FULL, C, 0.69, None),
        (Known(listed((D, 0.9), (B, 0.8), (C, 0.7)), 0.7), D, 0.7, None),
        (FULL, B, 0.7, Known(listed((A, 0.9), (B, 0.7), (C, 0.7)), 0.7)),
        (SHORT, A, None, Known(listed((B, 0.8)))),
        (SHORT, A, 0.6, Known(listed((B, 0.8), (A, 0.6)))),
        (SHORT, D, 0.7, Known(listed((A, 0.9), (B, 0.8), (D, 0.7)))),
        (Known(), D, 0.7, Known(listed((D, 0.7)))),
        (Known(), D, None, Known()),
        (SPARED, A, None, Known(listed((B, 0.8), (C, 0.7), (D, 0.6)), 0.6)),
        (SPARED, D, None, Known(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.6)),
        (SPARED, D, 0.59, Known(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.6)),
        (SPARED, E, 0.65, Known(listed((A, 0.9), (B, 0.8), (C, 0.7), (E, 0.65)), 0.65)),
        (SPARED, E, 0.6, SPARED),
        (SPARED, E, 0.59, SPARED),
        (UNKNOWN, E, 1.0, None),
        (UNKNOWN, E, None, None),
        (Known(FULL.neighbours, 0.6), E, 0.61, Known((*FULL.neighbours, Neighbour(E, 0.61)), 0.6)),
        (Known(FULL.neighbours, 0.6), E, 0.6, Known(FULL.neighbours, 0.6)),
        (Known(SPARED.neighbours), E, 0.7, Known((*FULL.neighbours, Neighbour(E, 0.7)), 0.7)),
    ],
    ids=[
        "a newcomer pushes the last among the spares",
        "a newcomer that ties with the last and has the larger id stays out",
        "who was not listed can go unnoticed",
        "a member that falls but stays before the last is moved",
        "the last with the same score stays",
        "a full list that loses a member and has no spare asks again",
        "a member that falls behind the last asks again",
        "the last that falls asks again",
        "a member that falls to a tie with the last, which it loses, asks again",
        "a member that falls to a tie with the last, which it wins, is moved",
        "a short list that loses a member knows the rest",
        "a member of a short list is moved without a query",
        "a short list takes a newcomer",
        "an empty list takes a newcomer",
        "nobody comes to an empty list",
        "a spare moves up for a member that is lost",
        "who comes after a spare that is lost is as unknown as before",
        "a spare that falls behind the floor is lost",
        "a newcomer displaces the last spare",
        "a newcomer that ties with the last spare and has the larger id stays out",
        "a newcomer behind the last spare stays out",
        "of whom nothing is known asks again when somebody comes",
        "of whom nothing is known asks again when somebody goes",
        "a newcomer above the floor becomes a spare",
        "a newcomer at the floor may tie with one who is not known",
        "the first who is left out is known to be",
    ],
)
def test_what_is_known_after_a_change(
    known: Known, changed: EntityRef, score: float | None, expected: Known | None
) -> None:
    near = [] if score is None else [Neighbour(changed, score)]
    assert after_changes(known, {changed}, near, LIMIT, KEPT) == expected


def scores_of(positions: Mapping[EntityRef, int], ref: EntityRef) -> list[Neighbour]:
    """Neighbours on a line: the closer the higher, none further than 4; many ties."""
    distances = {other: abs(positions[ref] - at) for other, at in positions.items() if other != ref}
    return [Neighbour(other, 1 - distance / 10) for other, distance in distances.items() if distance <= 4]


MOVES = st.lists(
    st.tuples(
        st.builds(EntityRef, st.sampled_from(["page", "task"]), st.sampled_from("abcd")),
        st.none() | st.integers(0, 9),
    ),
    max_size=30,
)


MANY_CHANGES = st.lists(MOVES.filter(bool), max_size=6)


@given(MANY_CHANGES, st.integers(LIMIT, LIMIT + 3))
def test_changes_worked_in_together_give_a_rebuild(
    batches: list[list[tuple[EntityRef, int | None]]], kept: int
) -> None:
    """Each change is told only of those to whom it is of concern: whose floor it reaches, or who leave nobody out."""
    positions: dict[EntityRef, int] = {}
    lists: dict[EntityRef, Known] = {}

    def rebuilt(ref: EntityRef) -> Known:
        near = ranked(scores_of(positions, ref), kept + 1) if ref in positions else ()
        return cut(near, None, kept)

    for batch in batches:
        for changed, position in batch:
            positions.pop(changed, None)
            if position is not None:
                positions[changed] = position
        reached = {
            ref: [
                near
                for near in (scores_of(positions, ref) if ref in positions else [])
                if (floor := lists.get(near.ref, Known()).floor) is None or near.score >= floor
            ]
            for ref, _ in batch
        }
        after, asking = work_in(reached, lists, LIMIT, kept)
        assert not after.keys() & asking
        assert all(lists[ref].floor is not None for ref in asking), "who leaves nobody out knows everybody"
        if asking:
            event("asked again")
        lists |= after
        lists |= {ref: rebuilt(ref) for ref in asking | reached.keys()}
    for ref, known in lists.items():
        everybody = ranked(scores_of(positions, ref), 100) if ref in positions else ()
        assert known.neighbours == everybody[: len(known.neighbours)]
        assert len(known.neighbours) >= min(LIMIT, len(everybody))
        left_out = everybody[len(known.neighbours) :]
        assert not left_out if known.floor is None else all(near.score <= known.floor for near in left_out)
    assert lists.keys() >= positions.keys()


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_who_differs_between_two_rankings_is_in_one_alone_or_has_another_score(before: str, after: str) -> None:
    one = tuple(Neighbour(EntityRef("task", name), 0.5) for name in before)
    other = tuple(Neighbour(EntityRef("task", name), 0.6 if name == "a" else 0.5) for name in after)
    assert differing(one, other) == set(one).symmetric_difference(other)
    assert not differing(one, one)
