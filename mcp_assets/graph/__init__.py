"""The relationship rules: from entities, scores and weights to typed edges, and the diff that brings them about. Pure.

What belongs here: what an edge is, the five rules, ranked lists and what one change does to them, reference
extraction, the diffing of edges. What does not: who is asked for neighbours, tags and references, and when an entity
is linked again (`sync/`); how edges are stored (`stores/`). It imports `entities` only.

Incremental equals rebuild rests on this: each function's result depends on the *set* of what it is given, never on its
order; scores are rounded before they are compared; ties go to the smaller (type, id).
"""

from mcp_assets.graph.diff import EdgeDiff, ListDiff, StoredEdge, StoredList, diff, diff_lists
from mcp_assets.graph.edges import STRENGTH_BINS, Edge, EdgeKey, EdgeType, ListedEdge, bin_of, rounded, strongest
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, keys_of, slug_key, title_key
from mcp_assets.graph.links import LinkForm
from mcp_assets.graph.ranking import (
    KNOWN,
    LIST_LENGTH,
    UNKNOWN,
    Known,
    Neighbour,
    Ranking,
    after_changes,
    cut,
    differing,
    ranked,
    work_in,
)
from mcp_assets.graph.references import Holders, ReferenceRules, Use, pick, resolve
from mcp_assets.graph.semantic import known_of, left_out, nearest, neighbourhood, query_floor, semantic_edges
from mcp_assets.graph.topical import (
    UNKNOWN_TAG,
    TagWeight,
    TopicIndex,
    candidate_tags,
    relevance,
    tags_of,
    topical_edges,
    topical_neighbourhood,
    weight_of,
)

__all__ = [
    "KNOWN",
    "LIST_LENGTH",
    "STRENGTH_BINS",
    "UNKNOWN",
    "UNKNOWN_TAG",
    "Edge",
    "EdgeDiff",
    "EdgeKey",
    "EdgeType",
    "Holders",
    "Known",
    "LinkForm",
    "ListDiff",
    "ListedEdge",
    "Neighbour",
    "Ranking",
    "ReferenceKey",
    "ReferenceKind",
    "ReferenceRules",
    "StoredEdge",
    "StoredList",
    "TagWeight",
    "TopicIndex",
    "Use",
    "after_changes",
    "bin_of",
    "candidate_tags",
    "cut",
    "diff",
    "diff_lists",
    "differing",
    "id_key",
    "keys_of",
    "known_of",
    "left_out",
    "nearest",
    "neighbourhood",
    "pick",
    "query_floor",
    "ranked",
    "relevance",
    "resolve",
    "rounded",
    "semantic_edges",
    "slug_key",
    "strongest",
    "tags_of",
    "title_key",
    "topical_edges",
    "topical_neighbourhood",
    "weight_of",
    "work_in",
]
