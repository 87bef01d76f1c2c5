"""Lists: semantic and topical neighbours, asked of Qdrant and of `linked`; and whose lists a change reaches.

`linked.semantic_floor` and `linked.topical_floor` are the `floor` of what is known of an entity's neighbours: whoever
scores lower is of no concern to it. Most lists that a changed entity could enter are ruled out by that alone.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from mcp_assets.entities.points import is_own_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import (
    KNOWN,
    LIST_LENGTH,
    EdgeType,
    Known,
    ListedEdge,
    Neighbour,
    Ranking,
    TagWeight,
    TopicIndex,
    candidate_tags,
    cut,
    known_of,
    left_out,
    nearest,
    neighbourhood,
    query_floor,
    ranked,
    semantic_edges,
    topical_edges,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import PointsMissing
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Asking
from mcp_assets.sync.collections.serving import serving_collections, serving_profile
from mcp_assets.sync.link.link_state import read_linked
from mcp_assets.sync.pipeline import overlapped

EXACT_UP_TO = 100_000
"""Points in a collection up to which it is searched exactly: there, incremental equals rebuild strictly."""

QUERIES_A_REQUEST = 250

ASKED = LIST_LENGTH + 4
"""Hits asked for, for a list: one more than it holds, for the last may tie; a few more, for some may be gone."""

DEEP = 1_000
"""Hits asked for down to the threshold, at first; twice as many while that is not enough."""

_DEEP_QUERIES_A_REQUEST = 10

_DEEP_IN_FLIGHT = 4
"""Twice as many answers are held: some megabytes each."""

_TOPICS_AT_ONCE = 500

NAMES_KEPT = 100_000
"""Points whose entities are known without asking: some twenty megabytes."""

_LISTS = {EdgeType.SEMANTIC_SIMILARITY: "semantic", EdgeType.TOPICAL_RELEVANCE: "topical"}

Hits = list[tuple[str, float]]

Answers = Mapping[EntityRef, Mapping[str, Hits]]
"""Of each entity what is nearest to it, by collection."""

Names = dict[str, EntityRef | None]
"""The entity that is linked with a point; None if there is none. True until a change is worked off."""


def together(answers: Iterable[Answers]) -> Answers:
    found: dict[EntityRef, dict[str, Hits]] = {}
    for part in answers:
        for ref, by_collection in part.items():
            found.setdefault(ref, {}).update(by_collection)
    return found


class Reached(NamedTuple):
    """Neighbours of a changed entity: its own, and those whose lists it may enter."""

    known: Known = Known()
    within_reach: tuple[Neighbour, ...] = ()


def known_from(neighbours: Iterable[Neighbour], kept: int) -> Known:
    """What is known of neighbours of which none is left out."""
    return cut(ranked(neighbours, kept + 1), None, kept)


class SemanticLists:
    """Neighbours by cosine, over all collections of the model that serves. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
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

    def questions(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[str, Mapping[EntityRef, str]]]:
        """The requests by which Qdrant is asked for the lists of entities, given their points: what `answer` takes."""
        ordered = iter(sorted(points.items()))
        while part := dict(islice(ordered, QUERIES_A_REQUEST)):
            yield from ((collection, part) for collection in self.collections)

    def answer(self, collection: str, points: Mapping[EntityRef, str]) -> Answers:
        return {
            ref: {collection: hits}
            for ref, hits in self._nearest(collection, list(points), points, ASKED, QUERIES_A_REQUEST).items()
        }

    def known(
        self,
        connection: Connection,
        points: Mapping[EntityRef, str],
        answers: Answers | None = None,
        names: Names | None = None,
    ) -> dict[EntityRef, Known]:
        """The neighbours of each entity, given its point; those that `ask` has not answered are asked about.

        `names`: what is known of points already, and is added to.
        """
        found: dict[EntityRef, Known] = dict.fromkeys(points, Known())
        answers = answers or {}
        unasked = {ref: point for ref, point in points.items() if ref not in answers}
        answered = together((answers, *(self.answer(*question) for question in self.questions(unasked))))
        hits = {ref: dict(answered.get(ref, {})) for ref in points}
        limits = {ref: dict.fromkeys(hits[ref], ASKED) for ref in points}
        names = {} if names is None else names
        asked = set(points)
        while asked:
            unnamed = {point for ref in asked for hit in hits[ref].values() for point, _ in hit if point not in names}
            named = self._resolve(connection, unnamed)
            names |= {point: named[point][0] if point in named else None for point in unnamed}
            waiting: dict[tuple[str, int], list[EntityRef]] = {}
            for ref in asked:
                near = nearest(ref, hits[ref].values(), names, self._threshold, KNOWN + 1)
                floors = {
                    collection: left_out(answer, limits[ref][collection], self._threshold)
                    for collection, answer in hits[ref].items()
                }
                known = found[ref] = known_of(near, floors.values(), KNOWN)
                if known.floor is not None and len(known.neighbours) < LIST_LENGTH:
                    for collection, floor in floors.items():
                        if floor is not None and sum(neighbour.score > floor for neighbour in near) < LIST_LENGTH:
                            limits[ref][collection] *= 2
                            waiting.setdefault((collection, limits[ref][collection]), []).append(ref)
            for (collection, limit), refs in waiting.items():
                for ref, answer in self._nearest(collection, refs, points, limit, QUERIES_A_REQUEST).items():
                    hits[ref][collection] = answer
            asked = {ref for refs in waiting.values() for ref in refs}
        return found

    def reached(
        self,
        connection: Connection,
        points: Mapping[EntityRef, str],
        meanwhile: Callable[[Collection[EntityRef]], None],
    ) -> dict[EntityRef, Reached]:
        """Of each entity, given its point, its neighbours and whose lists it may enter: searched down to the threshold.

        `meanwhile` is told whom an answer reaches, while Qdrant gives the next.
        """
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

        names: Names = {}
        entry: dict[str, float] = {}
        # While Qdrant answers one question, what it said to the one before is worked through.
        for _, hits in overlapped(questions(), ask, in_flight=_DEEP_IN_FLIGHT, fill=True):
            if len(names) > NAMES_KEPT:
                names, entry = {}, {}
            unnamed = {point for answer in hits.values() for point, _ in answer if point not in names}
            known = self._resolve(connection, unnamed)
            for point in unnamed:
                named, floor = known.get(point, (None, None))
                names[point] = named
                # Most hits enter no list: they are told apart before anything is made of them.
                entry[point] = math.inf if named is None else query_floor(self._threshold if floor is None else floor)
            reached: set[EntityRef] = set()
            for ref, answer in hits.items():
                near[ref] += nearest(ref, [answer], names, self._threshold, KNOWN + 1)
                high = ((names[point], score) for point, score in answer if score >= entry[point])
                entered = neighbourhood(ref, ((named, score) for named, score in high if named), self._threshold)
                within[ref] += entered
                reached.update(one.ref for one in entered)
            meanwhile(reached)
        return {ref: Reached(known_from(near[ref], KNOWN), tuple(within[ref])) for ref in points}

    def edges(self, rankings: Mapping[EntityRef, Ranking]) -> Iterator[ListedEdge]:
        for source, ranking in rankings.items():
            yield from semantic_edges(source, ranking, self.profile.name, self._collection_of)

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

    def _resolve(self, connection: Connection, points: Collection[str]) -> dict[str, tuple[EntityRef, float | None]]:
        """The entity and the floor of each point; without those that the linker does not know."""
        own = [point for point in points if is_own_id(point)]
        if not own:
            return {}
        # As the text of an array, which psycopg would make one by one, with quotes that ids of points never need.
        rows = connection.execute(
            self._platform.postgres.query("read_linked_points"), {"points": f"{{{','.join(own)}}}"}
        )
        found = rows.fetchall()
        return {point: (EntityRef(entity_type, entity_id), floor) for point, entity_type, entity_id, floor in found}

    @cached_property
    def _exact(self) -> Mapping[str, bool]:
        return {name: self._platform.qdrant.count(name) <= EXACT_UP_TO for name in self.collections}


