"""Ranked lists: the best neighbours of an entity, and what the change of one entity does to the lists of others.

An entity's list is its `limit` best neighbours at or above the threshold, ordered by (score descending, type, id). The
edge a -> b exists if b is in the list of a; that of b need not hold a. Scores are the same both ways.
"""

from collections.abc import Iterable, Mapping
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
"""A list, best first. One shorter than the limit holds everything that reaches the threshold."""


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
    return tuple(sorted(by_score[:end], key=precedence)[:limit])


def after_change(ranking: Ranking, changed: EntityRef, score: float | None, limit: int = LIST_LENGTH) -> Ranking | None:
    """The list of an entity whose score with `changed` is now `score` (None: below the threshold, or gone).

    None if only a new query can tell: a full list lost a member, or one fell behind its last, and somebody who has
    not been listed so far may come before it. A newcomer displaces the last without a query.
    """
    others = tuple(neighbour for neighbour in ranking if neighbour.ref != changed)
    may_hide_others = len(ranking) >= limit and len(others) < len(ranking)
    if score is None:
        return None if may_hide_others else others
    newcomer = Neighbour(changed, score)
    if may_hide_others and precedence(newcomer) > precedence(ranking[-1]):
        return None
    return ranked((*others, newcomer), limit)


def changed_lists(
    changed: EntityRef,
    neighbourhood: Iterable[Neighbour],
    lists: Mapping[EntityRef, Ranking],
    limit: int = LIST_LENGTH,
) -> dict[EntityRef, Ranking | None]:
    """What the change of one entity does to all lists: the new list of each entity whose list differs, its own among
    them; None where the entity has to ask again.

    `neighbourhood`: everybody at or above the threshold of `changed` as it is now; nobody, if it is gone.
    `lists`: the lists so far of `changed`, of everybody in `neighbourhood`, and of everybody who lists `changed`; an
    entity that is not in it has the empty list.
    """
    scores = dict(neighbourhood)
    after: dict[EntityRef, Ranking | None] = {
        ref: after_change(lists.get(ref, ()), changed, scores.get(ref), limit)
        for ref in sorted({*lists, *scores} - {changed})
    }
    after[changed] = ranked((Neighbour(ref, score) for ref, score in scores.items()), limit)
    return {ref: ranking for ref, ranking in after.items() if ranking != lists.get(ref, ())}


def work_in(
    neighbourhoods: Mapping[EntityRef, Iterable[Neighbour]],
    lists: Mapping[EntityRef, Ranking],
    limit: int = LIST_LENGTH,
) -> tuple[dict[EntityRef, Ranking], set[EntityRef]]:
    """What the change of several entities at once does to the lists of all others, and who has to ask again.

    `neighbourhoods`: of each changed entity, everybody whose list it may enter, as all are now; nobody, if it is gone.
    `lists`: the lists so far of everybody in them, and of everybody who lists a changed entity; an entity that is not
    in it has the empty list. The lists of the changed themselves are left out: their neighbourhood is their list.
    """
    after = dict(lists)
    asking: set[EntityRef] = set()
    listing: dict[EntityRef, list[EntityRef]] = {}
    for ref, ranking in lists.items():
        for neighbour in ranking:
            if neighbour.ref in neighbourhoods:
                listing.setdefault(neighbour.ref, []).append(ref)
    for changed in sorted(neighbourhoods):
        scores = {ref: score for ref, score in neighbourhoods[changed] if ref not in neighbourhoods}
        concerned = {*scores, *listing.get(changed, ())} - neighbourhoods.keys()
        for ref in concerned - asking:
            ranking_after = after_change(after.get(ref, ()), changed, scores.get(ref), limit)
            if ranking_after is None:
                asking.add(ref)
            else:
                after[ref] = ranking_after
    return (
        {
            ref: ranking
            for ref, ranking in after.items()
            if ref not in asking and ref not in neighbourhoods and ranking != lists.get(ref, ())
        },
        asking,
    )
