"""conceptual_hierarchy: one entity is part of another.

Direction: **source is the child, target the parent**, whether a metadata key, a phrase or the slug path says so. Each
statement makes one edge. No rule follows parents of parents, so that a cycle of parents does no harm.
"""

from collections.abc import Mapping
from types import MappingProxyType

from mcp_assets.graph.edges import EdgeType
from mcp_assets.graph.relations import MetadataKey, Phrase

_PARENT = MetadataKey(EdgeType.CONCEPTUAL_HIERARCHY)

HIERARCHY_KEYS: Mapping[str, MetadataKey] = MappingProxyType(
    {
        "parent_id": _PARENT,
        "parent": _PARENT,
        "epic_id": _PARENT,
        "parent_page_id": MetadataKey(EdgeType.CONCEPTUAL_HIERARCHY, of_type="page"),
        "parent_task_id": MetadataKey(EdgeType.CONCEPTUAL_HIERARCHY, of_type="task"),
    }
)

HIERARCHY_PHRASES: Mapping[str, Phrase] = MappingProxyType(
    {
        "subtask of": Phrase(EdgeType.CONCEPTUAL_HIERARCHY, 0.9),
        "child of": Phrase(EdgeType.CONCEPTUAL_HIERARCHY, 0.9),
        "part of": Phrase(EdgeType.CONCEPTUAL_HIERARCHY, 0.8),
    }
)
