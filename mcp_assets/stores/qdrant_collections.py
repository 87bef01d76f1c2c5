"""Qdrant collections: physical collections, the aliases that lead to them, payload indexes, copies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mcp_assets.entities.points import INDEXED_KEYS
from mcp_assets.stores.errors import CollectionNotOurs, StoreRefused
from mcp_assets.stores.qdrant_conditions import payload_path
from mcp_assets.stores.qdrant_connection import WAIT, QdrantConnection, collection_path
from mcp_assets.stores.qdrant_identity import METADATA_KEY

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
        return [entry["name"] for entry in self._request("GET", "/collections")["collections"]]

    def exists(self, name: str) -> bool:
        """There is a collection, or an alias, of that name."""
        return bool(self._request("GET", collection_path(name, "/exists"))["exists"])

    def create_collection(self, name: str, *, dimension: int, distance: str) -> None:
        """Make the physical collection `name`, of one unnamed vector, with its payload indexes, unless it is there.

        `distance`: as Qdrant spells it, such as `Cosine`.
        """
        if not self.exists(name):
            try:
                self._create(name, {"vectors": {"size": dimension, "distance": distance}})
            except StoreRefused:
                # Another process made it between the question and the request.
                if not self.exists(name):
                    raise
        self.create_indexes(name)

    def _create(self, name: str, config: Mapping[str, Any]) -> None:
        marked = {"metadata": {METADATA_KEY: self._mark()}} if self._mark is not None else {}
        self._request("PUT", collection_path(name), {**config, **marked})

    def drop_collection(self, name: str) -> None:
        """Delete the physical collection `name`, if it is there, and with it all that leads to it."""
        self._request("DELETE", collection_path(name))

    def made_for(self, alias: str, target: str) -> MadeFor:
        """The vectors and indexes of the collection `target`, which `alias` leads to.

        Raises:
            CollectionNotOurs: it has named vectors, so that this platform cannot write to it.
        """
        info = self._request("GET", collection_path(target))
        vectors = info["config"]["params"].get("vectors") or {}
        # Named vectors are a mapping of names, which may be any.
        if not isinstance(vectors.get("size"), int):
            raise CollectionNotOurs(_named_vectors(target))
        kinds = {key: index["data_type"] for key, index in info["payload_schema"].items()}
        return MadeFor(alias, target, vectors["size"], vectors["distance"], kinds)

    def create_indexes(self, name: str, kinds: Mapping[str, str] = INDEXED_KEYS) -> None:
        """The payload indexes that the collection `name` lacks; `kinds`: by key, such as `keyword`."""
        for key, kind in kinds.items():
            index = {"field_name": payload_path(key), "field_schema": kind}
            self._request("PUT", collection_path(name, "/index"), index, WAIT)

    def drop_indexes(self, name: str, keys: Iterable[str]) -> None:
        """Remove the payload indexes of `keys`."""
        for key in keys:
            path = f"/index/{quote(payload_path(key), safe='')}"
            self._request("DELETE", collection_path(name, path), WAIT)

    def aliases(self) -> dict[str, str]:
        """Every alias with the physical collection that it leads to."""
        found = self._request("GET", "/aliases")["aliases"]
        return {entry["alias_name"]: entry["collection_name"] for entry in found}

    def alias_target(self, alias: str) -> str | None:
        """The physical collection that `alias` leads to; None if there is no such alias."""
        return self.aliases().get(alias)

    def create_alias(self, alias: str, collection: str) -> None:
        """Make `alias` lead to `collection`. If another process has just done the same, that is no error."""
        try:
            self._change_aliases([_leading(alias, collection)])
        except StoreRefused:
            if self.alias_target(alias) != collection:
                raise

    def move_aliases(self, targets: Mapping[str, str]) -> None:
        """Make each alias lead to its collection, all in one call, so that no reader sees only some of them moved."""
        there = self.aliases()
        actions: list[dict[str, Any]] = []
        for alias, collection in targets.items():
            if alias in there:
                actions.append({"delete_alias": {"alias_name": alias}})
            actions.append(_leading(alias, collection))
        self._change_aliases(actions)

    def _change_aliases(self, actions: Sequence[Mapping[str, Any]]) -> None:
        self._request("POST", "/collections/aliases", {"actions": actions})

    def copy_collection(self, source: str, copy: str, on_progress: Callable[[int], None]) -> None:
        """Add all points of `source` to `copy`, which is made for the same vectors if it is not there.

        `on_progress` gets the number of points copied so far.

        Raises:
            StoreRefused: `copy` is there and takes other vectors; what has been copied by then stays.
        """
        if not self.exists(copy):
            params = self._request("GET", collection_path(source))["config"]["params"]
            self._create(copy, {key: params[key] for key in ("vectors", "sparse_vectors") if params.get(key)})
        done, offset = 0, None
        while True:
            asked = {"limit": _POINTS_A_COPY, "offset": offset, "with_payload": True, "with_vector": True}
            page = self._request("POST", collection_path(source, "/points/scroll"), asked)
            points = [
                {"id": record["id"], "vector": record.get("vector") or {}, "payload": record.get("payload")}
                for record in page["points"]
            ]
            if points:
                self._applied(self._request("PUT", collection_path(copy, "/points"), {"points": points}, WAIT))
            done += len(points)
            on_progress(done)
            offset = page.get("next_page_offset")
            if offset is None:
                return


def _leading(alias: str, collection: str) -> dict[str, Any]:
    """The action that makes `alias` lead to `collection`."""
    return {"create_alias": {"collection_name": collection, "alias_name": alias}}


def _named_vectors(collection: str) -> str:
    return (
        f"the collection {collection} has named vectors; mcp_assets writes to collections with one unnamed vector: "
        "give the entity type another collection in the mapping (docs/how-to/own-tables.md)"
    )
