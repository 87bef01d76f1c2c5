"""Qdrant collections: physical collections, the aliases that lead to them, payload indexes, copies."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_assets.entities.points import INDEXED_KEYS
from mcp_assets.stores.errors import CollectionNotOurs, StoreRefused
from mcp_assets.stores.qdrant_conditions import payload_path
from mcp_assets.stores.qdrant_connection import QdrantConnection
from mcp_assets.stores.qdrant_identity import METADATA_KEY
from mcp_assets.stores.qdrant_reads import path_of

_POINTS_A_COPY = 100
"""Points in one request of a copy. Points of another program may hold several vectors and long payloads each."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A physical collection that an alias leads to."""

    alias: str
    name: str


@dataclass(frozen=True, slots=True)
class MadeFor:
    """A physical collection, and the vectors and indexes that it was made for."""

    alias: str
    name: str
    dimension: int
    distance: str
    index_kinds: Mapping[str, str] = field(default_factory=dict)
    """The payload keys that it has indexes of, each with the kind of the index, such as `keyword`."""

    @property
    def indexes(self) -> frozenset[str]:
        """The payload keys that it has indexes of."""
        return frozenset(self.index_kinds)

    @property
    def is_prepared(self) -> bool:
        """The platform's own keys are indexed, and the points of this platform bear the present payload keys."""
        return self.indexes >= INDEXED_KEYS.keys()


class QdrantCollections(QdrantConnection):
    """Requests about collections and aliases."""

    def collections(self) -> list[str]:
        """The names of all physical collections; the cheapest question that shows that Qdrant answers."""
        return self._reads.get("/collections", lambda found: [str(entry["name"]) for entry in found["collections"]])

    def exists(self, name: str) -> bool:
        """There is a collection, or an alias, of that name."""
        return self._reads.get(f"{path_of(name)}/exists", lambda found: bool(found["exists"]))

    def create_collection(self, name: str, *, dimension: int, distance: str) -> None:
        """Make the physical collection `name`, of one unnamed vector, with its payload indexes, unless it is there.

        `distance`: as Qdrant spells it, such as `Cosine`.
        """
        from qdrant_client import models

        if not self.exists(name):
            try:
                self._call(
                    lambda: self._client.create_collection(
                        name,
                        vectors_config=models.VectorParams(size=dimension, distance=models.Distance(distance)),
                        metadata={METADATA_KEY: self._mark()} if self._mark is not None else None,
                    )
                )
            except StoreRefused:
                # Another process made it between the question and the request.
                if not self.exists(name):
                    raise
        self.create_indexes(name)

    def is_optimized_now(self, name: str) -> bool:
        """Qdrant rebuilds segments of the collection `name` at this time: its status is yellow.

        Grey, which means that it would but waits for the next write, does not count: waiting would not end it.
        """
        return self._reads.get(path_of(name), lambda found: bool(found["status"] == "yellow"))

    def drop_collection(self, name: str) -> None:
        """Delete the physical collection `name`, if it is there, and with it all that leads to it."""
        self._call(lambda: self._client.delete_collection(name))

    def made_for(self, alias: str, target: str) -> MadeFor:
        """The vectors and indexes of the collection `target`, which `alias` leads to.

        Raises:
            CollectionNotOurs: it has named vectors, so that this platform cannot write to it.
        """
        made = self._reads.get(path_of(target), lambda found: _made_for(alias, target, found))
        if made is None:
            raise CollectionNotOurs(_named_vectors(target))
        return made

    def create_indexes(self, name: str, kinds: Mapping[str, str] = INDEXED_KEYS) -> None:
        """The payload indexes that the collection `name` lacks; `kinds`: by key, such as `keyword`."""
        for key, kind in kinds.items():
            self._create_index(name, payload_path(key), kind)

    def _create_index(self, name: str, path: str, kind: str) -> None:
        from qdrant_client import models

        schema = models.PayloadSchemaType(kind)
        self._call(lambda: self._client.create_payload_index(name, path, field_schema=schema, wait=True))

    def drop_indexes(self, name: str, keys: Iterable[str]) -> None:
        """Remove the payload indexes of `keys`."""
        for key in keys:
            self._call(lambda key=key: self._client.delete_payload_index(name, payload_path(key), wait=True))  # type: ignore[misc]

    def aliases(self) -> dict[str, str]:
        """Every alias with the physical collection that it leads to."""
        return self._reads.get(
            "/aliases",
            lambda found: {str(entry["alias_name"]): str(entry["collection_name"]) for entry in found["aliases"]},
        )

    def alias_target(self, alias: str) -> str | None:
        """The physical collection that `alias` leads to; None if there is no such alias."""
        return self.aliases().get(alias)

    def create_alias(self, alias: str, collection: str) -> None:
        """Make `alias` lead to `collection`. If another process has just done the same, that is no error."""
        from qdrant_client import models

        operation = models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
        try:
            self._call(lambda: self._client.update_collection_aliases([operation]))
        except StoreRefused:
            if self.alias_target(alias) != collection:
                raise

    def move_aliases(self, targets: Mapping[str, str]) -> None:
        """Make each alias lead to its collection, all in one call, so that no reader sees only some of them moved."""
        from qdrant_client import models

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

    def copy_collection(self, source: str, copy: str, on_progress: Callable[[int], None]) -> None:
        """Add all points of `source` to `copy`, which is made for the same vectors if it is not there.

        `on_progress` gets the number of points copied so far.

        Raises:
            StoreRefused: `copy` is there and takes other vectors; what has been copied by then stays.
        """
        from qdrant_client import models

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


def _made_for(alias: str, target: str, found: Mapping[str, Any]) -> MadeFor | None:
    """From Qdrant's description of a collection; None if it has named vectors."""
    vectors = found["config"]["params"].get("vectors") or {}
    dimension, distance = vectors.get("size"), vectors.get("distance")
    # A named vector may be called `size`; its value is a description, too.
    if not isinstance(dimension, int) or not isinstance(distance, str):
        return None
    kinds = {str(key): str(index["data_type"]) for key, index in found["payload_schema"].items()}
    return MadeFor(alias, target, dimension, distance, kinds)


def _named_vectors(collection: str) -> str:
    return (
        f"the collection {collection} has named vectors; mcp_assets writes to collections with one unnamed vector: "
        "give the entity type another collection in the mapping (docs/how-to/own-tables.md)"
    )
