"""Qdrant: collections reached by alias, durable writes, search; any Qdrant, through qdrant-client over REST."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import httpx
import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.entities.points import INDEXED_KEYS, Key
from mcp_assets.entities.refs import SLOTS
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import (
    CollectionMismatch,
    CollectionNotOurs,
    PointsMissing,
    StoreRefused,
    StoreUnavailable,
)
from mcp_assets.stores.qdrant_identity import METADATA_KEY, verify_connections

T = TypeVar("T")

_SCHEMAS: Mapping[str, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
}

# Points in one request: with 1,536 dimensions as JSON some 10 MB.
_POINTS_A_REQUEST = 400

BYTES_A_REQUEST = 16 << 20
"""Qdrant refuses bodies over 32 MiB, and what stands before it may refuse sooner."""

_DECIMALS = 8
"""Of a component of a unit vector, as it is sent."""

_POINTS_A_PAGE = 1_000

_POINTS_A_COPY = 100


@dataclass(frozen=True, slots=True)
class Point:
    """A point to write. `vector` is float32 of the collection's dimension."""

    id: UUID
    vector: NDArray[np.float32]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Collection:
    """A physical collection that an alias leads to."""

    alias: str
    name: str


@dataclass(frozen=True, slots=True)
class MadeFor:
    """What a physical collection was made for."""

    alias: str
    name: str
    dimension: int
    distance: str
    indexes: frozenset[str] = frozenset()
    """The payload keys that it has indexes of."""

    @property
    def is_prepared(self) -> bool:
        """All that is filtered by is indexed, and every point that this platform wrote bears its keys of now."""
        return self.indexes >= INDEXED_KEYS.keys()


@dataclass(frozen=True, slots=True)
class Asking:
    """A point whose neighbours are wanted, and the physical collection that holds it."""

    point: str
    collection: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One entity found: its best point's score and payload."""

    score: float
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HeldPoint:
    """A point as Qdrant holds it. `vector` is float32, NaN where Qdrant gave no number; empty if there is none."""

    id: str
    payload: Mapping[str, Any]
    vector: NDArray[np.float32]


_ENTITY_POINTS = {"must": [{"key": Key.KIND, "match": {"value": "entity"}}]}


_CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=3.0)
"""Connections are kept for the next request, on loopback too, for which qdrant-client would open one for each request:
every new connection is verified, which takes a request or more. They are given up before a server does so (after 5 s,
as both the embedded server and a real Qdrant have it)."""


def physical_name(alias: str, profile: ModelProfile) -> str:
    return f"{alias}__{profile.slug}_{profile.dimension}"


