"""Page data: the graph as the HTML page reads it: lines in the order in which they are drawn, vertices with places."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import igraph

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EDGE_COLOURS, OTHER_COLOUR, UNDIRECTED, EdgeType
from mcp_assets.sync.views.evidence import Evidence, evidence_of
from mcp_assets.sync.views.graph import ExportedEdge

_UNDIRECTED = frozenset(edge_type.value for edge_type in UNDIRECTED)
"""The page draws these without an arrow."""

_AT_ONCE = 4
"""Edges of an entity that come before the further ones of equal strength: with fewer, most of a picture is pairs."""

_NO_TYPE = "?"
"""The type of an entity that another program's edge names without one."""


class Line(NamedTuple):
    """What the page draws and lists as one edge. `both`: it stands for two rows, one in each direction."""

    source: EntityRef
    target: EntityRef
    type: str
    strength: float | None
    evidence: Evidence
    origin: str
    both: bool = False


@dataclass(frozen=True, slots=True)
class PageData:
    """The rows of an export, read for the page."""

    rows: int
    lines: list[Line]
    """Strongest first."""
    titles: dict[EntityRef, str]
    """Of each end of a line; empty if it has none."""

    @classmethod
    def of(cls, edges: Iterable[ExportedEdge], weights: Mapping[str, float] = {}) -> "PageData":
        """`weights`: of tags, to be shown with those that an edge's ends share."""
        titles: dict[EntityRef, str] = {}
        lines: dict[tuple[object, ...], Line] = {}
        rows = 0
        for edge in edges:
            rows += 1
            line = _line_of(edge, weights)
            for ref, title in ((line.source, edge.source_title), (line.target, edge.target_title)):
                titles[ref] = titles.get(ref) or title or ""
            key = (line.source, line.target, line.type, line.strength, line.origin)
            mirrored = (line.target, line.source, *key[2:])
            if line.type in _UNDIRECTED and mirrored in lines and line.source != line.target:
                lines[mirrored] = lines[mirrored]._replace(both=True)
            else:
                lines[key] = line
        return cls(rows, strongest_first(lines.values()), titles)

    def as_json(self, entity_url: EntityUrl | None = None) -> dict[str, Any]:
        """Columns, in which numbers stand for vertices, types and texts: objects would be five times as long."""
        refs = sorted(self.titles)
        numbers = {ref: number for number, ref in enumerate(refs)}
        entity_types = sorted({ref.type for ref in refs})
        edge_types = _edge_types(self.lines)
        texts: dict[str, int] = {"": 0}
        pairs = [(numbers[line.source], numbers[line.target]) for line in self.lines]
        places = layout(len(refs), pairs, [line.strength or 0.0 for line in self.lines])
        vertices: dict[str, list[Any]] = {
            "type": [entity_types.index(ref.type) for ref in refs],
            "id": [ref.id for ref in refs],
            "title": [self.titles[ref] for ref in refs],
            "x": [round(x, 2) for x, _ in places],
            "y": [round(y, 2) for _, y in places],
        }
        if entity_url is not None:
            vertices["url"] = [entity_url.url(ref) for ref in refs]
        return {
            "rows": self.rows,
            "entityTypes": entity_types,
            "edgeTypes": [
                {"name": name, "colour": _colour_of(name), "directed": name not in _UNDIRECTED} for name in edge_types
            ],
            "vertices": vertices,
            "edges": {
                "source": [source for source, _ in pairs],
                "target": [target for _, target in pairs],
                "type": [edge_types.index(line.type) for line in self.lines],
                "strength": [line.strength for line in self.lines],
                "both": [int(line.both) for line in self.lines],
                "rule": [texts.setdefault(line.evidence.rule, len(texts)) for line in self.lines],
                "words": [texts.setdefault(line.evidence.words, len(texts)) for line in self.lines],
                "origin": [texts.setdefault(line.origin, len(texts)) for line in self.lines],
            },
            "texts": list(texts),
        }


def strongest_first(lines: Iterable[Line]) -> list[Line]:
    """`lines` by strength, strongest first. Of equally strong ones, the edge types take turns.

    Very many are equally strong: all that metadata states, and all between entities of equal tags. Without turns, the
    first some hundred would be of one type. Within a type, the edges of the most connected entities come first, because
    a picture of pairs says little. An entity's further edges wait until others have had their first _AT_ONCE, because
    groups in which all are related with all would fill the picture.
    """
    lines = sorted(lines, key=lambda line: (line.source, line.target, line.origin))
    degrees = Counter(line.source for line in lines)
    degrees.update(line.target for line in lines)
    groups: defaultdict[tuple[float, str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[-(line.strength or 0.0), line.type].append(line)
    ordered: list[tuple[float, int, str, Line]] = []
    for (strength, edge_type), group in groups.items():
        group.sort(key=lambda line: -degrees[line.source] - degrees[line.target])
        had: Counter[EntityRef] = Counter()
        waiting: list[tuple[int, Line]] = []
        for line in group:
            waiting.append((max(had[line.source], had[line.target]) // _AT_ONCE, line))
            had.update((line.source, line.target))
        waiting.sort(key=lambda one: one[0])
        ordered.extend((strength, turn, edge_type, line) for turn, (_, line) in enumerate(waiting))
    ordered.sort(key=lambda one: one[:3])
    return [line for *_, line in ordered]


def layout(vertices: int, pairs: Sequence[tuple[int, int]], strengths: Sequence[float]) -> list[tuple[float, float]]:
    """A place for each vertex: strong edges draw their ends together. The same graph gets the same layout."""
    if not vertices:
        return []
    graph = igraph.Graph(vertices, pairs)
    weights = [max(strength, 0.01) for strength in strengths] or None
    # Numbers that are the same each time, so that the same graph gives the same file. The places to begin from are
    # spread over the area that the layout will take: from a small circle, it took a minute in place of seconds.
    chance, side = random.Random(0), math.sqrt(vertices)  # noqa: S311
    seed = [(chance.uniform(0, side), chance.uniform(0, side)) for _ in range(vertices)]
    igraph.set_random_number_generator(chance)
    try:
        found = graph.layout_fruchterman_reingold(weights=weights, seed=seed, grid="auto", niter=_LAYOUT_ROUNDS)
    finally:
        igraph.set_random_number_generator(random)
    return [(float(x), float(y)) for x, y in found.coords]


_LAYOUT_ROUNDS = 150
"""Some seconds for 9,000 vertices and 150,000 edges; more is not seen, because the browser lays out what it draws."""


def _line_of(edge: ExportedEdge, weights: Mapping[str, float]) -> Line:
    strength = edge.strength
    return Line(
        EntityRef(edge.source_type or _NO_TYPE, edge.source_id),
        EntityRef(edge.target_type or _NO_TYPE, edge.target_id),
        edge.relationship_type,
        strength if strength is not None and math.isfinite(strength) else None,
        evidence_of(edge.metadata if isinstance(edge.metadata, Mapping) else {}, weights),
        edge.origin or "",
    )


def _edge_types(lines: Iterable[Line]) -> list[str]:
    """The types of `lines`: ours in their order, then those of other programs."""
    held = {line.type for line in lines}
    ours = [edge_type.value for edge_type in EdgeType]
    return [name for name in ours if name in held] + sorted(held.difference(ours))


def _colour_of(name: str) -> str:
    return EDGE_COLOURS[EdgeType(name)] if name in {*EdgeType} else OTHER_COLOUR
