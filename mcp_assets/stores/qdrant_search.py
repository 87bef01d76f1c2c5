"""Qdrant searches: the entities nearest to a vector, and the nearest neighbours of points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_assets.entities.conditions import Condition
from mcp_assets.entities.points import Key
from mcp_assets.stores.errors import PointsMissing, StoreRefused
from mcp_assets.stores.qdrant_conditions import filter_of
from mcp_assets.stores.qdrant_connection import QdrantConnection, is_not_found

_ENTITY_POINTS = {"must": [{"key": Key.KIND, "match": {"value": "entity"}}]}


_POINTS_AN_ENTITY = 3
"""Points that a search asks for, for each entity that is wanted: the chunks of one entity are often near together."""

_POINTS = 120
"""Points that a search asks for at least: they are of some 30 to 120 entities, and take 5 ms."""

_PLACE_KEYS = [Key.ENTITY_TYPE, Key.ENTITY_ID, Key.KIND, Key.START, Key.END]


@dataclass(frozen=True, slots=True)
class QueryPoint:
    """A point whose neighbours are searched, and the physical collection that holds it."""

    point: str
    collection: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One entity found: its best point's score and payload."""

    score: float
    payload: Mapping[str, Any]


class QdrantSearches(QdrantConnection):
    """Searches by vector."""

    def search(
        self,
        collection: str,
        vector: NDArray[np.float32],
        *,
        entity_type: str,
        limit: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Hit]:
        """The entities of `entity_type` nearest to `vector`, best first, each by its best point (its own or a chunk's).

        They are `limit` at least, if there are so many, and more if their points are among the nearest. Their metadata
        meet all `conditions`. The payload of a hit has only the keys that say which point it is. Points of other
        programs are left out.
        """
        wanted = filter_of(conditions, {"key": Key.ENTITY_TYPE, "match": {"value": entity_type}})
        points = max(_POINTS, _POINTS_AN_ENTITY * limit)
        answer = self._post(
            collection,
            "/query",
            {
                "query": vector.tolist(),
                "filter": wanted,
                "limit": points,
                "with_payload": _PLACE_KEYS,
            },
            lambda found: [(hit["score"], hit.get("payload") or {}) for hit in found["points"]],
        )
        best: dict[str, Hit] = {}
        for score, payload in answer:
            if Key.KIND in payload:
                best.setdefault(payload[Key.ENTITY_ID], Hit(score, payload))
        if len(best) < limit and len(answer) == points:
            return self._search_groups(collection, vector, wanted, limit)
        return list(best.values())

    def _search_groups(
        self, collection: str, vector: NDArray[np.float32], wanted: Mapping[str, Any], limit: int
    ) -> list[Hit]:
        """The same by Qdrant's groups, which cost three times as much, where a few entities have all nearest points."""
        hits = self._post(
            collection,
            "/query/groups",
            {
                "query": vector.tolist(),
                "group_by": Key.ENTITY_ID,
                "filter": wanted,
                "limit": limit,
                "group_size": 1,
                "with_payload": _PLACE_KEYS,
            },
            lambda found: [_hit(hit) for group in found["groups"] for hit in group["hits"]],
        )
        return [hit for hit in hits if Key.KIND in hit.payload]

    def nearest_entities(
        self,
        collection: str,
        vector: NDArray[np.float32],
        *,
        entity_types: Sequence[str],
        limit: int,
        floor: float,
    ) -> list[Hit]:
        """The `limit` entities of the types nearest to `vector` by their own points, best first; not by chunks.

        `floor`: cosine; entities that score lower are left out. The payload of a hit names its entity.
        """
        own_points = {"key": Key.KIND, "match": {"value": "entity"}}
        of_types = {"key": Key.ENTITY_TYPE, "match": {"any": list(entity_types)}}
        return self._post(
            collection,
            "/query",
            {
                "query": vector.tolist(),
                "filter": {"must": [own_points, of_types]},
                "limit": limit,
                "score_threshold": floor,
                "with_payload": _PLACE_KEYS,
            },
            lambda found: [_hit(hit) for hit in found["points"]],
        )

    def nearest(
        self, collection: str, queries: Sequence[QueryPoint], *, limit: int, floor: float, exact: bool
    ) -> list[list[tuple[str, float]]]:
        """For each of `queries` the entity points of `collection` nearest to it, best first, with cosines.

        One request, at most `limit` each; a point is not its own neighbour.

        `floor`: cosine; points that score lower are left out.

        Raises:
            PointsMissing: one of `queries` is not in its collection; `existing` finds which.
        """
        wanted = {
            "filter": _ENTITY_POINTS,
            "limit": limit,
            "score_threshold": floor,
            "with_payload": False,
            "params": {"exact": exact},
        }
        searches = [
            {**wanted, "query": one.point}
            if one.collection == collection
            else {**wanted, "query": one.point, "lookup_from": {"collection": one.collection}}
            for one in queries
        ]
        try:
            return self._post(
                collection,
                "/query/batch",
                {"searches": searches},
                lambda answer: [[(str(hit["id"]), hit["score"]) for hit in found["points"]] for found in answer],
            )
        except StoreRefused as error:
            if is_not_found(error):
                raise PointsMissing(str(error)) from error
            raise


def _hit(answer: Mapping[str, Any]) -> Hit:
    return Hit(float(answer["score"]), answer.get("payload") or {})