class Qdrant:
    """One Qdrant. Thread-safe; connects lazily. Every write waits until it is applied.

    `verify` is called on each new connection, and raises StoreUnavailable if it leads to another Qdrant; `mark`: what
    new collections bear in their metadata.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        verify: Callable[[], None] | None = None,
        mark: Callable[[], str] | None = None,
    ) -> None:
        self._verify = verify
        self._mark = mark
        self._url = url
        self._api_key = api_key
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._made: QdrantClient | None = None

    @property
    def _client(self) -> QdrantClient:
        with self._lock:
            if self._made is None:
                self._made = QdrantClient(
                    url=self._url,
                    api_key=self._api_key,
                    timeout=int(self._timeout_s),
                    check_compatibility=False,
                    limits=_CONNECTIONS,
                )
                if self._verify is not None:
                    self._made.http.client.add_middleware(verify_connections(self._verify))
            return self._made

    def ensure_collection(self, alias: str, profile: ModelProfile) -> Collection:
        """The collection behind `alias`, made with its payload indexes, and last its alias, if there is none.

        A collection that bears the plain name is taken as it is, if it was made for this model.

        Raises:
            CollectionMismatch: it was made for another model, dimension or distance.
            StoreUnavailable: Qdrant does not answer.
        """
        found = self.find_collection(alias, profile)
        if found is not None:
            return found
        expected = physical_name(alias, profile)
        self.create_collection(expected, profile)
        try:
            self._call(
                lambda: self._client.update_collection_aliases(
                    [
                        models.CreateAliasOperation(
                            create_alias=models.CreateAlias(collection_name=expected, alias_name=alias)
                        )
                    ]
                )
            )
        except StoreRefused:
            if self.alias_target(alias) != expected:
                raise
        self._check_made_for(alias, expected, expected, profile)
        return Collection(alias, expected)

    def create_collection(self, name: str, profile: ModelProfile) -> None:
        """The physical collection `name` for this model, with its payload indexes; what is there already stays."""
        if not self.exists(name):
            try:
                self._call(
                    lambda: self._client.create_collection(
                        name,
                        vectors_config=models.VectorParams(
                            size=profile.dimension, distance=models.Distance(profile.distance)
                        ),
                        metadata={METADATA_KEY: self._mark()} if self._mark is not None else None,
                    )
                )
            except StoreRefused:
                # Another process made it between the question and the request.
                if not self.exists(name):
                    raise
        self.create_indexes(name)

    def create_indexes(self, name: str) -> None:
        """The payload indexes that the collection `name` lacks."""
        for key, schema in INDEXED_KEYS.items():
            self._call(
                lambda key=key, schema=schema: self._client.create_payload_index(  # type: ignore[misc]
                    name, key, field_schema=_SCHEMAS[schema], wait=True
                )
            )

    def drop_indexes(self, name: str, keys: Iterable[str]) -> None:
        """Remove the payload indexes of `keys`."""
        for key in keys:
            self._call(lambda key=key: self._client.delete_payload_index(name, key, wait=True))  # type: ignore[misc]

    def exists(self, name: str) -> bool:
        """There is a collection, or an alias, of that name."""
        return self._call(lambda: self._client.collection_exists(name))

    def made_for(self, alias: str, target: str) -> MadeFor:
        """What the collection behind `alias` was made for. Raises CollectionMismatch if nobody could write to it."""
        info = self._call(lambda: self._client.get_collection(target))
        vectors = info.config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise CollectionNotOurs(_named_vectors(target))
        return MadeFor(alias, target, vectors.size, vectors.distance.value, frozenset(info.payload_schema))

    def aliases(self) -> dict[str, str]:
        """Every alias with the physical collection that it leads to."""
        found = self._call(lambda: self._client.get_aliases()).aliases
        return {entry.alias_name: entry.collection_name for entry in found}

    def move_aliases(self, targets: Mapping[str, str]) -> None:
        """Have each alias lead to its collection: all in one call, so that no reader sees some of them moved."""
        there = self.aliases()
        operations: list[models.AliasOperations] = []
        for alias, collection in targets.items():
            if alias in there:
                operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            operations.append(
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
                )
            )
        self._call(lambda: self._client.update_collection_aliases(operations))

    def drop_collection(self, name: str) -> None:
        """Delete the physical collection `name`, if it is there, and with it all that leads to it."""
        self._call(lambda: self._client.delete_collection(name))

    def payloads_of_slots(
        self, collection: str, slots: tuple[int, int], keys: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and payload (of `keys`) of each point whose entity's slot is in `slots` (half-open)."""
        for page in self._scroll(collection, _slots(slots), keys, with_vectors=False):
            yield from ((point.id, dict(point.payload)) for point in page)

    def find_collection(self, alias: str, profile: ModelProfile) -> Collection | None:
        """The collection behind `alias`, if it is there and was made for this model; None if it is not there.

        Raises:
            CollectionMismatch: it was made for another model, dimension or distance.
        """
        target = self.alias_target(alias)
        if target is None:
            if not self._call(lambda: self._client.collection_exists(alias)):
                return None
            # The name may be an alias that was made since.
            target = self.alias_target(alias) or alias
        self._check_made_for(alias, target, physical_name(alias, profile), profile)
        return Collection(alias, target)

    def alias_target(self, alias: str) -> str | None:
        """The physical collection that `alias` leads to; None if there is no such alias."""
        return self.aliases().get(alias)

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
            # Half as many digits to write and to parse; a score, rounded to 4 decimals, cannot tell.
            vectors = np.stack([point.vector for point in part]).astype(np.float64).round(_DECIMALS).tolist()
            records = [
                {"id": str(point.id), "vector": vector, "payload": point.payload}
                for point, vector in zip(part, vectors, strict=True)
            ]
            for body in _bodies("points", records):
                self._applied(lambda body=body: self._upsert(collection, body))  # type: ignore[misc]
        for entries in _slices(list((payloads or {}).items())):
            operations = [
                {"overwrite_payload": {"payload": payload, "points": [str(identifier)]}}
                for identifier, payload in entries
            ]
            for body in _bodies("operations", operations):
                self._applied(lambda body=body: self._update(collection, body))  # type: ignore[misc]
        for identifiers in _slices(delete):
            selector = models.PointIdsList(points=[str(identifier) for identifier in identifiers])
            self._applied(lambda selector=selector: self._client.delete(collection, selector, wait=True))  # type: ignore[misc]

    def search(self, collection: str, vector: NDArray[np.float32], *, entity_type: str, limit: int) -> list[Hit]:
        """The `limit` entities of `entity_type` nearest to `vector`, each by its best point (its own or a chunk's)."""
        found = self._call(
            lambda: self._client.query_points_groups(
                collection,
                group_by=Key.ENTITY_ID,
                query=vector.tolist(),
                query_filter=models.Filter(
                    must=[models.FieldCondition(key=Key.ENTITY_TYPE, match=models.MatchValue(value=entity_type))]
                ),
                limit=limit,
                group_size=1,
                with_payload=True,
            )
        )
        return [Hit(hit.score, hit.payload or {}) for group in found.groups for hit in group.hits]

    def nearest(
        self, collection: str, asking: Sequence[Asking], *, limit: int, floor: float, exact: bool
    ) -> list[list[tuple[str, float]]]:
        """For each of `asking` the entity points of `collection` nearest to it, best first, with cosines.

        One request, at most `limit` each; a point is not its own neighbour. `floor`: cosine; lower ones are left out.

        Raises:
            PointsMissing: one of `asking` is not in its collection; `existing` tells which.
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
            for one in asking
        ]
        try:
            # Without the client's models, which cost three times what the request itself does: one for each hit.
            answer: dict[str, Any] = self._call(
                lambda: self._client.http.client.request(
                    type_=dict[str, Any],
                    method="POST",
                    url="/collections/{collection_name}/points/query/batch",
                    path_params={"collection_name": collection},
                    params={"timeout": str(int(self._timeout_s))},
                    headers={"Content-Type": "application/json"},
                    content=to_json({"searches": searches}),
                )
            )
        except StoreRefused as error:
            if _is_not_found(error):
                raise PointsMissing(str(error)) from error
            raise
        try:
            return [[(str(hit["id"]), hit["score"]) for hit in found["points"]] for found in answer["result"]]
        except (KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"Qdrant at {without_password(self._url)} answered a search with something else than points: "
                "check that QDRANT_URL leads to Qdrant itself"
            ) from error

    def payloads_of(
        self, collection: str, points: Sequence[str], keys: Sequence[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and payload (of `keys`) of those of `points` that `collection` holds."""
        for part in _slices(points):
            records = self._call(
                lambda part=part: self._client.retrieve(  # type: ignore[misc]
                    collection, list(part), with_payload=list(keys), with_vectors=False
                )
            )
            yield from ((str(record.id), record.payload or {}) for record in records)

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

    def scroll_slots(
        self, collection: str, slots: tuple[int, int], *, keys: Sequence[str] | None = None
    ) -> Iterator[list[HeldPoint]]:
        """Every point whose payload has a slot in `slots` (half-open), in pages, with its vector.

        `keys`: the payload keys that are wanted; all by default.
        """
        return self._scroll(collection, _slots(slots), keys, with_vectors=True)

    def naming(self, collection: str, entity_type: str, ids: Sequence[str]) -> Iterator[HeldPoint]:
        """The points whose payload names one of the entities, with the keys that name it alone."""
        named = models.Filter(
            must=[
                models.FieldCondition(key=Key.ENTITY_TYPE, match=models.MatchValue(value=entity_type)),
                models.FieldCondition(key=Key.ENTITY_ID, match=models.MatchAny(any=list(ids))),
            ]
        )
        for page in self._scroll(collection, named, [Key.ENTITY_ID], with_vectors=False):
            yield from page

    def scroll_without_slot(self, collection: str, *, keys: Sequence[str]) -> Iterator[list[HeldPoint]]:
        """Every point whose payload has no slot (0..65535), in pages, without vectors: none of them is ours."""
        return self._scroll(collection, models.Filter(must_not=[_SLOT]), keys, with_vectors=False)

    def payload_pages(self, collection: str, *, limit: int) -> Iterator[list[HeldPoint]]:
        """Every point with its whole payload, in pages of `limit`, without vectors."""
        return self._scroll(collection, None, None, with_vectors=False, limit=limit)

    def points(self, collection: str, ids: Sequence[str], *, vectors: bool = True) -> list[HeldPoint]:
        """Those of `ids` that `collection` holds, with their payloads."""
        found: list[HeldPoint] = []
        for part in _slices(ids):
            records = self._call(
                lambda part=part: self._client.retrieve(  # type: ignore[misc]
                    collection, list(map(_identifier, part)), with_payload=True, with_vectors=vectors
                )
            )
            found += map(_held, records)
        return found

    def delete(self, collection: str, ids: Sequence[str], *, naming: Sequence[str] | None = None) -> None:
        """Remove points by their ids, which may be those of another hand; returns when it is applied.

        `naming`: only those whose payload names one of these entity ids at that moment.
        """
        for part in _slices(ids):
            must: list[models.Condition] = [models.HasIdCondition(has_id=list(map(_identifier, part)))]
            if naming is not None:
                must.append(models.FieldCondition(key=Key.ENTITY_ID, match=models.MatchAny(any=list(naming))))
            selector = models.FilterSelector(filter=models.Filter(must=must))
            self._applied(lambda selector=selector: self._client.delete(collection, selector, wait=True))  # type: ignore[misc]

    def count(self, collection: str, slots: tuple[int, int] | None = None) -> int:
        """The exact number of points; of those with a slot in `slots` (half-open), if that is given."""
        count_filter = None if slots is None else _slots(slots)
        return self._call(lambda: self._client.count(collection, count_filter=count_filter, exact=True)).count

    def count_ours(self, collection: str) -> int:
        """The exact number of points that bear this platform's keys. `collection` is prepared."""
        ours = models.FieldCondition(key=Key.KIND, match=models.MatchAny(any=["entity", "chunk"]))
        return self._call(
            lambda: self._client.count(collection, count_filter=models.Filter(must=[ours]), exact=True)
        ).count

    def copy_collection(self, source: str, copy: str, on_progress: Callable[[int], None]) -> None:
        """Add all points of `source` to `copy`, which is made for the same vectors if it is not there.

        `on_progress` gets the number of points copied so far.

        Raises:
            StoreRefused: `copy` is there and takes other vectors; what has been copied by then stays.
        """
        if not self.exists(copy):
            params = self._call(lambda: self._client.get_collection(source)).config.params
            self._call(
                lambda: self._client.create_collection(
                    copy,
                    vectors_config=params.vectors,
                    sparse_vectors_config=params.sparse_vectors,
                    metadata={METADATA_KEY: self._mark()} if self._mark is not None else None,
                )
            )
        done, offset = 0, None
        while True:
            records, offset = self._call(
                lambda offset=offset: self._client.scroll(  # type: ignore[misc]
                    source, limit=_POINTS_A_COPY, offset=offset, with_payload=True, with_vectors=True
                )
            )
            points = [
                models.PointStruct(id=record.id, vector=record.vector or {}, payload=record.payload)  # type: ignore[arg-type]
                for record in records
            ]
            if points:
                self._applied(lambda points=points: self._client.upsert(copy, points, wait=True))  # type: ignore[misc]
            done += len(points)
            on_progress(done)
            if offset is None:
                return

    def shape(self, collection: str) -> tuple[int, str]:
        """Dimension and distance of the unnamed vector of `collection`."""
        vectors = self._call(lambda: self._client.get_collection(collection)).config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise CollectionNotOurs(_named_vectors(collection))
        return vectors.size, vectors.distance.value

    def collections(self) -> list[str]:
        """The names of all physical collections; the cheapest question that shows that Qdrant answers."""
        return [entry.name for entry in self._call(lambda: self._client.get_collections()).collections]

    def close(self) -> None:
        with self._lock:
            if self._made is not None:
                self._made.close()
                self._made = None

    def _check_made_for(self, alias: str, target: str, expected: str, profile: ModelProfile) -> None:
        vectors = self._call(lambda: self._client.get_collection(target)).config.params.vectors
        if not isinstance(vectors, models.VectorParams):
            raise CollectionNotOurs(_named_vectors(target))
        made_for = None if target == expected else self.model_in(target)
        if vectors.size != profile.dimension or (made_for or profile.name) != profile.name:
            raise CollectionMismatch(
                f"the collection {target} (alias {alias}) was made for {made_for or 'another model'} with "
                f"{vectors.size} dimensions, the settings ask for {profile.name} with {profile.dimension}; nothing was "
                f"written to it. Set EMBEDDING_MODEL (and EMBEDDING_PROVIDER) back; or, if no other program uses the "
                f"collection {target}, delete it by hand and run a full sync, which embeds everything again"
            )
        if vectors.distance.value != profile.distance:
            raise CollectionMismatch(
                f"the collection {target} measures {vectors.distance.value}, the model {profile.name} needs "
                f"{profile.distance}; nothing was written to it. If no other program uses it, delete it by hand and "
                "run a full sync"
            )

    def model_in(self, collection: str) -> str | None:
        """The model that the points of `collection` bear; None if no point bears one."""
        points, _ = self._call(
            lambda: self._client.scroll(
                collection,
                scroll_filter=models.Filter(
                    must=[models.FieldCondition(key=Key.KIND, match=models.MatchValue(value="entity"))]
                ),
                limit=1,
                with_payload=[Key.MODEL],
            )
        )
        return next(
            (str(point.payload[Key.MODEL]) for point in points if point.payload and Key.MODEL in point.payload), None
        )

    def _scroll(
        self,
        collection: str,
        scroll_filter: models.Filter | None,
        keys: Sequence[str] | None,
        *,
        with_vectors: bool,
        limit: int = _POINTS_A_PAGE,
    ) -> Iterator[list[HeldPoint]]:
        offset: Any = None
        while True:
            records, offset = self._call(
                lambda offset=offset: self._client.scroll(  # type: ignore[misc]
                    collection,
                    scroll_filter=scroll_filter,
                    limit=limit,
                    offset=offset,
                    with_payload=True if keys is None else list(keys),
                    with_vectors=with_vectors,
                )
            )
            yield [_held(record) for record in records]
            if offset is None:
                return

    def _upsert(self, collection: str, body: bytes) -> models.UpdateResult:
        """`body`: a PointsList as JSON."""
        answer = self._client.http.points_api.upsert_points(
            collection,
            wait=True,
            point_insert_operations=body,  # type: ignore[arg-type]
        )
        assert answer.result is not None  # noqa: S101  (an answer without one is an error)
        return answer.result

    def _update(self, collection: str, body: bytes) -> Iterable[models.UpdateResult]:
        """`body`: UpdateOperations as JSON, which write payloads."""
        try:
            answer = self._client.http.points_api.batch_update(
                collection,
                wait=True,
                update_operations=body,  # type: ignore[arg-type]
            )
        except UnexpectedResponse as error:
            if error.status_code == 404:
                raise PointsMissing(f"Qdrant refused (404): {_reason(error)}") from error
            raise
        assert answer.result is not None  # noqa: S101  (an answer without one is an error)
        return answer.result

    def _applied(self, call: Callable[[], models.UpdateResult | Iterable[models.UpdateResult]]) -> None:
        answer = self._call(call)
        results = [answer] if isinstance(answer, models.UpdateResult) else list(answer)
        for result in results:
            if result.status != models.UpdateStatus.COMPLETED:
                raise StoreUnavailable(
                    f"Qdrant took a write but has not applied it within {self._timeout_s:.0f} s "
                    f"(status {result.status.value}): it is repeated; if this goes on, look at Qdrant's load"
                )

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except UnexpectedResponse as error:
            reason = _reason(error)
            if error.status_code is not None and 400 <= error.status_code < 500 and error.status_code not in (408, 429):
                raise StoreRefused(f"Qdrant refused ({error.status_code}): {reason}") from error
            raise StoreUnavailable(f"Qdrant failed ({error.status_code}): {reason}") from error
        except (ResponseHandlingException, ApiException) as error:
            if isinstance(error, ResponseHandlingException) and isinstance(error.source, StoreUnavailable):
                raise error.source from error
            raise StoreUnavailable(
                f"Qdrant does not answer at {without_password(self._url)} ({error}): check QDRANT_URL and that it runs"
            ) from error


