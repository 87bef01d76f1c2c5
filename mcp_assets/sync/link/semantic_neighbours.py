"""Semantic neighbours: entities with near vectors, asked of Qdrant, and the lists that a change of a vector reaches.

Most lists that a changed entity could enter are ruled out by their cut-off alone, the column `linked.semantic_cut_off`:
a search returns points, and one query reads entity and cut-off of each. At 100,000 entities, 1 % of which change,
37,600 lists are read, and 277,000 without cut-offs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np

from mcp_assets.entities.points import is_own_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    LIST_AND_RESERVES,
    LIST_LENGTH,
    ListedEdge,
    Neighbour,
    NeighbourList,
    Ranking,
    certain_list,
    cut_off_of,
    doubtful_positions,
    lowest_that_ties,
    nearest,
    neighbourhood,
    search_threshold,
    semantic_edges,
    settled_scores,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import PointsMissing
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_search import QueryPoint
from mcp_assets.sync.collections.serving import WriteTarget, serving_collections, serving_profile
from mcp_assets.sync.link.blocked_lists import BlockedLists
from mcp_assets.sync.link.reach import Reach, complete_list
from mcp_assets.sync.link.settling import Answers, Hits, Place, doubtful_places, settle
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.resolve_ids import pages

QUERIES_A_REQUEST = 250
"""Queries for lists in one request: its answer has some 6,000 hits for each collection, and the next is asked while it
is read."""

_REACH_IN_FLIGHT = 4
"""Requests at once; twice as many answers are held in memory."""

_TRIES = 3
"""Times that a question is asked whose points are removed and written again meanwhile, as a repair does."""

_BEST_HITS = LIST_AND_RESERVES + 5
"""Hits of an entity that are settled before it is known which entities they are: those of a list, one more to tell
where it ends, and some in place of entities that are gone."""

Entities = dict[str, EntityRef | None]
"""A cache: the entity of each point, as `linked` has it; None if it has none. Valid until the next change is linked."""


class _LinkedPoint(NamedTuple):
    """One row of the query `read_linked_points`."""

    point: str
    entity_type: str
    entity_id: str
    cut_off: float | None


def merged(answers: Iterable[Answers]) -> Answers:
    found: dict[EntityRef, dict[str, Hits]] = {}
    for part in answers:
        for ref, by_collection in part.items():
            found.setdefault(ref, {}).update(by_collection)
    return found


class SemanticNeighbours:
    """Neighbours by cosine, over all collections of the model that serves. Thread-safe."""

    def __init__(
        self, platform: Platform, served: Mapping[str, WriteTarget] | None = None, *, always_exact: bool = False
    ) -> None:
        """`served`: what `serving_collections` returned; read if it is not given. `always_exact`: collections are
        searched exactly however many points they hold, at the cost of that.
        """
        self._platform = platform
        self._tuning = platform.tuning.link
        served = serving_collections(platform) if served is None else served
        profile = serving_profile(platform, served)
        self.profile = profile
        """The model that serves."""
        self._threshold = profile.similarity_threshold
        self._exact_up_to = math.inf if always_exact else platform.settings.exact_up_to
        self._of_type: dict[str, str] = {}
        types = platform.settings.entity_types
        self._collection_of = {name: entity_type.collection_name for name, entity_type in types.items()}
        for name, entity_type in platform.settings.entity_types.items():
            found = served.get(entity_type.collection_name)
            # Vectors of two models cannot be compared.
            if found is not None and (found.profile.name, found.profile.dimension) == (profile.name, profile.dimension):
                self._of_type[name] = found.collection.name

    @property
    def collections(self) -> list[str]:
        """The physical collections that are searched."""
        return list(dict.fromkeys(self._of_type.values()))

    @property
    def exact(self) -> bool:
        """All collections are searched exactly, so that a list asked for twice is the same list."""
        return not self.approximate

    @property
    def approximate(self) -> list[str]:
        """The collections that are searched by Qdrant's index, because they hold too many points."""
        return [name for name, exact in self._exact.items() if not exact]

    def scored_again(self, listed: Mapping[EntityRef, Collection[EntityRef]]) -> dict[EntityRef, list[Neighbour]]:
        """The entities that each list names, with their scores by the vectors that Qdrant holds now; no search.

        Entities below the threshold are left out, and those that have no point.
        """
        cosines = self.cosines([(ref, other) for ref, others in listed.items() for other in others])
        found: dict[EntityRef, list[Neighbour]] = {ref: [] for ref in listed}
        for (ref, other), score in cosines.items():
            if score >= self._threshold:
                found[ref].append(Neighbour(other, score))
        return found

    def missing(self, points: Mapping[EntityRef, str]) -> set[EntityRef]:
        """The entities of `points` whose point is not in their collection."""
        there: set[str] = set()
        for collection in self.collections:
            held = [point for ref, point in points.items() if self._of_type.get(ref.type) == collection]
            there |= self._platform.qdrant.existing(collection, held)
        return {ref for ref, point in points.items() if point not in there}

    def cosines(self, pairs: Collection[tuple[EntityRef, EntityRef]]) -> dict[tuple[EntityRef, EntityRef], float]:
        """The cosine of each pair, rounded; without pairs of which an entity has no point in its collection."""
        by_collection: dict[str, dict[str, EntityRef]] = {}
        for ref in {ref for pair in pairs for ref in pair if ref.type in self._of_type}:
            by_collection.setdefault(self._of_type[ref.type], {})[str(point_id(ref))] = ref
        vectors = {
            named[point]: vector
            for collection, named in by_collection.items()
            for point, vector in self._platform.qdrant.vectors(collection, list(named)).items()
        }
        there = [(one, other) for one, other in pairs if one in vectors and other in vectors]
        if not there:
            return {}
        ones, others = (np.stack([vectors[pair[end]] for pair in there]) for end in (0, 1))
        found = zip(there, settled_scores(ones, others), strict=True)
        # Where Qdrant gave no number, there is no cosine.
        return {pair: score for pair, score in found if math.isfinite(score)}

    def points_of(self, refs: Iterable[EntityRef]) -> dict[str, list[str]]:
        """The ids of the points that entities have or may have, by collection."""
        found: dict[str, list[str]] = {}
        for ref in refs:
            if ref.type in self._of_type:
                found.setdefault(self._of_type[ref.type], []).append(str(point_id(ref)))
        return found

    def requests(
        self, points: Mapping[EntityRef, str], *, in_blocks: bool = False
    ) -> Iterator[Mapping[EntityRef, str]]:
        """Parts of `points`, asked about at once, for `answer`; `in_blocks`: larger ones, whose products are faster."""
        return map(dict, pages(sorted(points.items()), self._tuning.lists_at_once if in_blocks else QUERIES_A_REQUEST))

    def answer(self, points: Mapping[EntityRef, str], blocks: BlockedLists | None = None) -> Answers:
        """The hits that the lists of entities are made of, given their points, from `blocks` or from Qdrant."""
        limit, floor = self._tuning.list_hits, search_threshold(self._threshold)
        asking = self._asking(points)
        found: dict[EntityRef, dict[str, Hits]] = {ref: {} for ref in points}
        for collection in self.collections:
            if blocks is None:
                answers = self._nearest(collection, list(points), points, limit, QUERIES_A_REQUEST)
            else:
                hits = blocks.nearest(collection, list(asking.values()), limit=limit, floor=floor)
                answers = dict(zip(asking, hits, strict=True))
            for ref, answer in answers.items():
                found[ref][collection] = answer
        limits = dict.fromkeys(self.collections, limit)
        places: list[Place] = []
        for ref in points:
            places += doubtful_places(ref, found[ref], limits, self._threshold, _BEST_HITS)
        if places:
            settle(places, found, asking, blocks or self._platform.qdrant)
        return found

    def lists(
        self,
        connection: Connection,
        points: Mapping[EntityRef, str],
        answers: Answers | None = None,
        entities: Entities | None = None,
    ) -> dict[EntityRef, NeighbourList]:
        """The list of each entity, given its point; Qdrant is asked about those that `answers` lacks.

        `entities`: a cache, to which the entities that are read are added.
        """
        found: dict[EntityRef, NeighbourList] = dict.fromkeys(points, NeighbourList())
        answers = answers or {}
        unasked = {ref: point for ref, point in points.items() if ref not in answers}
        answered = merged((answers, *(self.answer(part) for part in self.requests(unasked))))
        hits = {ref: dict(answered.get(ref, {})) for ref in points}
        limits = {ref: dict.fromkeys(hits[ref], self._tuning.list_hits) for ref in points}
        entities = {} if entities is None else entities
        asked = set(points)
        while asked:
            new = {point for ref in asked for hit in hits[ref].values() for point, _ in hit if point not in entities}
            resolved = self._resolve(connection, new)
            entities |= {point: resolved[point][0] if point in resolved else None for point in new}
            self._settle_living(asked, hits, limits, points, entities)
            waiting: dict[tuple[str, int], list[EntityRef]] = {}
            for ref in asked:
                near = nearest(ref, hits[ref].values(), entities, self._threshold, LIST_AND_RESERVES + 1)
                cut_offs = {
                    collection: cut_off_of(answer, limits[ref][collection], self._threshold)
                    for collection, answer in hits[ref].items()
                }
                certain = found[ref] = certain_list(near, cut_offs.values(), LIST_AND_RESERVES)
                if certain.cut_off is not None and len(certain.neighbours) < LIST_LENGTH:
                    for collection, cut_off in cut_offs.items():
                        if cut_off is not None and sum(one.score > cut_off for one in near) < LIST_LENGTH:
                            limits[ref][collection] *= 2
                            waiting.setdefault((collection, limits[ref][collection]), []).append(ref)
            for (collection, limit), refs in waiting.items():
                for ref, answer in self._nearest(collection, refs, points, limit, QUERIES_A_REQUEST).items():
                    hits[ref][collection] = answer
            asked = {ref for refs in waiting.values() for ref in refs}
        return found

    def reach(
        self,
        connection: Connection,
        points: Mapping[EntityRef, str],
        meanwhile: Callable[[Collection[EntityRef]], None],
    ) -> dict[EntityRef, Reach]:
        """The reach of each entity, given its point: one search down to the threshold gives both parts.

        `meanwhile` is called with the entities within reach by one answer, while Qdrant works on the next.
        """
        near: dict[EntityRef, list[Neighbour]] = {ref: [] for ref in points}
        within: dict[EntityRef, list[Neighbour]] = {ref: [] for ref in points}
        entities: Entities = {}
        entry: dict[str, float] = {}
        """The lowest cosine that may enter the list of a point's entity."""
        # One answer is processed while Qdrant works on the next.
        for (collection, _), hits in overlapped(
            self._reach_requests(points),
            lambda request: self._down_to_threshold(*request, points),
            in_flight=_REACH_IN_FLIGHT,
            fill=True,
        ):
            if len(entities) > self._tuning.entities_kept:
                entities, entry = {}, {}
            new = {point for answer in hits.values() for point, _ in answer if point not in entities}
            resolved = self._resolve(connection, new)
            for point in new:
                entity, cut_off = resolved.get(point, (None, None))
                entities[point] = entity
                # Most hits enter no list: they are filtered by cosine, before a Neighbour is made of each.
                lowest = self._threshold if cut_off is None else cut_off
                entry[point] = math.inf if entity is None else search_threshold(lowest)
            self._settle_reach(collection, hits, entry, points)
            within_reach: set[EntityRef] = set()
            for ref, answer in hits.items():
                near[ref] += nearest(ref, [answer], entities, self._threshold, LIST_AND_RESERVES + 1)
                high = ((entities[point], score) for point, score in answer if score >= entry[point])
                entered = neighbourhood(ref, ((other, score) for other, score in high if other), self._threshold)
                within[ref] += entered
                within_reach.update(one.ref for one in entered)
            meanwhile(within_reach)
        return {ref: Reach(complete_list(near[ref], LIST_AND_RESERVES), tuple(within[ref])) for ref in points}

    def edges(self, rankings: Mapping[EntityRef, Ranking]) -> Iterator[ListedEdge]:
        for source, ranking in rankings.items():
            yield from semantic_edges(source, ranking, self.profile.name, self._collection_of)

    def _settle_living(
        self,
        refs: Iterable[EntityRef],
        hits: Answers,
        limits: Mapping[EntityRef, Mapping[str, int]],
        points: Mapping[EntityRef, str],
        entities: Entities,
    ) -> None:
        """Settle what is doubtful now that it is known which hits are of entities that are gone; most often nothing."""
        places: list[Place] = []
        for ref in refs:
            gone = sum(entities[point] is None for answer in hits[ref].values() for point, _ in answer)
            best = LIST_AND_RESERVES + 1 + gone
            places += doubtful_places(ref, hits[ref], limits[ref], self._threshold, best)
        if places:
            settle(places, hits, self._asking(points), self._platform.qdrant)

    def _settle_reach(
        self,
        collection: str,
        hits: Mapping[EntityRef, Hits],
        entry: Mapping[str, float],
        points: Mapping[EntityRef, str],
    ) -> None:
        """Settle the hits of changed entities that may enter a list: theirs, or that of the entity that was hit."""
        places: list[Place] = []
        for ref, answer in hits.items():
            living = (cosine for point, cosine in answer if entry[point] < math.inf)
            last = next(islice(living, LIST_AND_RESERVES, None), -math.inf)
            lowest = lowest_that_ties(last)
            for position in doubtful_positions([cosine for _, cosine in answer]):
                point, cosine = answer[position]
                if cosine >= lowest or cosine >= entry[point]:
                    places.append(Place(ref, collection, position))
        if places:
            answers = {ref: {collection: answer} for ref, answer in hits.items()}
            settle(places, answers, self._asking({ref: points[ref] for ref in hits}), self._platform.qdrant)

    def _asking(self, points: Mapping[EntityRef, str]) -> dict[EntityRef, QueryPoint]:
        return {ref: QueryPoint(point, self._of_type[ref.type]) for ref, point in points.items()}

    def _reach_requests(self, refs: Iterable[EntityRef]) -> Iterator[tuple[str, list[EntityRef]]]:
        for part in pages(sorted(refs), self._tuning.reach_queries_a_request):
            yield from ((collection, part) for collection in self.collections)

    def _down_to_threshold(
        self, collection: str, refs: list[EntityRef], points: Mapping[EntityRef, str]
    ) -> dict[EntityRef, Hits]:
        """All hits of each of `refs` at or above the threshold."""
        found: dict[EntityRef, Hits] = {}
        limit = self._tuning.reach_hits
        while refs:
            hits = self._nearest(collection, refs, points, limit, self._tuning.reach_queries_a_request)
            found |= {ref: answer for ref, answer in hits.items() if len(answer) < limit}
            refs, limit = [ref for ref in refs if ref not in found], limit * 2
        return found

    def _nearest(
        self, collection: str, refs: Sequence[EntityRef], points: Mapping[EntityRef, str], limit: int, at_once: int
    ) -> dict[EntityRef, Hits]:
        """The hits of each entity in `collection`; no hits for an entity whose point is not in its own collection."""
        found: dict[EntityRef, Hits] = {}
        exact = self._exact[collection]
        for start in range(0, len(refs), at_once):
            part = refs[start : start + at_once]
            asking = [QueryPoint(points[ref], self._of_type[ref.type]) for ref in part]
            found |= zip(part, self._ask(collection, asking, limit, exact=exact), strict=True)
        return found

    def _ask(self, collection: str, asking: Sequence[QueryPoint], limit: int, *, exact: bool) -> list[Hits]:
        qdrant = self._platform.qdrant
        lowest = search_threshold(self._threshold)
        for tries_left in reversed(range(_TRIES)):
            try:
                return qdrant.nearest(collection, asking, limit=limit, floor=lowest, exact=exact)
            except PointsMissing:
                # A point that was removed meanwhile, or lost, has no neighbours until it is written again.
                there = {
                    (held, point)
                    for held in {one.collection for one in asking}
                    for point in qdrant.existing(held, [one.point for one in asking if one.collection == held])
                }
                left = [one for one in asking if (one.collection, one.point) in there]
                if len(left) == len(asking):
                    if not tries_left:
                        raise
                    # All points are there: the one that was missing has been written again between both requests.
                    continue
                answers = iter(self._ask(collection, left, limit, exact=exact) if left else [])
                return [next(answers) if (one.collection, one.point) in there else [] for one in asking]
        raise AssertionError("the last try returns or raises")

    def _resolve(self, connection: Connection, points: Collection[str]) -> dict[str, tuple[EntityRef, float | None]]:
        """The entity of each point, and the cut-off of its list; without points that are in no row of `linked`."""
        own = [point for point in points if is_own_id(point)]
        if not own:
            return {}
        # One text for the whole array: psycopg would quote each item, which ids of points never need.
        rows = connection.execute(
            self._platform.postgres.query("read_linked_points"), {"points": f"{{{','.join(own)}}}"}
        )
        return {
            row.point: (EntityRef(row.entity_type, row.entity_id), row.cut_off)
            for row in map(_LinkedPoint._make, rows.fetchall())
        }

    @cached_property
    def points_held(self) -> Mapping[str, int]:
        """Points of each collection, with chunks, when it was first asked."""
        return {name: self._platform.qdrant.count(name) for name in self.collections}

    @property
    def _exact(self) -> Mapping[str, bool]:
        return {name: points <= self._exact_up_to for name, points in self.points_held.items()}
