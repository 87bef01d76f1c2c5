"""Lists: semantic and topical neighbours, asked of Qdrant and of `linked`; and whose lists a change reaches.

`linked.semantic_floor` and `linked.topical_floor` are the score of the last in a full list, NULL while the list has
room: whoever scores lower cannot enter it. Most lists that a changed entity could enter are ruled out by that alone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    LIST_LENGTH,
    EdgeType,
    ListedEdge,
    Neighbour,
    Ranking,
    StoredList,
    TagWeight,
    TopicIndex,
    candidate_tags,
    cut_short,
    neighbourhood,
    query_floor,
    ranked,
    semantic_edges,
    topical_edges,
)
from mcp_assets.stores.errors import PointsMissing
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Asking
from mcp_assets.sync import collections
from mcp_assets.sync.linked import read_linked
from mcp_assets.sync.pipeline import overlapped
from mcp_assets.sync.platform import Platform

EXACT_UP_TO = 100_000
"""Points in a collection up to which it is searched exactly: there, incremental equals rebuild strictly."""

QUERIES_A_REQUEST = 50

ASKED = LIST_LENGTH + 4
"""Hits asked for, for a list: one more than it holds, for the last may tie; a few more, for some may be gone."""

DEEP = 1_000
"""Hits asked for down to the threshold, at first; twice as many while that is not enough."""

_DEEP_QUERIES_A_REQUEST = 10

_DEEP_IN_FLIGHT = 2

_TOPICS_AT_ONCE = 250

_LISTS = {EdgeType.SEMANTIC_SIMILARITY: "semantic", EdgeType.TOPICAL_RELEVANCE: "topical"}

Hits = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Reached:
    """Neighbours of a changed entity: its own list, and those whose lists it may enter."""

    ranking: Ranking
    within_reach: tuple[Neighbour, ...]


def floor_of(ranking: Ranking) -> float | None:
    return ranking[-1].score if len(ranking) == LIST_LENGTH else None


def ranking_of(stored: StoredList) -> Ranking:
    """The list that the stored edges are."""
    return ranked((Neighbour(target, edge.strength) for target, edge in stored.items()), LIST_LENGTH)


class SemanticLists:
    """Neighbours by cosine, over all collections of the model that serves. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        serving = collections.serving(platform)
        profile = collections.serving_profile(platform, serving)
        self._threshold = profile.similarity_threshold
        self._model = profile.name
        self._of_type: dict[str, str] = {}
        for name, entity_type in platform.settings.entity_types.items():
            found = serving.get(entity_type.collection_name)
            # Vectors of two models have nothing to say to each other.
            if found is not None and (found.profile.name, found.profile.dimension) == (profile.name, profile.dimension):
                self._of_type[name] = found.collection.name

    @property
    def collections(self) -> list[str]:
        """The physical collections that are searched."""
        return list(dict.fromkeys(self._of_type.values()))

    @property
    def exact(self) -> bool:
        """All collections are searched exactly: a list asked for again is the same list."""
        return all(self._exact.values())

    def missing(self, points: Mapping[EntityRef, str]) -> set[EntityRef]:
        """Those entities whose point, as given, is not in their collection."""
        there: set[str] = set()
        for collection in self.collections:
            held = [point for ref, point in points.items() if self._of_type.get(ref.type) == collection]
            there |= self._platform.qdrant.existing(collection, held)
        return {ref for ref, point in points.items() if point not in there}

    def rankings(self, connection: Connection, points: Mapping[EntityRef, str]) -> dict[EntityRef, Ranking]:
        """The list of each entity, given its point."""
        found: dict[EntityRef, Ranking] = dict.fromkeys(points, ())
        hits: dict[EntityRef, dict[str, Hits]] = {ref: {} for ref in points}
        waiting = {collection: sorted(points) for collection in self.collections}
        known: dict[str, tuple[EntityRef, float | None]] = {}
        limit = ASKED
        while waiting:
            asked: set[EntityRef] = set()
            for collection, refs in waiting.items():
                for ref, answer in self._nearest(collection, refs, points, limit, QUERIES_A_REQUEST).items():
                    hits[ref][collection] = answer
                asked.update(refs)
            known |= self._resolve(connection, (answer for ref in asked for answer in hits[ref].values()))
            waiting = {}
            for ref in asked:
                near = neighbourhood(
                    ref,
                    (
                        (entity[0], score)
                        for answer in hits[ref].values()
                        for point, score in answer
                        if (entity := known.get(point))
                    ),
                    self._threshold,
                )
                found[ref] = tuple(near[:LIST_LENGTH])
                for collection, answer in hits[ref].items():
                    if cut_short(near, [score for _, score in answer], limit, self._threshold, LIST_LENGTH):
                        waiting.setdefault(collection, []).append(ref)
            limit *= 2
        return found

    def reached(self, connection: Connection, points: Mapping[EntityRef, str]) -> dict[EntityRef, Reached]:
        """Of each entity, given its point, its list and whose lists it may enter: searched down to the threshold."""
        near: dict[EntityRef, list[Neighbour]] = {ref: [] for ref in points}
        within: dict[EntityRef, list[Neighbour]] = {ref: [] for ref in points}

        def questions() -> Iterator[tuple[str, list[EntityRef]]]:
            refs = iter(sorted(points))
            while part := list(islice(refs, _DEEP_QUERIES_A_REQUEST)):
                yield from ((collection, part) for collection in self.collections)

        def ask(question: tuple[str, list[EntityRef]]) -> dict[EntityRef, Hits]:
            collection, waiting = question
            found: dict[EntityRef, Hits] = {}
            limit = DEEP
            while waiting:
                hits = self._nearest(collection, waiting, points, limit, _DEEP_QUERIES_A_REQUEST)
                found |= {ref: answer for ref, answer in hits.items() if len(answer) < limit}
                waiting, limit = [ref for ref in waiting if ref not in found], limit * 2
            return found

        # While Qdrant answers one question, what it said to the one before is worked through.
        for _, hits in overlapped(questions(), ask, in_flight=_DEEP_IN_FLIGHT):
            known = self._resolve(connection, hits.values())
            for ref, answer in hits.items():
                named = {known[point][0]: score for point, score in answer if point in known}
                floors = {known[point][0]: known[point][1] for point, _ in answer if point in known}
                neighbours = neighbourhood(ref, named.items(), self._threshold)
                near[ref] += neighbours[:LIST_LENGTH]
                within[ref] += (one for one in neighbours if _enters(one.score, floors[one.ref]))
        return {ref: Reached(ranked(near[ref], LIST_LENGTH), tuple(within[ref])) for ref in points}

    def edges(self, rankings: Mapping[EntityRef, Ranking]) -> Iterator[ListedEdge]:
        for source, ranking in rankings.items():
            yield from semantic_edges(source, ranking, self._model)

    def _nearest(
        self, collection: str, refs: Sequence[EntityRef], points: Mapping[EntityRef, str], limit: int, at_once: int
    ) -> dict[EntityRef, Hits]:
        """The hits of each in `collection`; none for one whose point is not there (any more)."""
        found: dict[EntityRef, Hits] = {}
        exact = self._exact[collection]
        for start in range(0, len(refs), at_once):
            part = refs[start : start + at_once]
            asking = [Asking(points[ref], self._of_type[ref.type]) for ref in part]
            found |= zip(part, self._ask(collection, asking, limit, exact=exact), strict=True)
        return found

    def _ask(self, collection: str, asking: Sequence[Asking], limit: int, *, exact: bool) -> list[Hits]:
        qdrant = self._platform.qdrant
        floor = query_floor(self._threshold)
        while True:
            try:
                return qdrant.nearest(collection, asking, limit=limit, floor=floor, exact=exact)
            except PointsMissing:
                # Removed since, or lost: it has no neighbours until it is written again.
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

    def _resolve(self, connection: Connection, hits: Iterable[Hits]) -> dict[str, tuple[EntityRef, float | None]]:
        """The entity and the floor of each point that was hit; without those that the linker does not know."""
        points = {point for found in hits for point, _ in found}
        if not points:
            return {}
        # As the text of an array, which psycopg would make one by one, with quotes that ids of points never need.
        rows = connection.execute(
            self._platform.postgres.query("read_linked_points"), {"points": f"{{{','.join(points)}}}"}
        )
        return {point: (EntityRef(entity_type, entity_id), floor) for point, entity_type, entity_id, floor in rows}

    @cached_property
    def _exact(self) -> Mapping[str, bool]:
        return {name: self._platform.qdrant.count(name) <= EXACT_UP_TO for name in self.collections}