_SLOT = models.FieldCondition(key=Key.SLOT, range=models.Range(gte=0, lt=SLOTS))


def _slots(slots: tuple[int, int]) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key=Key.SLOT, range=models.Range(gte=slots[0], lt=slots[1]))])


def _identifier(text: str) -> int | str:
    """An id as Qdrant takes it: a number or a UUID."""
    return int(text) if text.isdecimal() else text


def _held(record: models.Record) -> HeldPoint:
    vector = record.vector if isinstance(record.vector, list) else []
    return HeldPoint(str(record.id), record.payload or {}, np.array(vector, dtype=np.float32))


def _named_vectors(collection: str) -> str:
    return (
        f"the collection {collection} has named vectors; mcp_assets writes to collections with one unnamed vector: "
        "give the entity type another collection in MCP_ASSETS_TYPES"
    )


def _is_not_found(error: StoreRefused) -> bool:
    return isinstance(error.__cause__, UnexpectedResponse) and error.__cause__.status_code == 404


def _reason(error: UnexpectedResponse) -> str:
    """Qdrant's own sentence from an error answer."""
    try:
        return str(json.loads(error.content)["status"]["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return error.reason_phrase


def _bodies(key: str, records: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """`{key: records}` as JSON, in as many parts as keep below BYTES_A_REQUEST: one at least for each record."""
    # Written once, and sent by the generated call: the ones above it look at every number again.
    body = to_json({key: records}, inf_nan_mode="null")
    if len(body) <= BYTES_A_REQUEST or len(records) == 1:
        yield body
        return
    half = len(records) // 2
    yield from _bodies(key, records[:half])
    yield from _bodies(key, records[half:])


def _slices(items: Sequence[T]) -> Iterable[Sequence[T]]:
    return (items[start : start + _POINTS_A_REQUEST] for start in range(0, len(items), _POINTS_A_REQUEST))
