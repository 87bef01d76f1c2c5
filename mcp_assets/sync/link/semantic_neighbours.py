"""Semantic neighbours: entities with near vectors, asked of Qdrant, and the lists that a change of a vector reaches.

Most lists that a changed entity could enter are ruled out by their cut-off alone, the column `linked.semantic_cut_off`:
a search returns points, and one query reads entity and cut-off of each. At 100,000 entities, 1 % of which change,
37,600 lists are read, and 277,000 without cut-offs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

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
    nearest,
    neighbourhood,
    rounded,
    search_threshold,
    semantic_edges,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import PointsMissing
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_search import QueryPoint
from mcp_assets.sync.collections.serving import serving_collections, serving_profile
from mcp_assets.sync.link.reach import Reach, complete_list
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.resolve_ids import pages

EXACT_UP_TO = 100_000
"""Points in a collection up to which it is searched exactly: there, incremental equals rebuild strictly."""

QUERIES_A_REQUEST = 250
"""Queries for lists in one request: its answer has some 6,000 hits for each collection, and the next is asked while it
is read."""

_REACH_IN_FLIGHT = 4
"""Requests at once; twice as many answers are held in memory."""

Hits = list[tuple[str, float]]
"""Points and their cosines, best first."""

Answers = Mapping[EntityRef, Mapping[str, Hits]]
"""The hits nearest to each entity, by collection."""

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

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._tuning = platform.tuning.link
        served = serving_collections(platform)
        profile = serving_profile(platform, served)
        self.profile = profile
        """The model that serves."""
        self._threshold = profile.similarity_threshold
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
        return all(self._exact.values())

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
            named[point.id]: point.vector
            for collection, named in by_collection.items()
            for point in self._platform.qdrant.points(collection, list(named), keys=())
        }
        # Vectors are stored with length 1. Where Qdrant gave no number, there is no cosine.
        found = {
            (one, other): float(vectors[one] @ vectors[other])
            for one, other in pairs
            if one in vectors and other in vectors
        }
        return {pair: rounded(cosine) for pair, cosine in found.items() if math.isfinite(cosine)}

    def requests(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[str, Mapping[EntityRef, str]]]:
        """The requests that ask Qdrant for the lists of entities, given their points; each is arguments of `answer`."""
        for part in map(dict, pages(sorted(points.items()), QUERIES_A_REQUEST)):
            yield from ((collection, part) for collection in self.collections)

    def answer(self, collection: str, points: Mapping[EntityRef, str]) -> Answers:
        found = self._nearest(collection, list(points), points, self._tuning.list_hits, QUERIES_A_REQUEST)
        return {ref: {collection: hits} for ref, hits in found.items()}

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
        answered = merged((answers, *(self.answer(*request) for request in self.requests(unasked))))
        hits = {ref: dict(answered.get(ref, {})) for ref in points}
        limits = {ref: dict.fromkeys(hits[ref], self._tuning.list_hits) for ref in points}
        entities = {} if entities is None else entities
        asked = set(points)
        while asked:
            new = {point for ref in asked for hit in hits[ref].values() for point, _ in hit if point not in entities}
            resolved = self._resolve(connection, new)
            entities |= {point: resolved[point][0] if point in resolved else None for point in new}
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
        for _, hits in overlapped(
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
        while True:
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
                    raise
                answers = iter(self._ask(collection, left, limit, exact=exact) if left else [])
                return [next(answers) if (one.collection, one.point) in there else [] for one in asking]

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
    def _exact(self) -> Mapping[str, bool]:
        return {name: self._platform.qdrant.count(name) <= EXACT_UP_TO for name in self.collections}
