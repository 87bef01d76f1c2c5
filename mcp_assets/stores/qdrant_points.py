"""Qdrant points: durable writes, reads by id, and scrolls (reads of all points of a filter, page by page)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import SLOTS
from mcp_assets.stores.errors import PointsMissing
from mcp_assets.stores.qdrant_connection import QdrantConnection, reason_of
from mcp_assets.stores.qdrant_reads import path_of
from mcp_assets.stores.vector_json import vectors_as_json

if TYPE_CHECKING:
    from qdrant_client import models

T = TypeVar("T")

_POINTS_A_REQUEST = 400
"""Points in one request: with 1,536 dimensions as JSON some 10 MB."""

_POINTS_A_PAGE = 1_000
"""Points in one page of a scroll: with 1,536 dimensions as JSON some 25 MB."""

_NUMBERS_A_PAGE = 256_000
"""Numbers in one page of vectors: as JSON some 5 MB, and as Python's floats 8 MB."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point to write. `vector` is float32 of the collection's dimension."""

    id: UUID
    vector: NDArray[np.float32]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HeldPoint:
    """A point as Qdrant holds it. `vector` is float32, NaN where Qdrant gave no number; empty if there is none."""

    id: str
    payload: Mapping[str, Any]
    vector: NDArray[np.float32]


class QdrantPoints(QdrantConnection):
    """Requests about points. Every write waits until Qdrant has applied it."""

    def write(
        self,
        collection: str,
        *,
        upsert: Sequence[Point] = (),
        payloads: Mapping[UUID, Mapping[str, Any]] | None = None,
        delete: Sequence[UUID] = (),
    ) -> None:
        """Apply all three, in this order; returns when Qdrant has applied them. Safe to repeat.

        Raises:
            PointsMissing: a payload is meant for a point that is not there; some may have been applied.
            StoreRefused: Qdrant refuses one of them; some may have been applied.
            StoreUnavailable: Qdrant does not answer, or has not applied them in time.
        """
        from qdrant_client import models

        for part in _slices(upsert):
            vectors = vectors_as_json(np.stack([point.vector for point in part]))
            records = [
                b'{"id":"%b","vector":%b,"payload":%b}'
                % (str(point.id).encode(), vector, to_json(point.payload, inf_nan_mode="null"))
                for point, vector in zip(part, vectors, strict=True)
            ]
            for body in _bodies("points", records, self._tuning.qdrant_bytes_a_request):
                self._applied(lambda body=body: self._upsert(collection, body))  # type: ignore[misc]
        for entries in _slices(list((payloads or {}).items())):
            operations = [
                to_json({"overwrite_payload": {"payload": payload, "points": [str(identifier)]}}, inf_nan_mode="null")
                for identifier, payload in entries
            ]
            for body in _bodies("operations", operations, self._tuning.qdrant_bytes_a_request):
                self._applied(lambda body=body: self._update(collection, body))  # type: ignore[misc]
        for identifiers in _slices(delete):
            selector = models.PointIdsList(points=[str(identifier) for identifier in identifiers])
            self._applied(lambda selector=selector: self._client.delete(collection, selector, wait=True))  # type: ignore[misc]

    def delete(self, collection: str, ids: Sequence[str], *, naming: Sequence[str] | None = None) -> None:
        """Remove points by their ids, which another program may have given; returns when it is applied.

        `naming`: only those whose payload names one of these entity ids at that moment.
        """
        from qdrant_client import models

        for part in _slices(ids):
            must: list[models.Condition] = [models.HasIdCondition(has_id=list(map(_identifier, part)))]
            if naming is not None:
                must.append(models.FieldCondition(key=Key.ENTITY_ID, match=models.MatchAny(any=list(naming))))
            selector = models.FilterSelector(filter=models.Filter(must=must))
            self._applied(lambda selector=selector: self._client.delete(collection, selector, wait=True))  # type: ignore[misc]

    def existing(self, collection: str, points: Sequence[str]) -> set[str]:
        """Those of `points` that `collection` holds."""
        found: set[str] = set()
        for part in _slices(points):
            records = self._call(
                lambda part=part: self._client.retrieve(  # type: ignore[misc]
                    collection, list(part), with_payload=False, with_vectors=False
                )
            )
            found.update(str(record.id) for record in records)
        return found

    def points(
        self, collection: str, ids: Sequence[str], *, keys: Sequence[str] | None = None, vectors: bool = True
    ) -> list[HeldPoint]:
        """Those of `ids` that `collection` holds.

        `keys`: the payload keys that are wanted; all by default.
        """
        found: list[HeldPoint] = []
        for part in _slices(ids):
            body = {
                "ids": list(map(_identifier, part)),
                "with_payload": True if keys is None else list(keys),
                "with_vector": vectors,
            }
            found += self._post(collection, "", body, lambda records: list(map(_held, records)))
        return found

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those of `ids` that `collection` holds; NaN where Qdrant gave no number."""
        found: dict[str, NDArray[np.float32]] = {}
        for part in _slices(ids):
            body = {"ids": list(map(_identifier, part)), "with_payload": False, "with_vector": True}
            found |= self._post(collection, "", body, _vectors)
        return found

    def scroll_vectors(self, collection: str, dimension: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The vectors of all entity points, page by page, in the order of their ids; NaN where Qdrant gave no number.

        Points that are written meanwhile may be left out. `dimension`: that of the collection.
        """
        body: dict[str, Any] = {
            "filter": _ENTITY_POINTS,
            "limit": max(_POINTS_A_REQUEST, _NUMBERS_A_PAGE // dimension),
            "with_payload": False,
            "with_vector": True,
        }
        while True:
            page, body["offset"] = self._post(
                collection, "/scroll", body, lambda found: (_vectors(found["points"]), found["next_page_offset"])
            )
            yield page
            if body["offset"] is None:
                return

    def scroll_slots(
        self, collection: str, slots: tuple[int, int], *, keys: Sequence[str] | None = None, vectors: bool = True
    ) -> Iterator[list[HeldPoint]]:
        """Every point whose payload has a slot in `slots` (half-open), in pages.

        `keys`: the payload keys that are wanted; all by default.
        """
        return self._scroll(collection, _slots(slots), keys, with_vectors=vectors)

    def scroll_without_slot(self, collection: str, *, keys: Sequence[str]) -> Iterator[list[HeldPoint]]:
        """Every point whose payload has no slot (0..65535), in pages, without vectors.

        This platform wrote none of them.
        """
        return self._scroll(collection, {"must_not": [_SLOT]}, keys, with_vectors=False)

    def naming(self, collection: str, entity_type: str, ids: Sequence[str]) -> Iterator[HeldPoint]:
        """The points whose payload names one of the entities; they come with the key `entity_id` alone."""
        named = {
            "must": [
                {"key": Key.ENTITY_TYPE, "match": {"value": entity_type}},
                {"key": Key.ENTITY_ID, "match": {"any": list(ids)}},
            ]
        }
        for page in self._scroll(collection, named, [Key.ENTITY_ID], with_vectors=False):
            yield from page

    def payload_pages(self, collection: str, *, limit: int) -> Iterator[list[HeldPoint]]:
        """Every point with its whole payload, in pages of `limit`, without vectors."""
        return self._scroll(collection, None, None, with_vectors=False, limit=limit)

    def count(self, collection: str, slots: tuple[int, int] | None = None) -> int:
        """The exact number of points; of those with a slot in `slots` (half-open), if that is given."""
        return self._count(collection, None if slots is None else _slots(slots))

    def count_ours(self, collection: str) -> int:
        """The exact number of points that bear this platform's keys. `collection` is prepared."""
        return self._count(collection, {"must": [{"key": Key.KIND, "match": {"any": ["entity", "chunk"]}}]})

    def _count(self, collection: str, count_filter: Mapping[str, Any] | None) -> int:
        body = {"exact": True} if count_filter is None else {"exact": True, "filter": count_filter}
        return self._reads.post(f"{path_of(collection)}/points/count", body, lambda found: int(found["count"]))

    def model_in(self, collection: str) -> str | None:
        """The model that the points of `collection` bear; None if no point bears one."""
        body = {"filter": _ENTITY_POINTS, "limit": 1, "with_payload": [Key.MODEL]}
        points = self._post(collection, "/scroll", body, lambda found: list(map(_held, found["points"])))
        return next((str(point.payload[Key.MODEL]) for point in points if Key.MODEL in point.payload), None)

    def _scroll(
        self,
        collection: str,
        scroll_filter: Mapping[str, Any] | None,
        keys: Sequence[str] | None,
        *,
        with_vectors: bool,
        limit: int = _POINTS_A_PAGE,
    ) -> Iterator[list[HeldPoint]]:
        body: dict[str, Any] = {
            "limit": limit,
            "with_payload": True if keys is None else list(keys),
            "with_vector": with_vectors,
        }
        if scroll_filter is not None:
            body["filter"] = scroll_filter
        while True:
            page, body["offset"] = self._post(
                collection,
                "/scroll",
                body,
                lambda found: (list(map(_held, found["points"])), found["next_page_offset"]),
            )
            yield page
            if body["offset"] is None:
                return

    def _upsert(self, collection: str, body: bytes) -> "models.UpdateResult":
        """`body`: a PointsList as JSON."""
        answer = self._client.http.points_api.upsert_points(
            collection,
            wait=True,
            point_insert_operations=body,  # type: ignore[arg-type]
        )
        assert answer.result is not None  # noqa: S101  (an answer without one is an error)
        return answer.result

    def _update(self, collection: str, body: bytes) -> "Iterable[models.UpdateResult]":
        """`body`: UpdateOperations as JSON, which write payloads."""
        from qdrant_client.http.exceptions import UnexpectedResponse

        try:
            answer = self._client.http.points_api.batch_update(
                collection,
                wait=True,
                update_operations=body,  # type: ignore[arg-type]
            )
        except UnexpectedResponse as error:
            if error.status_code == 404:
                raise PointsMissing(f"Qdrant refused (404): {reason_of(error)}") from error
            raise
        assert answer.result is not None  # noqa: S101  (an answer without one is an error)
        return answer.result


_ENTITY_POINTS = {"must": [{"key": Key.KIND, "match": {"value": "entity"}}]}

_SLOT = {"key": Key.SLOT, "range": {"gte": 0, "lt": SLOTS}}


def _slots(slots: tuple[int, int]) -> dict[str, Any]:
    return {"must": [{"key": Key.SLOT, "range": {"gte": slots[0], "lt": slots[1]}}]}


def _identifier(text: str) -> int | str:
    """An id as Qdrant takes it: a number or a UUID."""
    return int(text) if text.isdecimal() else text


def _held(record: Mapping[str, Any]) -> HeldPoint:
    vector = record.get("vector")
    numbers = np.array(vector if isinstance(vector, list) else [], dtype=np.float32)
    return HeldPoint(str(record["id"]), record.get("payload") or {}, numbers)


def _vectors(records: Iterable[Mapping[str, Any]]) -> dict[str, NDArray[np.float32]]:
    """By id; without points that have no vector."""
    return {
        str(record["id"]): np.array(vector, dtype=np.float32)
        for record in records
        if isinstance(vector := record.get("vector"), list) and vector
    }


def _bodies(key: str, records: Sequence[bytes], max_bytes: int) -> Iterator[bytes]:
    """`{key: records}` as JSON, in parts of at most `max_bytes`, unless one record alone is larger. `records`: JSON."""
    # Sent by the generated call: the methods above that call would validate every number again.
    body = b'{"%b":[%b]}' % (key.encode(), b",".join(records))
    if len(body) <= max_bytes or len(records) == 1:
        yield body
        return
    half = len(records) // 2
    yield from _bodies(key, records[:half], max_bytes)
    yield from _bodies(key, records[half:], max_bytes)


def _slices(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _POINTS_A_REQUEST] for start in range(0, len(items), _POINTS_A_REQUEST))
