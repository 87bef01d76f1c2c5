"""Ranked lists: the best neighbours of an entity, and what the change of one entity does to the lists of others.

An entity's list is its `limit` best neighbours at or above the threshold, ordered by (score descending, type, id). The
edge a -> b exists if b is in the list of a; that of b need not hold a. Scores are the same both ways.

A *reserve* is a neighbour that comes directly after the list: when the list loses a member, the first reserve takes
the last place, without a query. A *cut-off* is an upper bound of the score of every neighbour that is in neither the
list nor its reserves. Candidates that score below the cut-off cannot enter either.
"""

import math
from bisect import insort
from collections.abc import Container, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from mcp_assets.entities.refs import EntityRef

LIST_LENGTH = 20
"""Edges an entity has of one ranked type, at most: a part of what each type of edge means (docs/reference/edges.md)."""


class Neighbour(NamedTuple):
    """Another entity, and its score, 0..1, rounded."""

    ref: EntityRef
    score: float


Ranking: TypeAlias = tuple[Neighbour, ...]
"""Neighbours, best first."""


LIST_AND_RESERVES = LIST_LENGTH + 4
"""Neighbours that are stored of an entity, at most. Four reserves, because a search for a list asks for four hits more
than the list holds anyway (`list_hits` in `tuning`), so that reserves cost no further query. Measured at 100,000
entities, 1 % of which change: with four reserves 60 lists are asked of Qdrant again, without any 11,000, in three times
the time."""

_SCORE = attrgetter("score")


def precedence(neighbour: Neighbour) -> tuple[float, EntityRef]:
    """The order of lists: smaller is better. No two neighbours in one list have the same."""
    return -neighbour.score, neighbour.ref


def ranked(neighbours: Iterable[Neighbour], limit: int = LIST_LENGTH) -> Ranking:
    """The list that `neighbours` (each once, all at or above the threshold) make."""
    by_score = sorted(neighbours, key=_SCORE, reverse=True)
    end = min(limit, len(by_score))
    # Names are compared only of neighbours that may be in the list.
    while 0 < end < len(by_score) and by_score[end].score == by_score[end - 1].score:
        end += 1
    best = by_score[:end]
    if len({*map(_SCORE, best)}) < end:
        best.sort(key=precedence)
    return tuple(best[:limit])


class NeighbourList(NamedTuple):
    """The best neighbours of an entity: its list, and the reserves behind it."""

    neighbours: Ranking = ()
    """The list and its reserves, best first. All other neighbours of the entity come after the last of them."""
    cut_off: float | None = None
    """Upper bound of the score of any neighbour outside `neighbours`; None: there is no such neighbour at or above the
    threshold."""

    @property
    def ranking(self) -> Ranking:
        """The list, without reserves."""
        return self.neighbours[:LIST_LENGTH]

    @property
    def reserves(self) -> Ranking:
        return self.neighbours[LIST_LENGTH:]


_EMPTY_LIST = NeighbourList()

UNKNOWN_LIST = NeighbourList(cut_off=math.inf)
"""The list of an entity whose neighbours are unknown: after any change only a query can give its list."""


def truncated(neighbours: Ranking, cut_off: float | None, kept: int) -> NeighbourList:
    """The best `kept` of `neighbours`; `cut_off` bounds the score of those outside `neighbours`."""
    if len(neighbours) <= kept:
        return NeighbourList(neighbours, cut_off)
    return NeighbourList(neighbours[:kept], neighbours[kept - 1].score)


def updated_list(
    before: NeighbourList, changed: Container[EntityRef], near: Iterable[Neighbour], limit: int, kept: int
) -> NeighbourList | None:
    """The neighbours of an entity after other entities have `changed`; the result has at most `kept` neighbours.

    `near`: the changed entities that are at or above the threshold, with their scores now.

    None if only a query can give the `limit` best: the list lost members, or members fell behind the last one, and
    entities outside `before` may come before them.
    """
    neighbours, cut_off = before
    after = [neighbour for neighbour in neighbours if neighbour.ref not in changed]
    for newcomer in near:
        # An entry behind the last one is outside the list, and the best score outside is unknown.
        if cut_off is None or newcomer.score > cut_off or (neighbours and _not_behind(newcomer, neighbours[-1])):
            insort(after, newcomer, key=precedence)
    if cut_off is not None and len(after) < limit:
        return None
    return truncated(tuple(after), cut_off, kept)


def _not_behind(one: Neighbour, other: Neighbour) -> bool:
    return precedence(one) <= precedence(other)


def differing(before: Ranking, after: Ranking) -> set[Neighbour]:
    """The neighbours that are in one of the two alone, or with another score in each."""
    same = 0
    for one, other in zip(before, after, strict=False):
        if one is not other:
            break
        same += 1
    return {*before[same:]} ^ {*after[same:]}


def update_lists(
    neighbourhoods: Mapping[EntityRef, Iterable[Neighbour]],
    lists: Mapping[EntityRef, NeighbourList],
    limit: int,
    kept: int,
) -> tuple[dict[EntityRef, NeighbourList], set[EntityRef]]:
    """What the change of several entities at once does to the lists of all others.

    `neighbourhoods`: of each changed entity, every entity whose list or reserves it may enter, with the score now;
    none if the changed entity is gone. `lists`: the lists before the change, of every entity in `neighbourhoods` and
    of every entity whose list names a changed entity; an entity without an entry has an empty list.

    Returns the lists that are different now, and the entities whose list only a query can give. The lists of the
    changed entities themselves are in neither: each is made from its own neighbourhood.
    """
    near: dict[EntityRef, list[Neighbour]] = {}
    for changed, neighbourhood in neighbourhoods.items():
        for ref, score in neighbourhood:
            near.setdefault(ref, []).append(Neighbour(changed, score))
    updated: dict[EntityRef, NeighbourList] = {}
    to_query: set[EntityRef] = set()
    for ref in (near.keys() | lists.keys()) - neighbourhoods.keys():
        before = lists.get(ref, _EMPTY_LIST)
        after = updated_list(before, neighbourhoods, near.get(ref, ()), limit, kept)
        if after is None:
            to_query.add(ref)
        elif after != before:
            updated[ref] = after
    return updated, to_query
