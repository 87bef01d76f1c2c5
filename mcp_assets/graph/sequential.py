"""sequential_dependency: one entity comes after another.

Direction: **source comes after target**: it depends on it, is blocked by it, replaces it, follows it. So
`a.depends_on = [b]` and `b.blocks = [a]` are one edge, a -> b.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mcp_assets.graph.edges import EdgeType
from mcp_assets.graph.relations import MetadataKey, Phrase

_AFTER = MetadataKey(EdgeType.SEQUENTIAL_DEPENDENCY)
_BEFORE = MetadataKey(EdgeType.SEQUENTIAL_DEPENDENCY, reverse=True)

SEQUENTIAL_KEYS: Mapping[str, MetadataKey] = MappingProxyType(
    {
        "dependencies": _AFTER,
        "depends_on": _AFTER,
        "blocked_by": _AFTER,
        "replaces": _AFTER,
        "previous": _AFTER,
        "blocks": _BEFORE,
        "superseded_by": _BEFORE,
        "next": _BEFORE,
    }
)

SEQUENTIAL_PHRASES: Mapping[str, Phrase] = MappingProxyType(
    {
        "depends on": Phrase(EdgeType.SEQUENTIAL_DEPENDENCY, 0.9),
        "blocked by": Phrase(EdgeType.SEQUENTIAL_DEPENDENCY, 0.9),
        "follows": Phrase(EdgeType.SEQUENTIAL_DEPENDENCY, 0.8),
        "after": Phrase(EdgeType.SEQUENTIAL_DEPENDENCY, 0.7),
    }
)
