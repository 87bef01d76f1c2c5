"""Tools: the functions that the MCP server offers, over one platform. Each is called in a thread of its own."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from pydantic_core import to_json

from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.entities.conditions import ConditionError, conditions_of
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import build_text
from mcp_assets.graph import EdgeType
from mcp_assets.mcp_server.answers import (
    MOST_CHARACTERS,
    MOST_EDGES,
    MOST_METADATA_CHARACTERS,
    MOST_RESULTS,
    MOST_TAGS,
    EdgeEvidence,
    EdgesFound,
    Fetched,
    Found,
    IndexedType,
    IndexStatus,
    Named,
    SearchFound,
    ShownEdge,
    WeighedTag,
    WordsPlace,
)
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.link.judging import VerdictRefused
from mcp_assets.sync.search.search import search
from mcp_assets.sync.views.entity import StoredEntity, read_entity
from mcp_assets.sync.views.evidence import evidence_of
from mcp_assets.sync.views.explanations import Explanation, explain
from mcp_assets.sync.views.freshness import FreshnessReader, read_freshness
from mcp_assets.sync.views.graph import Related, entities_named, related
from mcp_assets.sync.views.pending import pending

P = ParamSpec("P")
T = TypeVar("T")

EXPECTED = (
    StoreUnavailable,
    StoreRefused,
    CollectionMismatch,
    EmbedderUnavailable,
    TextRefused,
    ConditionError,
    VerdictRefused,
)

EntityName = Annotated[str, Field(description="Type and id, such as task:CHK-104, or an id that one type alone has.")]


def with_reasons(tool: Callable[P, T]) -> Callable[P, T]:
    """An error that the platform explains reaches the client as its sentence, and nothing else of it."""

    @wraps(tool)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return tool(*args, **kwargs)
        except EXPECTED as error:
            raise ToolError(str(error)) from error

    return wrapped


class Tools:
    """The tools over `platform`, which only reads."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def all(self) -> Sequence[Callable[..., Any]]:
        """The tools in the order in which clients list them."""
        tools = (self.search, self.fetch, self.related, self.explain_edge, self.index_status)
        return [with_reasons(tool) for tool in tools]

    def search(
        self,
        query: Annotated[str, Field(min_length=1, max_length=8_000, description='Words, an id, or "a phrase".')],
        types: Annotated[list[str], Field(description="Only these entity types; all if empty.")] = [],  # noqa: B006
        where: Annotated[
            list[str],
            Field(max_length=20, description="Conditions on metadata, such as status=open or due_date<2026-12-01."),
        ] = [],  # noqa: B006
        by: Annotated[Literal["both", "words", "meaning"], Field(description="What is compared.")] = "both",
        limit: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = 10,
        offset: Annotated[int, Field(ge=0, le=1_000, description="Results of earlier pages.")] = 0,
    ) -> SearchFound:
        """Find tasks, pages and memories by words, ids and meaning, best first."""
        answer = search(
            self._platform,
            query,
            types=[self.entity_type(name) for name in types],
            where=conditions_of(where),
            limit=limit,
            offset=offset,
            by=by,
        )
        results = [
            Found(
                entity=str(one.ref),
                title=one.title,
                score=round(one.score, 4),
                excerpt=one.passage.excerpt,
                place=(one.passage.place.start, one.passage.place.end),
            )
            for one in answer.results
        ]
        return SearchFound(results=results, missing=answer.missing, freshness=self.freshness())

    def fetch(
        self,
        entity: EntityName,
        offset: Annotated[int, Field(ge=0, description="Character of the text to begin at.")] = 0,
    ) -> Fetched:
        """Read one entity: its text, metadata and times."""
        ref = self.ref(entity)
        stored = self.stored(ref)
        text = build_text(stored.title, stored.content)
        metadata, left_out = _bounded(stored.metadata)
        end = offset + MOST_CHARACTERS
        return Fetched(
            entity=str(ref),
            title=stored.title,
            text=text[offset:end],
            offset=offset,
            next_offset=end if end < len(text) else None,
            metadata=metadata,
            left_out=left_out,
            changed_at=stored.changed_at,
            indexed_at=stored.embedded_at,
            freshness=self.freshness(),
        )

    def related(
        self,
        entity: EntityName,
        types: Annotated[list[EdgeType], Field(description="Only these types of relationships; all if empty.")] = [],  # noqa: B006
        depth: Annotated[int, Field(ge=1, le=3, description="How many steps away.")] = 1,
        limit: Annotated[int, Field(ge=1, le=MOST_EDGES)] = 50,
    ) -> EdgesFound:
        """List what an entity is related to, in both directions, and why, strongest first."""
        ref = self.ref(entity)
        edges, titles = related(self._platform, ref, types=[one.value for one in types], depth=depth)
        if not edges:
            self.stored(ref)
        return self._edges(edges, titles, limit)

    def explain_edge(self, entity: EntityName, other: EntityName) -> EdgesFound:
        """Say how two entities are related: each relationship between them, and the evidence that made it."""
        one, two = self.ref(entity), self.ref(other)
        edges, titles = related(self._platform, one)
        between = [edge for edge in edges if {edge.source, edge.target} == {one, two}]
        if not between:
            self.stored(one)
            self.stored(two)
        return self._edges(between, titles, MOST_EDGES)

    def index_status(self) -> IndexStatus:
        """Say how fresh and complete the index is, and what it waits for."""
        waiting = pending(self._platform)
        found = read_freshness(self._platform, waiting)
        return IndexStatus(
            freshness=str(found),
            behind_stream_s=found.behind_stream_s,
            sources_compared_s=found.sources_compared_s,
            stores_compared_s=found.stores_compared_s,
            drift=found.drift,
            types=[
                IndexedType(entity_type=name, living=living, waiting=dirty)
                for name, (living, dirty) in waiting.entities.items()
            ],
            unlinked=waiting.unlinked,
            dead_letters=waiting.dead_letters,
            unavailable=list(found.unavailable),
        )

    def stored(self, ref: EntityRef) -> StoredEntity:
        """The entity, for whose absence a client gets a sentence."""
        stored = read_entity(self._platform, ref)
        if stored is None:
            raise ToolError(f"there is no entity {ref} in the index: search for it by words of its title")
        return stored

    def _edges(self, edges: Sequence[Related], titles: Mapping[EntityRef, str | None], limit: int) -> EdgesFound:
        def named(ref: EntityRef) -> Named:
            return Named(entity=str(ref), title=titles.get(ref))

        explanations, _ = explain(self._platform, edges[:limit])
        shown = [
            ShownEdge(
                source=named(edge.source),
                target=named(edge.target),
                type=edge.edge_type,
                strength=edge.strength,
                depth=edge.depth,
                why=": ".join(part for part in evidence_of(edge.metadata) if part),
                evidence=_evidence(explanation),
            )
            for edge, explanation in zip(edges, explanations, strict=False)
        ]
        return EdgesFound(edges=shown, more=len(edges) - len(shown), freshness=self.freshness())

    def freshness(self) -> str:
        """How far the index may be behind the truth, for an answer."""
        return str(self._platform.companion(FreshnessReader).read())

    def entity_type(self, name: str) -> str:
        """The entity type of this name or alias, for whose absence a client gets a sentence."""
        found = self._platform.type_names.canonical(name)
        if found is None:
            known = ", ".join(self._platform.settings.entity_types)
            raise ToolError(f"no entity type {name!r}: one of {known}")
        return found

    def ref(self, written: str) -> EntityRef:
        """The living entity that a client names; it gets a sentence if there is none, or if there are several."""
        found = entities_named(self._platform, written)
        if len(found) == 1:
            return found[0]
        if found:
            raise ToolError(f"{written!r} is the id of several entities: give one of {', '.join(map(str, found))}")
        raise ToolError(f"there is no entity {written} in the index: search for it by words of its title")


def _evidence(found: Explanation) -> EdgeEvidence:
    place, given = found.place, found.verdict
    return EdgeEvidence(
        rule=found.rule,
        words=found.words,
        place=None if place is None else WordsPlace(entity=str(place.entity), part=place.part, span=place.span),
        tags=[WeighedTag(tag=one.tag, weight=one.weight) for one in found.tags[:MOST_TAGS]],
        cosine=found.cosine,
        relevance=found.relevance,
        kept=found.kept,
        verdict=None if given is None else f"{given.verdict.decision} by {given.by}, {given.at:%Y-%m-%d %H:%M}",
    )


def _bounded(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The metadata that fit into an answer, and the keys of the others; short values are preferred."""
    room = MOST_METADATA_CHARACTERS
    kept: dict[str, Any] = {}
    sizes = {key: len(key) + len(to_json(value)) for key, value in metadata.items()}
    for key in sorted(sizes, key=lambda one: (sizes[one], one)):
        if sizes[key] <= room:
            room -= sizes[key]
            kept[key] = metadata[key]
    return {key: kept[key] for key in metadata if key in kept}, [key for key in metadata if key not in kept]
