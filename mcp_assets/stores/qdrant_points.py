"""Qdrant points: durable writes, reads by id, and scrolls (reads of all points of a filter, page by page)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import SLOTS
from mcp_assets.stores.qdrant_conditions import Filter, has, has_any
from mcp_assets.stores.qdrant_connection import WAIT, QdrantConnection, collection_path

T = TypeVar("T")

_POINTS_A_REQUEST = 400
"""Points in one request: with 1,536 dimensions as JSON some 10 MB."""

_DECIMALS = 8
"""Decimals of a component of a unit vector, as it is sent."""

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
        for part in _slices(upsert):
            # Half as many digits to write and to parse; scores are rounded to 4 decimals, so that none changes.
            vectors = np.stack([point.vector for point in part]).astype(np.float64).round(_DECIMALS).tolist()
            records = [
                {"id": str(point.id), "vector": vector, "payload": point.payload}
                for point, vector in zip(part, vectors, strict=True)
            ]
            for body in _bodies("points", records, self._tuning.qdrant_bytes_a_request):
                self._applied(self._upsert(collection, body))
        for entries in _slices(list((payloads or {}).items())):
            operations = [
                {"overwrite_payload": {"payload": payload, "points": [str(identifier)]}}
                for identifier, payload in entries
            ]
            for body in _bodies("operations", operations, self._tuning.qdrant_bytes_a_request):
                self._applied(self._update(collection, body))
        for identifiers in _slices(delete):
            self._applied(self._delete(collection, {"points": [str(identifier) for identifier in identifiers]}))

    def delete(self, collection: str, ids: Sequence[str], *, naming: Sequence[str] | None = None) -> None:
        """Remove points by their ids, which another program may have given; returns when it is applied.

        `naming`: only those whose payload names one of these entity ids at that moment.
        """
        for part in _slices(ids):
            must: list[Filter] = [{"has_id": list(map(_identifier, part))}]
            if naming is not None:
                must.append(has_any(Key.ENTITY_ID, naming))
            self._applied(self._delete(collection, {"filter": {"must": must}}))

    def existing(self, collection: str, points: Sequence[str]) -> set[str]:
        """Those of `points` that `collection` holds."""
        return {
            str(record["id"])
            for part in _slices(points)
            for record in self._retrieve(collection, part, with_payload=False, with_vector=False)
        }

    def points(
        self, collection: str, ids: Sequence[str], *, keys: Sequence[str] | None = None, vectors: bool = True
    ) -> list[HeldPoint]:
        """Those of `ids` that `collection` holds.

        `keys`: the payload keys that are wanted; all by default.
        """
        found: list[HeldPoint] = []
        for part in _slices(ids):
            with_payload = True if keys is None else list(keys)
            found += map(_held, self._retrieve(collection, part, with_payload=with_payload, with_vector=vectors))
        return found

    def _retrieve(self, collection: str, ids: Sequence[str], **wanted: object) -> list[dict[str, Any]]:
        asked = {"ids": list(map(_identifier, ids)), **wanted}
        records: list[dict[str, Any]] = self._request("POST", collection_path(collection, "/points"), asked)
        return records

    def vectors(self, collection: str, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those of `ids` that `collection` holds; NaN where Qdrant gave no number."""
        found: dict[str, NDArray[np.float32]] = {}
        for part in _slices(ids):
            found |= _vectors(map(_held, self._retrieve(collection, part, with_payload=False, with_vector=True)))
        return found

    def scroll_vectors(self, collection: str, dimension: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        """The vectors of all entity points, page by page, in the order of their ids; NaN where Qdrant gave no number.

        Points that are written meanwhile may be left out. `dimension`: that of the collection.
        """
        entity_points = {"must": [has(Key.KIND, "entity")]}
        limit = max(_POINTS_A_REQUEST, _NUMBERS_A_PAGE // dimension)
        return map(_vectors, self._scroll(collection, entity_points, (), with_vectors=True, limit=limit))

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
        named = {"must": [has(Key.ENTITY_TYPE, entity_type), has_any(Key.ENTITY_ID, ids)]}
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
        return self._count(collection, {"must": [has_any(Key.KIND, ["entity", "chunk"])]})

    def _count(self, collection: str, counted: Filter | None) -> int:
        asked = {"filter": counted, "exact": True}
        return int(self._request("POST", collection_path(collection, "/points/count"), asked)["count"])

    def model_in(self, collection: str) -> str | None:
        """The model that the points of `collection` bear; None if no point bears one."""
        own_points = {"must": [has(Key.KIND, "entity")]}
        page = next(self._scroll(collection, own_points, [Key.MODEL], with_vectors=False, limit=1))
        return next((str(point.payload[Key.MODEL]) for point in page if Key.MODEL in point.payload), None)

    def _scroll(
        self,
        collection: str,
        scroll_filter: Filter | None,
        keys: Sequence[str] | None,
        *,
        with_vectors: bool,
        limit: int = _POINTS_A_PAGE,
    ) -> Iterator[list[HeldPoint]]:
        asked: dict[str, Any] = {
            "filter": scroll_filter,
            "limit": limit,
            "offset": None,
            "with_payload": True if keys is None else list(keys),
            "with_vector": with_vectors,
        }
        while True:
            page = self._request("POST", collection_path(collection, "/points/scroll"), asked)
            yield [_held(record) for record in page["points"]]
            asked["offset"] = page.get("next_page_offset")
            if asked["offset"] is None:
                return

    def _upsert(self, collection: str, body: bytes) -> Mapping[str, Any]:
        """`body`: `{"points": [...]}` as JSON."""
        result: Mapping[str, Any] = self._request("PUT", collection_path(collection, "/points"), body, WAIT)
        return result

    def _update(self, collection: str, body: bytes) -> Iterable[Mapping[str, Any]]:
        """`body`: `{"operations": [...]}` as JSON, which write payloads."""
        results: Iterable[Mapping[str, Any]]
        results = self._request("POST", collection_path(collection, "/points/batch"), body, WAIT)
        return results

    def _delete(self, collection: str, selector: Mapping[str, Any]) -> Mapping[str, Any]:
        """`selector`: ids of points, or a filter."""
        result: Mapping[str, Any]
        result = self._request("POST", collection_path(collection, "/points/delete"), selector, WAIT)
        return result


_SLOT: Filter = {"key": Key.SLOT, "range": {"gte": 0, "lt": SLOTS}}


def _slots(slots: tuple[int, int]) -> Filter:
    return {"must": [{"key": Key.SLOT, "range": {"gte": slots[0], "lt": slots[1]}}]}


def _identifier(text: str) -> int | str:
    """An id as Qdrant takes it: a number or a UUID."""
    return int(text) if text.isdecimal() else text


def _held(record: Mapping[str, Any]) -> HeldPoint:
    # Named vectors, which another program may have written, are a mapping.
    vector = record.get("vector")
    numbers = np.array(vector if isinstance(vector, list) else [], dtype=np.float32)
    return HeldPoint(str(record["id"]), record.get("payload") or {}, numbers)


def _vectors(points: Iterable[HeldPoint]) -> dict[str, NDArray[np.float32]]:
    """By id; without points that have no vector."""
    return {point.id: point.vector for point in points if len(point.vector)}


def _bodies(key: str, records: Sequence[Mapping[str, Any]], max_bytes: int) -> Iterator[bytes]:
    """`{key: records}` as JSON, in parts of at most `max_bytes`, unless one record alone is larger."""
    body = to_json({key: records}, inf_nan_mode="null")
    if len(body) <= max_bytes or len(records) == 1:
        yield body
        return
    half = len(records) // 2
    yield from _bodies(key, records[:half], max_bytes)
    yield from _bodies(key, records[half:], max_bytes)


def _slices(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _POINTS_A_REQUEST] for start in range(0, len(items), _POINTS_A_REQUEST))
