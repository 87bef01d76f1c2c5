"""Search: the entities nearest to a question, over all collections, best first."""

from collections.abc import Sequence
from dataclasses import dataclass

from mcp_assets.entities.points import Key
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import build_text
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres.rows import by_ref
from mcp_assets.stores.qdrant_search import Hit
from mcp_assets.sync.collections.serving import searchable_collections


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One entity that a search found."""

    ref: EntityRef
    score: float
    """Cosine of the question and the entity's best point."""
    title: str | None
    excerpt: str
    chunk: tuple[int, int] | None
    """Start and end of the best point's chunk in the text; None: the best point is that of the entity."""


_EXCERPT = 200
"""Characters of the text that a result shows: two lines of a terminal."""


def search(platform: Platform, query: str, *, types: Sequence[str] = (), limit: int = 10) -> list[SearchResult]:
    """The `limit` entities of `types` (all by default) whose points are nearest to `query`, over all collections.

    Raises:
        TextRefused: the query cannot be embedded.
        CollectionMismatch: a collection was made for a model that is not configured.
        StoreUnavailable, EmbedderUnavailable.
    """
    registry = platform.settings.entity_types
    wanted = list(types) or list(registry)
    served = searchable_collections(platform)
    # While a change of model is under way, the collections in service are still those of the old model.
    embedders = [embedder for _, embedder in served.values()] or [platform.embedder]
    vectors = {key: one.embed_query(query) for key, one in {id(one): one for one in embedders}.items()}
    hits: list[Hit] = []
    # One search a type: entities of two types in a shared collection may have the same id.
    for name in wanted:
        if (found := served.get(registry[name].collection_name)) is not None:
            target, embedder = found
            collection = target.collection.name
            found_here = platform.qdrant.search(collection, vectors[id(embedder)], entity_type=name, limit=limit)
            # Points of other programs may name an entity, too; only ours have the key.
            hits += (hit for hit in found_here if Key.KIND in hit.payload)
    best = sorted(hits, key=lambda hit: (-hit.score, hit.payload[Key.ENTITY_TYPE], hit.payload[Key.ENTITY_ID]))[:limit]
    texts = _texts(platform, [EntityRef(hit.payload[Key.ENTITY_TYPE], hit.payload[Key.ENTITY_ID]) for hit in best])
    answers = []
    for hit in best:
        ref = EntityRef(hit.payload[Key.ENTITY_TYPE], hit.payload[Key.ENTITY_ID])
        title, built = texts.get(ref, (hit.payload.get("title"), ""))
        span = (hit.payload[Key.START], hit.payload[Key.END]) if hit.payload.get(Key.KIND) == "chunk" else None
        passage = built[span[0] : span[1]] if span else built.removeprefix(title or "")
        answers.append(SearchResult(ref, hit.score, title, " ".join(passage.split())[:_EXCERPT], span))
    return answers


@dataclass(frozen=True, slots=True)
class _StoredText:
    """Title and content of an entity, as the ledger has them."""

    title: str | None
    content: str


def _texts(platform: Platform, refs: Sequence[EntityRef]) -> dict[EntityRef, tuple[str | None, str]]:
    """Title and built text of each entity."""
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        texts = dict(platform.postgres.rows(connection, "read_texts", by_ref(_StoredText), names))
    return {ref: (text.title, build_text(text.title, text.content)) for ref, text in texts.items()}
