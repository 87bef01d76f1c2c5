"""Ranked lists: order, ties, and that incremental changes give what a rebuild gives."""

from collections.abc import Mapping

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.ranking import (
    LIST_AND_RESERVES,
    LIST_LENGTH,
    UNKNOWN_LIST,
    Neighbour,
    NeighbourList,
    Ranking,
    differing,
    ranked,
    truncated,
    update_lists,
    updated_list,
)
from mcp_assets.tuning import LinkTuning
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
    neighbours = [Neighbour(EntityRef("task", f"{number:02}"), 0.5) for number in range(25)]
    assert ranked(neighbours) == tuple(neighbours[:20])
    assert LIST_LENGTH == 20


def test_a_search_for_a_list_finds_its_reserves_too() -> None:
    assert LinkTuning().list_hits >= LIST_AND_RESERVES


FULL = NeighbourList(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.7)
SHORT = NeighbourList(listed((A, 0.9), (B, 0.8)))
WITH_RESERVE = NeighbourList(listed((A, 0.9), (B, 0.8), (C, 0.7), (D, 0.6)), 0.6)


@pytest.mark.parametrize(
    ("before", "changed", "score", "expected"),
    [
        (FULL, D, 0.85, NeighbourList(listed((A, 0.9), (D, 0.85), (B, 0.8), (C, 0.7)), 0.7)),
        (FULL, D, 0.7, FULL),
        (FULL, D, None, FULL),
        (FULL, A, 0.75, NeighbourList(listed((B, 0.8), (A, 0.75), (C, 0.7)), 0.7)),
        (FULL, C, 0.7, FULL),
        (FULL, A, None, None),
        (FULL, A, 0.6, None),
        (FULL, C, 0.69, None),
        (NeighbourList(listed((D, 0.9), (B, 0.8), (C, 0.7)), 0.7), D, 0.7, None),
        (FULL, B, 0.7, NeighbourList(listed((A, 0.9), (B, 0.7), (C, 0.7)), 0.7)),
        (SHORT, A, None, NeighbourList(listed((B, 0.8)))),
        (SHORT, A, 0.6, NeighbourList(listed((B, 0.8), (A, 0.6)))),
        (SHORT, D, 0.7, NeighbourList(listed((A, 0.9), (B, 0.8), (D, 0.7)))),
        (NeighbourList(), D, 0.7, NeighbourList(listed((D, 0.7)))),
        (NeighbourList(), D, None, NeighbourList()),
        (WITH_RESERVE, A, None, NeighbourList(listed((B, 0.8), (C, 0.7), (D, 0.6)), 0.6)),
        (WITH_RESERVE, D, None, NeighbourList(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.6)),
        (WITH_RESERVE, D, 0.59, NeighbourList(listed((A, 0.9), (B, 0.8), (C, 0.7)), 0.6)),
        (WITH_RESERVE, E, 0.65, NeighbourList(listed((A, 0.9), (B, 0.8), (C, 0.7), (E, 0.65)), 0.65)),
        (WITH_RESERVE, E, 0.6, WITH_RESERVE),
        (WITH_RESERVE, E, 0.59, WITH_RESERVE),
        (UNKNOWN_LIST, E, 1.0, None),
        (UNKNOWN_LIST, E, None, None),
        (NeighbourList(FULL.neighbours, 0.6), E, 0.61, NeighbourList((*FULL.neighbours, Neighbour(E, 0.61)), 0.6)),
        (NeighbourList(FULL.neighbours, 0.6), E, 0.6, NeighbourList(FULL.neighbours, 0.6)),
        (NeighbourList(WITH_RESERVE.neighbours), E, 0.7, NeighbourList((*FULL.neighbours, Neighbour(E, 0.7)), 0.7)),
    ],
    ids=[
        "a newcomer makes the last of the list a reserve",
        "a newcomer that ties with the last and has the larger id stays out",
        "an entity that was not listed goes, and the list stays",
        "a member that falls but stays before the last is moved",
        "the last with the same score stays",
        "a full list that loses a member and has no reserve has to be queried",
        "a member that falls behind the last makes a query necessary",
        "the last that falls makes a query necessary",
        "a member that falls to a tie with the last, which it loses, makes a query necessary",
        "a member that falls to a tie with the last, which it wins, is moved",
        "a short list that loses a member keeps the rest",
        "a member of a short list is moved without a query",
        "a short list takes a newcomer",
        "an empty list takes a newcomer",
        "an empty list that gets no newcomer stays empty",
        "a reserve moves up for a member that is lost",
        "the cut-off stays when a reserve is lost",
        "a reserve that falls behind the cut-off is lost",
        "a newcomer displaces the last reserve",
        "a newcomer that ties with the last reserve and has the larger id stays out",
        "a newcomer behind the last reserve stays out",
        "an unknown list has to be queried when a newcomer comes",
        "an unknown list has to be queried when an entity goes",
        "a newcomer above the cut-off becomes a reserve",
        "a newcomer at the cut-off may tie with an entity outside, and stays out",
        "a list that had no cut-off gets one when it is truncated",
    ],
)
def test_the_list_after_a_change(
    before: NeighbourList, changed: EntityRef, score: float | None, expected: NeighbourList | None
) -> None:
    near = [] if score is None else [Neighbour(changed, score)]
    assert updated_list(before, {changed}, near, LIMIT, KEPT) == expected


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
def test_lists_updated_by_several_changes_at_once_are_those_of_a_rebuild(
    batches: list[list[tuple[EntityRef, int | None]]], kept: int
) -> None:
    """Each changed entity comes only with those whose cut-off it reaches, or that have no cut-off."""
    positions: dict[EntityRef, int] = {}
    lists: dict[EntityRef, NeighbourList] = {}

    def rebuilt(ref: EntityRef) -> NeighbourList:
        near = ranked(scores_of(positions, ref), kept + 1) if ref in positions else ()
        return truncated(near, None, kept)

    for batch in batches:
        for changed, position in batch:
            positions.pop(changed, None)
            if position is not None:
                positions[changed] = position
        reached = {
            ref: [
                near
                for near in (scores_of(positions, ref) if ref in positions else [])
                if (cut_off := lists.get(near.ref, NeighbourList()).cut_off) is None or near.score >= cut_off
            ]
            for ref, _ in batch
        }
        updated, to_query = update_lists(reached, lists, LIMIT, kept)
        assert not updated.keys() & to_query
        assert all(lists[ref].cut_off is not None for ref in to_query), "a list without cut-off holds all neighbours"
        if to_query:
            event("queried")
        lists |= updated
        lists |= {ref: rebuilt(ref) for ref in to_query | reached.keys()}
    for ref, held in lists.items():
        all_neighbours = ranked(scores_of(positions, ref), 100) if ref in positions else ()
        assert held.neighbours == all_neighbours[: len(held.neighbours)]
        assert len(held.neighbours) >= min(LIMIT, len(all_neighbours))
        outside = all_neighbours[len(held.neighbours) :]
        assert not outside if held.cut_off is None else all(near.score <= held.cut_off for near in outside)
    assert lists.keys() >= positions.keys()


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.lists(st.sampled_from("abcdef"), unique=True))
def test_a_neighbour_that_differs_between_two_rankings_is_in_one_alone_or_has_another_score(
    before: str, after: str
) -> None:
    one = tuple(Neighbour(EntityRef("task", name), 0.5) for name in before)
    other = tuple(Neighbour(EntityRef("task", name), 0.6 if name == "a" else 0.5) for name in after)
    assert differing(one, other) == set(one).symmetric_difference(other)
    assert not differing(one, one)
