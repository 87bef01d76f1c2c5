"""Verdicts: what a team decided about edges, applied to the edges that the rules make.

An edge that was rejected stays away while its *evidence* is that of the verdict: the texts of both ends, the words of a
reference, or the tags that are shared. Scores, weights and models are no evidence, because they change without a change
of the entities. An edge that was accepted stays, whether or not the rules still make it.

Ranked lists are made before verdicts, so that a rejected edge frees no place for another one.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeKey, EdgeType, ListedEdge, canonical

KEPT = "kept_by"
"""The key in the metadata of an edge that the rules no longer make, and that stays because it was accepted."""

REFERENCE_TYPES = (EdgeType.SEQUENTIAL_DEPENDENCY, EdgeType.CONCEPTUAL_HIERARCHY, EdgeType.CROSS_REFERENCE)
"""The types of edge that references make."""

_WORDS_OF_REFERENCE = ("rule", "reference_type", "context")
"""The metadata of a reference that are its evidence: all of them today; keys that are added later do not count."""


class Decision(StrEnum):
    """What a verdict says of an edge."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class End(NamedTuple):
    """What the evidence of an edge may depend on, of one living end."""

    text_hash: str
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One verdict about one edge, and both ends as they are now."""

    key: EdgeKey
    decision: Decision
    evidence: Mapping[str, Any]
    """The evidence when the verdict was given."""
    strength: float | None
    """The strength of the edge at that time; None: there was no edge in this direction, so that none is kept."""
    metadata: Mapping[str, Any]
    """The metadata of the edge at that time."""
    source: End | None
    """None: the entity is not living."""
    target: End | None

    def rejects(self, metadata: Mapping[str, Any]) -> bool:
        """Whether the verdict keeps the edge away that the rules make now, with `metadata`."""
        return self.decision is Decision.REJECTED and self.evidence_now(metadata) == self.evidence

    def evidence_now(self, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
        """The evidence of the edge now; None if an end is not living. `metadata`: of the edge that the rules make."""
        if self.source is None or self.target is None:
            return None
        return evidence_of_edge(self.key.type, metadata, self.source, self.target)

    @property
    def keeps(self) -> bool:
        """Whether the edge stays although the rules do not make it."""
        has_ends = self.source is not None and self.target is not None
        return self.decision is Decision.ACCEPTED and self.strength is not None and has_ends


def evidence_of_edge(edge_type: EdgeType, metadata: Mapping[str, Any], source: End, target: End) -> dict[str, Any]:
    """The evidence of an edge: what has to change before a rejected edge comes back. JSON values only."""
    if edge_type is EdgeType.TOPICAL_RELEVANCE:
        return {"tags": sorted(source.tags & target.tags)}
    if edge_type in REFERENCE_TYPES:
        return {"words": {key: metadata[key] for key in _WORDS_OF_REFERENCE if key in metadata}}
    return {"texts": [source.text_hash, target.text_hash]}


class Verdicts:
    """The verdicts about some edges, applied to the edges that the rules make. Without any, all edges stay."""

    def __init__(self, verdicts: Iterable[Verdict] = ()) -> None:
        self._by_key = {verdict.key: verdict for verdict in verdicts}
        self._kept: dict[EntityRef, list[Verdict]] = {}
        for verdict in self._by_key.values():
            if verdict.keeps:
                self._kept.setdefault(verdict.key.source, []).append(verdict)

    def __contains__(self, key: object) -> bool:
        """Whether the edge has a verdict."""
        return key in self._by_key

    def judged(
        self, sources: Collection[EntityRef], types: Collection[EdgeType], edges: Iterable[Edge]
    ) -> Iterable[Edge]:
        """All edges of `types` from `sources` that are to be stored; `edges`: those that the rules make."""
        return self._judge(sources, types, edges) if self._by_key else edges

    def judged_list(
        self, sources: Collection[EntityRef], edge_type: EdgeType, edges: Iterable[ListedEdge]
    ) -> Iterable[ListedEdge]:
        """As `judged`, of ranked lists of one type; each list has to be whole."""
        return self._judge_list(sources, edge_type, edges) if self._by_key else edges

    def sources_of(self, changed: Collection[EntityRef], types: Collection[EdgeType]) -> set[EntityRef]:
        """The sources of the edges of `types` that have a verdict and one of `changed` as an end."""
        return {
            key.source for key in self._by_key if key.type in types and (key.source in changed or key.target in changed)
        }

    def _judge(
        self, sources: Collection[EntityRef], types: Collection[EdgeType], edges: Iterable[Edge]
    ) -> Iterator[Edge]:
        made: set[EdgeKey] = set()
        for edge in edges:
            verdict = self._by_key.get(edge.key)
            if verdict is not None and verdict.rejects(edge.metadata):
                continue
            made.add(edge.key)
            yield edge
        for edge_type in types:
            for verdict in self._kept_of(sources, edge_type, made):
                yield Edge(*verdict.key, _strength(verdict), _kept_metadata(verdict))

    def _judge_list(
        self, sources: Collection[EntityRef], edge_type: EdgeType, edges: Iterable[ListedEdge]
    ) -> Iterator[ListedEdge]:
        made: set[EdgeKey] = set()
        for edge in edges:
            key = EdgeKey(edge.source, edge.target, edge_type)
            verdict = self._by_key.get(key)
            if verdict is not None:
                # Metadata of a ranked list are no evidence.
                if verdict.rejects({}):
                    continue
                made.add(key)
            yield edge
        for verdict in self._kept_of(sources, edge_type, made):
            source, target, _ = verdict.key
            yield ListedEdge(source, target, _strength(verdict), canonical(_kept_metadata(verdict)))

    def _kept_of(
        self, sources: Collection[EntityRef], edge_type: EdgeType, made: Collection[EdgeKey]
    ) -> Iterator[Verdict]:
        for source in self._kept.keys() & sources:
            for verdict in self._kept[source]:
                if verdict.key.type is edge_type and verdict.key not in made:
                    yield verdict


def _strength(verdict: Verdict) -> float:
    assert verdict.strength is not None  # noqa: S101  (`Verdict.keeps` says so)
    return verdict.strength


def _kept_metadata(verdict: Verdict) -> dict[str, Any]:
    return {**verdict.metadata, KEPT: "verdict"}
