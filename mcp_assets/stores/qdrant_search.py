"""Qdrant searches: the entities nearest to a vector, and the nearest neighbours of points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mcp_assets.entities.conditions import Condition
from mcp_assets.entities.points import Key
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.stores.qdrant_conditions import Filter, filter_of, has, has_any
from mcp_assets.stores.qdrant_connection import QdrantConnection, collection_path

T = TypeVar("T")

_ENTITY_POINTS = {"must": [has(Key.KIND, "entity")]}


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
        wanted = filter_of(conditions, has(Key.ENTITY_TYPE, entity_type))
        points = max(_POINTS, _POINTS_AN_ENTITY * limit)
        answer = self._query(
            collection,
            "query",
            {
                "query": vector.tolist(),
                "filter": wanted,
                "limit": points,
                "with_payload": _PLACE_KEYS,
            },
            lambda found: [_hit(hit) for hit in found["points"]],
        )
        best: dict[str, Hit] = {}
        for hit in answer:
            if Key.KIND in hit.payload:
                best.setdefault(hit.payload[Key.ENTITY_ID], hit)
        if len(best) < limit and len(answer) == points:
            return self._search_groups(collection, vector, wanted, limit)
        return list(best.values())

    def _search_groups(self, collection: str, vector: NDArray[np.float32], wanted: Filter, limit: int) -> list[Hit]:
        """The same by Qdrant's groups, which cost three times as much, where a few entities have all nearest points."""
        hits = self._query(
            collection,
            "query/groups",
            {
                "group_by": Key.ENTITY_ID,
                "query": vector.tolist(),
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
        return self._query(
            collection,
            "query",
            {
                "query": vector.tolist(),
                "filter": {"must": [has(Key.KIND, "entity"), has_any(Key.ENTITY_TYPE, entity_types)]},
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
        return self._query(
            collection,
            "query/batch",
            {"searches": searches},
            lambda answer: [[(str(hit["id"]), hit["score"]) for hit in found["points"]] for found in answer],
        )

    def _query(self, collection: str, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """What `read` makes of the result of a query, which is JSON."""
        # Qdrant itself gives a query up after so many seconds.
        params = {"timeout": str(int(self._timeout_s))}
        result = self._request("POST", collection_path(collection, f"/points/{path}"), body, params)
        try:
            return read(result)
        except (KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"Qdrant at {without_password(self._url)} answered a search with something else than points: "
                "check that QDRANT_URL leads to Qdrant itself"
            ) from error


def _hit(hit: Mapping[str, Any]) -> Hit:
    return Hit(hit["score"], hit.get("payload") or {})
