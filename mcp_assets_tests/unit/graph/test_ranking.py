"""Ranked lists: order, ties, and that incremental changes give what a rebuild gives."""

from collections.abc import Mapping

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.ranking import LIST_LENGTH, Neighbour, Ranking, after_change, changed_lists, ranked, work_in
from mcp_assets_tests.unit.graph.samples import A, B, C

D = EntityRef("task", "D")
LIMIT = 3


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


FULL = listed((A, 0.9), (B, 0.8), (C, 0.7))
SHORT = listed((A, 0.9), (B, 0.8))


@pytest.mark.parametrize(
    ("ranking", "changed", "score", "expected"),
    [
        (FULL, D, 0.85, listed((A, 0.9), (D, 0.85), (B, 0.8))),
        (FULL, D, 0.7, FULL),
        (FULL, D, None, FULL),
        (FULL, A, 0.75, listed((B, 0.8), (A, 0.75), (C, 0.7))),
        (FULL, C, 0.7, FULL),
        (FULL, A, None, None),
        (FULL, A, 0.6, None),
        (FULL, C, 0.69, None),
        (listed((D, 0.9), (B, 0.8), (C, 0.7)), D, 0.7, None),
        (FULL, B, 0.7, listed((A, 0.9), (B, 0.7), (C, 0.7))),
        (SHORT, A, None, listed((B, 0.8))),
        (SHORT, A, 0.6, listed((B, 0.8), (A, 0.6))),
        (SHORT, D, 0.7, listed((A, 0.9), (B, 0.8), (D, 0.7))),
        ((), D, 0.7, listed((D, 0.7))),
        ((), D, None, ()),
    ],
    ids=[
        "a newcomer displaces the last",
        "a newcomer that ties with the last and has the larger id stays out",
        "who was not listed can go unnoticed",
        "a member that falls but stays before the last is moved",
        "the last with the same score stays",
        "a full list that loses a member asks again",
        "a member that falls behind the last asks again",
        "the last that falls asks again",
        "a member that falls to a tie with the last, which it loses, asks again",
        "a member that falls to a tie with the last, which it wins, is moved",
        "a short list that loses a member knows the rest",
        "a member of a short list is moved without a query",
        "a short list takes a newcomer",
        "an empty list takes a newcomer",
        "nobody comes to an empty list",
    ],
)
def test_the_list_after_a_change(
    ranking: Ranking, changed: EntityRef, score: float | None, expected: Ranking | None
) -> None:
    assert after_change(ranking, changed, score, LIMIT) == expected


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


@given(MOVES)
def test_lists_kept_up_with_every_change_are_those_of_a_rebuild(moves: list[tuple[EntityRef, int | None]]) -> None:
    positions: dict[EntityRef, int] = {}
    lists: dict[EntityRef, Ranking] = {}
    for changed, position in moves:
        positions.pop(changed, None)
        if position is not None:
            positions[changed] = position
        neighbourhood = scores_of(positions, changed) if position is not None else []
        concerned = {changed, *(ref for ref, _ in neighbourhood)}
        concerned |= {ref for ref, ranking in lists.items() if changed in dict(ranking)}
        known = {ref: lists[ref] for ref in concerned & lists.keys()}
        for ref, ranking in changed_lists(changed, neighbourhood, known, LIMIT).items():
            assert ranking != lists.get(ref, ())
            if ranking is None:
                event("asked again")
                assert len(lists[ref]) == LIMIT, "a list that is not full knows everybody"
            lists[ref] = ranked(scores_of(positions, ref), LIMIT) if ranking is None else ranking
    rebuilt = {ref: ranked(scores_of(positions, ref), LIMIT) for ref in positions}
    assert {ref: ranking for ref, ranking in lists.items() if ranking} == {
        ref: ranking for ref, ranking in rebuilt.items() if ranking
    }


MANY_CHANGES = st.lists(MOVES.filter(bool), max_size=6)


@given(MANY_CHANGES)
def test_a_batch_of_changes_worked_in_one_after_the_other_gives_a_rebuild(
    batches: list[list[tuple[EntityRef, int | None]]],
) -> None:
    """Neighbourhoods are those at the end of the batch; who has to ask again does so once, at its end."""
    positions: dict[EntityRef, int] = {}
    lists: dict[EntityRef, Ranking] = {}
    for batch in batches:
        for changed, position in batch:
            positions.pop(changed, None)
            if position is not None:
                positions[changed] = position
        asking: set[EntityRef] = set()
        for changed in sorted({ref for ref, _ in batch}):
            neighbourhood = scores_of(positions, changed) if changed in positions else []
            for ref, ranking in changed_lists(changed, neighbourhood, lists, LIMIT).items():
                if ranking is None:
                    asking.add(ref)
                else:
                    lists[ref] = ranking
        for ref in asking:
            lists[ref] = ranked(scores_of(positions, ref), LIMIT) if ref in positions else ()
    for ref, position in positions.items():
        assert position is not None
        assert lists.get(ref, ()) == ranked(scores_of(positions, ref), LIMIT)


@given(MANY_CHANGES)
def test_changes_worked_in_together_give_a_rebuild(
    batches: list[list[tuple[EntityRef, int | None]]],
) -> None:
    """Each change is told only of those whose lists it can enter: lists with room, or with a last that is no better."""
    positions: dict[EntityRef, int] = {}
    lists: dict[EntityRef, Ranking] = {}
    for batch in batches:
        for changed, position in batch:
            positions.pop(changed, None)
            if position is not None:
                positions[changed] = position
        all_near = {ref: scores_of(positions, ref) if ref in positions else [] for ref, _ in batch}
        reached = {
            ref: [
                near
                for near in neighbours
                if len(lists.get(near.ref, ())) < LIMIT or near.score >= lists[near.ref][-1].score
            ]
            for ref, neighbours in all_near.items()
        }
        after, asking = work_in(reached, lists, LIMIT)
        assert not after.keys() & asking
        lists |= after
        lists |= {ref: ranked(neighbours, LIMIT) for ref, neighbours in all_near.items()}
        lists |= {ref: ranked(scores_of(positions, ref), LIMIT) for ref in asking}
    assert {ref: ranking for ref, ranking in lists.items() if ranking} == {
        ref: ranking for ref in positions if (ranking := ranked(scores_of(positions, ref), LIMIT))
    }
