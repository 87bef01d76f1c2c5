"""Colours: one for each edge type, the same in every picture of edges."""

from collections.abc import Mapping

from mcp_assets.graph.edges import EdgeType

EDGE_COLOURS: Mapping[EdgeType, str] = {
    EdgeType.SEMANTIC_SIMILARITY: "#1f77b4",
    EdgeType.POSSIBLE_DUPLICATE: "#e377c2",
    EdgeType.TOPICAL_RELEVANCE: "#ff7f0e",
    EdgeType.SEQUENTIAL_DEPENDENCY: "#2ca02c",
    EdgeType.CONCEPTUAL_HIERARCHY: "#d62728",
    EdgeType.CROSS_REFERENCE: "#9467bd",
}
"""Far apart in hue, legible on a light and on a dark ground."""

OTHER_COLOUR = "#7f7f7f"
"""The grey of the same colours, for edge types that other programs write."""
