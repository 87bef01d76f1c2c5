"""Explanations: why edges exist: rule, words and their place, shared tags with weights, both scores, verdict.

Rule and words stand in an edge's metadata. The rest is computed when it is asked for, from what the stores hold now.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import KEPT, UNKNOWN_TAG, EdgeKey, EdgeType, TagWeight, relevance
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.relationships_shape import ORIGIN
from mcp_assets.stores.postgres.rows import by_ref
from mcp_assets.sync.link.link_state import LinkState, by_type_and_id, read_link_states
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.verdicts import GivenVerdict, given_verdicts
from mcp_assets.sync.views.evidence import evidence_of
from mcp_assets.sync.views.graph import Related

_METADATA, _TEXT = "metadata:", "text"


class SharedTag(NamedTuple):
    """A tag that both ends hold."""

    tag: str
    weight: float
    """0 < weight <= 1: the rarer, the heavier."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the words of a reference stand."""

    entity: EntityRef
    """The entity that wrote them: of a reverse metadata key, such as `blocks`, the target of the edge."""
    part: str
    """`text`, `slug`, or the metadata key."""
    span: tuple[int, int] | None
    """Characters [start, end) of the reference in title and content, as `mcp-assets` builds the text; None: it is in
    metadata, or no longer in the text."""

    def __str__(self) -> str:
        if self.span is not None:
            return f"characters {self.span[0]} to {self.span[1]} of {self.entity}"
        return f"{self.part} of {self.entity}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one edge exists."""

    rule: str
    words: str
    place: Place | None
    tags: Sequence[SharedTag]
    """All tags that both ends share, the heaviest first."""
    cosine: float | None
    """Of the vectors of both ends, now; None: one has no vector, or they cannot be read."""
    relevance: float | None
    """Weighted Jaccard of the tags of both ends, now; None: one is not linked."""
    kept: bool
    """The rules no longer make the edge: it stays because it was accepted."""
    verdict: GivenVerdict | None

    def as_dict(self) -> dict[str, Any]:
        place, given = self.place, self.verdict
        return {
            "rule": self.rule,
            "words": self.words,
            "place": None if place is None else {"entity": str(place.entity), "part": place.part, "span": place.span},
            "tags": [{"tag": one.tag, "weight": one.weight} for one in self.tags],
            "cosine": self.cosine,
            "relevance": self.relevance,
            "kept": self.kept,
            "verdict": None
            if given is None
            else {
                "decision": given.verdict.decision.value,
                "by": given.by,
                "at": given.at.isoformat(),
                "note": given.note,
            },
        }


class _Text(NamedTuple):
    title: str | None
    content: str


def explain(platform: Platform, edges: Sequence[Related]) -> tuple[list[Explanation], str | None]:
    """The explanation of each of `edges`, and why the cosines are missing, if they could not be read.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    if not edges:
        return [], None
    refs = {ref for edge in edges for ref in (edge.source, edge.target)}
    writers = {place.entity for edge in edges if (place := _place(platform, edge)) is not None and place.part == _TEXT}
    with platform.postgres.transaction() as connection:
        states = read_link_states(platform, connection, refs)
        weights = _weights(platform, connection, {tag for state in states.values() for tag in state.tags})
        texts = _texts(platform, connection, writers)
        given = {one.verdict.key: one for one in given_verdicts(platform, connection, refs)}
    cosines, missing = _cosines(platform, edges)
    return [
        _explanation(platform, edge, states, weights, texts, given, cosines.get((edge.source, edge.target)))
        for edge in edges
    ], missing


def weights_of_tags(platform: Platform) -> dict[str, float]:
    """The weight of every tag."""
    with platform.postgres.transaction() as connection:
        return {row[0]: row[2] for row in connection.execute(platform.postgres.query("read_all_tag_weights"))}


def _explanation(
    platform: Platform,
    edge: Related,
    states: Mapping[EntityRef, LinkState],
    weights: Mapping[str, TagWeight],
    texts: Mapping[EntityRef, _Text],
    given: Mapping[EdgeKey, GivenVerdict],
    cosine: float | None,
) -> Explanation:
    rule, words = evidence_of({key: value for key, value in edge.metadata.items() if key != KEPT})
    source, target = states.get(edge.source), states.get(edge.target)
    shared = source.tags & target.tags if source is not None and target is not None else frozenset()
    place = _place(platform, edge)
    if place is not None and target is not None and (text := texts.get(place.entity)) is not None:
        keys = target.keys(edge.target)
        span = platform.reference_rules.place_of(text.title, text.content, (rule, words), keys)
        place = Place(place.entity, place.part, None if span is None else (span.start, span.end))
    ours = edge.edge_type in {*EdgeType} and edge.origin == ORIGIN
    return Explanation(
        rule,
        words,
        place,
        sorted(
            (SharedTag(tag, weights.get(tag, UNKNOWN_TAG).weight) for tag in shared),
            key=lambda found: (-found.weight, found.tag),
        ),
        edge.strength if edge.edge_type == EdgeType.SEMANTIC_SIMILARITY and KEPT not in edge.metadata else cosine,
        relevance(source.tags, target.tags, weights) if source is not None and target is not None else None,
        KEPT in edge.metadata,
        given.get(EdgeKey(edge.source, edge.target, EdgeType(edge.edge_type))) if ours else None,
    )


def _place(platform: Platform, edge: Related) -> Place | None:
    """Which entity wrote the reference, and where; without the characters. None: no reference made the edge."""
    rule = edge.metadata.get("rule")
    if not isinstance(rule, str) or not edge.metadata.get("context"):
        return None
    if rule.startswith(_METADATA):
        key = rule.removeprefix(_METADATA)
        known = platform.reference_rules.metadata_keys.get(key)
        return Place(edge.target if known is not None and known.reverse else edge.source, key, None)
    part = _TEXT if rule.partition(":")[0] == _TEXT else rule
    return Place(edge.source, part, None)


def _cosines(
    platform: Platform, edges: Iterable[Related]
) -> tuple[dict[tuple[EntityRef, EntityRef], float], str | None]:
    """The cosines of the ends of edges, and why they are missing, if they are."""
    pairs = {(edge.source, edge.target) for edge in edges}
    try:
        return SemanticNeighbours(platform).cosines(pairs), None
    except (StoreUnavailable, StoreRefused, CollectionMismatch) as error:
        return {}, str(error)


def _texts(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> dict[EntityRef, _Text]:
    return dict(platform.postgres.rows(connection, "read_texts", by_ref(_Text), by_type_and_id(refs))) if refs else {}


def _weights(platform: Platform, connection: Connection, tags: Collection[str]) -> dict[str, TagWeight]:
    rows = connection.execute(platform.postgres.query("read_tag_weights"), {"tags": sorted(tags)})
    return {row[0]: TagWeight(row[1], row[2]) for row in rows}
