"""By meaning: ranks entities by the cosine of the question and their nearest point, in Qdrant."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_assets.embedding.protocol import Embedder, Vector
from mcp_assets.entities.conditions import Condition, as_json
from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.qdrant_connection import is_not_found
from mcp_assets.stores.qdrant_search import Hit
from mcp_assets.sync.collections.serving import WriteTarget, searchable_collections

_NEAREST_COMPARED = 1_000
"""Where Qdrant does not filter, so many of the nearest entities of a type are read, and PostgreSQL filters them."""


@dataclass(frozen=True, slots=True)
class Near:
    """An entity near to the question. `chunk`: start and end, in the text, of the chunk whose point is the nearest."""

    ref: EntityRef
    cosine: float
    chunk: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class MeaningRanking:
    """`entities`, nearest first. `missing`: why entities may be missing that are further away; None: none is."""

    entities: list[Near]
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class MeaningSearch:
    """What is looked for: entities of `types` whose metadata meet the conditions.

    `needed`: so many are found, if there are so many; `limit`: what is found beyond them is cut there.
    """

    query: str
    types: Sequence[str]
    conditions: Sequence[Condition]
    needed: int
    limit: int


def rank_by_meaning(platform: Platform, asked: MeaningSearch) -> MeaningRanking:
    """The entities whose points are nearest to the question, over all collections.

    Raises:
        TextRefused: the query cannot be embedded.
        CollectionMismatch: a collection was made for a model that is not configured.
        StoreUnavailable, StoreRefused, EmbedderUnavailable.
    """
    served = platform.companion(_Served)
    try:
        return _ranked(platform, served.read(), asked)
    except StoreRefused as error:
        if not is_not_found(error):
            raise
        # A collection was replaced and deleted between the two requests.
        return _ranked(platform, served.read(), asked)


class _Served:
    """The collections in service, by alias. They are the same as long as the aliases are, which takes one request."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._last: tuple[Mapping[str, str], Mapping[str, tuple[WriteTarget, Embedder]]] | None = None

    def close(self) -> None:
        """Nothing is open."""

    def read(self) -> Mapping[str, tuple[WriteTarget, Embedder]]:
        aliases = self._platform.qdrant.aliases()
        last = self._last
        if last is not None and last[0] == aliases:
            return last[1]
        found = searchable_collections(self._platform)
        # One that bears the name itself, and is made later, changes no alias.
        complete = found.keys() >= set(self._platform.settings.entity_types.collections())
        self._last = (aliases, found) if complete else None
        return found


def _ranked(
    platform: Platform, served: Mapping[str, tuple[WriteTarget, Embedder]], asked: MeaningSearch
) -> MeaningRanking:
    registry = platform.settings.entity_types
    # While a change of model is under way, the collections in service are still those of the old model.
    embedders = [embedder for _, embedder in served.values()] or [platform.embedder]
    vectors = {key: one.embed_query(asked.query) for key, one in {id(one): one for one in embedders}.items()}
    near: list[Near] = []
    missing = None
    # One search a type: entities of two types in a shared collection may have the same id.
    for name in asked.types:
        if (found := served.get(registry[name].collection_name)) is not None:
            target, embedder = found
            ranking = _near(platform, target.collection.name, vectors[id(embedder)], name, asked)
            near += ranking.entities
            missing = missing or ranking.missing
    return MeaningRanking(sorted(near, key=lambda one: (-one.cosine, one.ref.type, one.ref.id))[: asked.limit], missing)


def _near(
    platform: Platform, collection: str, vector: Vector, entity_type: str, asked: MeaningSearch
) -> MeaningRanking:
    search, conditions = platform.qdrant.search, asked.conditions
    try:
        hits = search(collection, vector, entity_type=entity_type, limit=asked.needed, conditions=conditions)
        return MeaningRanking([_place(hit) for hit in hits])
    except StoreRefused as error:
        # In strict mode, Qdrant filters only by keys that it indexes, and by each only with values of the index's kind.
        if not conditions or is_not_found(error):
            raise
        refused = str(error)
    hits = search(collection, vector, entity_type=entity_type, limit=_NEAREST_COMPARED)
    meeting = _meeting(platform, entity_type, [_place(hit) for hit in hits], conditions)
    missing = None
    if len(hits) >= _NEAREST_COMPARED and len(meeting) < asked.needed:
        missing = (
            f"of the entities of type {entity_type}, only the {_NEAREST_COMPARED:,} nearest by meaning were compared "
            f"with the conditions, because Qdrant does not index what they ask for: name the keys in "
            f"MCP_ASSETS_FILTER_KEYS, each with the kind of its values ({refused})"
        )
    return MeaningRanking(meeting, missing)


def _place(hit: Hit) -> Near:
    payload = hit.payload
    chunk = (payload[Key.START], payload[Key.END]) if payload[Key.KIND] == "chunk" else None
    return Near(EntityRef(payload[Key.ENTITY_TYPE], payload[Key.ENTITY_ID]), hit.score, chunk)


def _meeting(platform: Platform, entity_type: str, near: Sequence[Near], conditions: Sequence[Condition]) -> list[Near]:
    """Those of the entities whose metadata in the ledger meet the conditions."""
    parameters = {
        "entity_type": entity_type,
        "ids": [one.ref.id for one in near],
        "conditions": json.dumps([as_json(condition) for condition in conditions]),
    }
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("meeting_conditions"), parameters).fetchall()
    meeting = {row[0] for row in rows}
    return [one for one in near if one.ref.id in meeting]
