"""By meaning: ranks entities by the cosine of the question and their nearest point, in Qdrant."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mcp_assets.embedding.protocol import Vector
from mcp_assets.entities.conditions import Condition, as_json
from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.stores.qdrant_search import Hit
from mcp_assets.sync.collections.serving import searchable_collections

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


def rank_by_meaning(
    platform: Platform, query: str, *, types: Sequence[str], conditions: Sequence[Condition], limit: int
) -> MeaningRanking:
    """The `limit` entities whose points are nearest to the question, over all collections.

    Raises:
        TextRefused: the query cannot be embedded.
        CollectionMismatch: a collection was made for a model that is not configured.
        StoreUnavailable, StoreRefused, EmbedderUnavailable.
    """
    registry = platform.settings.entity_types
    served = searchable_collections(platform)
    # While a change of model is under way, the collections in service are still those of the old model.
    embedders = [embedder for _, embedder in served.values()] or [platform.embedder]
    vectors = {key: one.embed_query(query) for key, one in {id(one): one for one in embedders}.items()}
    near: list[Near] = []
    missing = None
    # One search a type: entities of two types in a shared collection may have the same id.
    for name in types:
        if (found := served.get(registry[name].collection_name)) is not None:
            target, embedder = found
            ranking = _near(platform, target.collection.name, vectors[id(embedder)], name, conditions, limit)
            near += ranking.entities
            missing = missing or ranking.missing
    return MeaningRanking(sorted(near, key=lambda one: (-one.cosine, one.ref.type, one.ref.id))[:limit], missing)


def _near(
    platform: Platform, collection: str, vector: Vector, entity_type: str, conditions: Sequence[Condition], limit: int
) -> MeaningRanking:
    try:
        return MeaningRanking(
            _places(
                platform.qdrant.search(collection, vector, entity_type=entity_type, limit=limit, conditions=conditions)
            )
        )
    except StoreRefused as error:
        # In strict mode, Qdrant filters only by keys that it indexes, and by each only with values of the index's kind.
        if not conditions:
            raise
        refused = str(error)
    nearest = _places(platform.qdrant.search(collection, vector, entity_type=entity_type, limit=_NEAREST_COMPARED))
    meeting = _meeting(platform, entity_type, nearest, conditions)
    missing = None
    if len(nearest) >= _NEAREST_COMPARED and len(meeting) < limit:
        missing = (
            f"of the entities of type {entity_type}, only the {_NEAREST_COMPARED:,} nearest by meaning were compared "
            f"with the conditions, because Qdrant does not index what they ask for: name the keys in "
            f"MCP_ASSETS_FILTER_KEYS, each with the kind of its values ({refused})"
        )
    return MeaningRanking(meeting[:limit], missing)


def _places(hits: Sequence[Hit]) -> list[Near]:
    # Points of other programs may name an entity, too; only ours have the key.
    return [_place(hit) for hit in hits if Key.KIND in hit.payload]


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