class TopicalLists:
    """Neighbours by shared tags, among all that are linked. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._threshold = platform.settings.topical_threshold

    def rankings(
        self, connection: Connection, tags: Mapping[EntityRef, frozenset[str]]
    ) -> tuple[dict[EntityRef, Ranking], dict[EntityRef, frozenset[str]]]:
        """The list of each entity, given its tags; and the tags of all who have a list or stand in one."""
        found: dict[EntityRef, Ranking] = {}
        listed: dict[EntityRef, frozenset[str]] = {}
        for part, index, holders, _ in self._indexes(connection, tags):
            rankings = {ref: index.ranking(ref, tags[ref], LIST_LENGTH) for ref in part}
            listed |= {ref: tags[ref] for ref in part}
            listed |= {near.ref: holders[near.ref] for ranking in rankings.values() for near in ranking}
            found |= rankings
        return found, listed

    def reached(self, connection: Connection, tags: Mapping[EntityRef, frozenset[str]]) -> dict[EntityRef, Reached]:
        """Of each entity, given its tags, its list and whose lists it may enter."""
        found: dict[EntityRef, Reached] = {}
        for part, index, _, floors in self._indexes(connection, tags):
            for ref in part:
                neighbours = index.neighbourhood(ref, tags[ref])
                within = tuple(one for one in neighbours if _enters(one.score, floors[one.ref]))
                found[ref] = Reached(ranked(neighbours, LIST_LENGTH), within)
        return found

    def edges(
        self, connection: Connection, rankings: Mapping[EntityRef, Ranking], known: Mapping[EntityRef, frozenset[str]]
    ) -> Iterator[ListedEdge]:
        """The edges of the lists, with the tags that are shared; those that are not `known` are read."""
        sources = [ref for ref, ranking in rankings.items() if ranking]
        unknown = {*sources, *(near.ref for ref in sources for near in rankings[ref])} - known.keys()
        tags = dict(known)
        if unknown:
            tags |= {ref: row.tags for ref, row in read_linked(self._platform, connection, unknown).items()}
        weights = self._weights(connection, {tag for ref in sources for tag in tags.get(ref, ())})
        for ref in sources:
            if ref in tags:
                yield from topical_edges(ref, tags[ref], rankings[ref], tags, weights)

    def _indexes(
        self, connection: Connection, tags: Mapping[EntityRef, frozenset[str]]
    ) -> Iterator[tuple[list[EntityRef], TopicIndex, dict[EntityRef, frozenset[str]], dict[EntityRef, float | None]]]:
        """Some of the entities at a time, with everybody who may be a neighbour of theirs, and the tags and floors of
        those."""
        refs = iter(sorted(ref for ref, held in tags.items() if held))
        while part := list(islice(refs, _TOPICS_AT_ONCE)):
            own = {tag for ref in part for tag in tags[ref]}
            makers = candidate_tags(own, self._weights(connection, own))
            rows = connection.execute(
                self._platform.postgres.query("read_tag_holders"), {"tags": sorted(makers)}
            ).fetchall()
            holders = {EntityRef(row[0], row[1]): frozenset(row[2]) for row in rows}
            floors: dict[EntityRef, float | None] = {EntityRef(row[0], row[1]): row[3] for row in rows}
            weights = self._weights(connection, own.union(*holders.values()))
            yield part, TopicIndex(holders.items(), weights, self._threshold), holders, floors

    def _weights(self, connection: Connection, tags: Collection[str]) -> dict[str, TagWeight]:
        rows = connection.execute(self._platform.postgres.query("read_tag_weights"), {"tags": sorted(tags)})
        return {tag: TagWeight(weight, makes_candidates) for tag, weight, makes_candidates in rows}


def _enters(score: float, floor: float | None) -> bool:
    return floor is None or score >= floor