@dataclass(frozen=True)
class Topics:
    """Some entities, with everybody who may be a neighbour of theirs by tags: what is asked here asks no store."""

    tags: Mapping[EntityRef, frozenset[str]]
    _holders: Mapping[EntityRef, frozenset[str]]
    _floors: Mapping[EntityRef, float | None]
    _weights: Mapping[str, TagWeight]
    _threshold: float

    def known(self, ref: EntityRef) -> Known:
        """Its neighbours, those in its list alone."""
        return known_from(self._index.ranking(ref, self.tags[ref], LIST_LENGTH + 1), LIST_LENGTH)

    def edges(self, ref: EntityRef, ranking: Ranking) -> Iterator[ListedEdge]:
        """The edges of the list, with the tags that are shared."""
        return topical_edges(ref, self.tags[ref], ranking, self._holders, self._weights)

    def reached(self, ref: EntityRef) -> Reached:
        neighbours = self._index.neighbourhood(ref, self.tags[ref])
        within = tuple(one for one in neighbours if _enters(one.score, self._floors[one.ref]))
        return Reached(known_from(neighbours, LIST_LENGTH), within)

    @cached_property
    def _index(self) -> TopicIndex:
        return TopicIndex(self._holders.items(), self._weights, self._threshold)


class TopicalLists:
    """Neighbours by shared tags, among all that are linked. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._threshold = platform.settings.topical_threshold

    def topics(self, connection: Connection, tags: Mapping[EntityRef, frozenset[str]]) -> Iterator[Topics]:
        """All of the entities, given their tags, some at a time."""
        refs = iter(sorted(tags))
        while part := list(islice(refs, _TOPICS_AT_ONCE)):
            own = {tag for ref in part for tag in tags[ref]}
            makers = candidate_tags(own, self._weights(connection, own))
            rows = connection.execute(
                self._platform.postgres.query("read_tag_holders"), {"tags": sorted(makers)}
            ).fetchall()
            holders = {EntityRef(row[0], row[1]): frozenset(row[2]) for row in rows}
            floors: dict[EntityRef, float | None] = {EntityRef(row[0], row[1]): row[3] for row in rows}
            weights = self._weights(connection, own.union(*holders.values()))
            yield Topics({ref: tags[ref] for ref in part}, holders, floors, weights, self._threshold)

    def edges_of(self, connection: Connection, tags: Mapping[EntityRef, frozenset[str]]) -> Iterator[ListedEdge]:
        """The edges of the list of each entity, given its tags."""
        for topics in self.topics(connection, tags):
            for ref in topics.tags:
                yield from topics.edges(ref, topics.known(ref).ranking)

    def edges(self, connection: Connection, rankings: Mapping[EntityRef, Ranking]) -> Iterator[ListedEdge]:
        """The edges of lists that are known."""
        sources = [ref for ref, ranking in rankings.items() if ranking]
        named = {near.ref for ref in sources for near in rankings[ref]}.union(sources)
        tags = {ref: row.tags for ref, row in read_linked(self._platform, connection, named).items()}
        weights = self._weights(connection, {tag for ref in sources for tag in tags.get(ref, ())})
        for ref in sources:
            if ref in tags:
                # While everybody is asked anew, a list whose turn has not come may name somebody who is gone.
                living = tuple(near for near in rankings[ref] if near.ref in tags)
                yield from topical_edges(ref, tags[ref], living, tags, weights)

    def _weights(self, connection: Connection, tags: Collection[str]) -> dict[str, TagWeight]:
        rows = connection.execute(self._platform.postgres.query("read_tag_weights"), {"tags": sorted(tags)})
        return {tag: TagWeight(weight, makes_candidates) for tag, weight, makes_candidates in rows.fetchall()}


def _enters(score: float, floor: float | None) -> bool:
    return floor is None or score >= floor
