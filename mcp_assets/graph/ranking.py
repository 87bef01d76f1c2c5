"""Ranked lists: the best neighbours of an entity, and what the change of one entity does to the lists of others.

An entity's list is its `limit` best neighbours at or above the threshold, ordered by (score descending, type, id). The
edge a -> b exists if b is in the list of a; that of b need not hold a. Scores are the same both ways.
"""

import math
from bisect import insort
from collections.abc import Container, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from mcp_assets.entities.refs import EntityRef

LIST_LENGTH = 20
"""Edges an entity has of one ranked type, at most."""


class Neighbour(NamedTuple):
    """Another entity, and its score, 0..1, rounded."""

    ref: EntityRef
    score: float


Ranking: TypeAlias = tuple[Neighbour, ...]
"""Neighbours, best first."""


KNOWN = LIST_LENGTH + 4
"""Neighbours that are known of an entity, at most: those in its list, and spares behind them."""

_SCORE = attrgetter("score")


def precedence(neighbour: Neighbour) -> tuple[float, EntityRef]:
    """The order of lists: smaller is better. No two neighbours in one list have the same."""
    return -neighbour.score, neighbour.ref


def ranked(neighbours: Iterable[Neighbour], limit: int = LIST_LENGTH) -> Ranking:
    """The list that `neighbours` (each once, all at or above the threshold) make."""
    by_score = sorted(neighbours, key=_SCORE, reverse=True)
    end = min(limit, len(by_score))
    # Names are compared only of those that may be in the list.
    while 0 < end < len(by_score) and by_score[end].score == by_score[end - 1].score:
        end += 1
    best = by_score[:end]
    if len({*map(_SCORE, best)}) < end:
        best.sort(key=precedence)
    return tuple(best[:limit])


class Known(NamedTuple):
    """The best neighbours of an entity, as far as they are known: its list, and behind it some spares, which move up
    when the list loses a member."""

    neighbours: Ranking = ()
    """All that are known. Whoever is left out comes after the last of them."""
    floor: float | None = None
    """Nobody who is left out scores higher; None if nobody at or above the threshold is left out."""

    @property
    def ranking(self) -> Ranking:
        """The list."""
        return self.neighbours[:LIST_LENGTH]

    @property
    def spares(self) -> Ranking:
        return self.neighbours[LIST_LENGTH:]


_NOBODY = Known()

UNKNOWN = Known(floor=math.inf)
"""Of an entity that has to be asked again, whatever changes."""


def cut(neighbours: Ranking, floor: float | None, kept: int) -> Known:
    """The best `kept` of `neighbours`; nobody who is not among these scores higher than `floor`."""
    if len(neighbours) <= kept:
        return Known(neighbours, floor)
    return Known(neighbours[:kept], neighbours[kept - 1].score)


def after_changes(
    known: Known, changed: Container[EntityRef], near: Iterable[Neighbour], limit: int, kept: int
) -> Known | None:
    """What is known of the neighbours of an entity after others have `changed`, of which these are `near` now, at or
    above the threshold; of at most `kept` neighbours, and of the `limit` best at least.

    None if only a new query can tell who these are: members were lost, or fell behind the last that was
    known, and others who are not known may come before them.
    """
    neighbours, floor = known
    after = [neighbour for neighbour in neighbours if neighbour.ref not in changed]
    for newcomer in near:
        # Behind the last it would be among those who are left out, and who is the best of these is not known.
        if floor is None or newcomer.score > floor or (neighbours and _not_behind(newcomer, neighbours[-1])):
            insort(after, newcomer, key=precedence)
    if floor is not None and len(after) < limit:
        return None
    return cut(tuple(after), floor, kept)


def _not_behind(one: Neighbour, other: Neighbour) -> bool:
    return precedence(one) <= precedence(other)


def differing(before: Ranking, after: Ranking) -> set[Neighbour]:
    """Those who are in one of the two alone, or with another score in each."""
    same = 0
    for one, other in zip(before, after, strict=False):
        if one is not other:
            break
        same += 1
    return {*before[same:]} ^ {*after[same:]}


def work_in(
    neighbourhoods: Mapping[EntityRef, Iterable[Neighbour]],
    lists: Mapping[EntityRef, Known],
    limit: int,
    kept: int,
) -> tuple[dict[EntityRef, Known], set[EntityRef]]:
    """What the change of several entities at once does to the neighbours of all others, and who has to ask again.

    `neighbourhoods`: of each changed entity, everybody whose list or spares it may enter, as all are now; nobody, if it
    is gone. `lists`: what was known of everybody in them, and of everybody who lists a changed entity; of an entity
    that is not in it, that it has no neighbours. What is known of the changed themselves is left out: their
    neighbourhood is their list.
    """
    near: dict[EntityRef, list[Neighbour]] = {}
    for changed, neighbourhood in neighbourhoods.items():
        for ref, score in neighbourhood:
            near.setdefault(ref, []).append(Neighbour(changed, score))
    after: dict[EntityRef, Known] = {}
    asking: set[EntityRef] = set()
    for ref in (near.keys() | lists.keys()) - neighbourhoods.keys():
        known = lists.get(ref, _NOBODY)
        found = after_changes(known, neighbourhoods, near.get(ref, ()), limit, kept)
        if found is None:
            asking.add(ref)
        elif found != known:
            after[ref] = found
    return after, asking
