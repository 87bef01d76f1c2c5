"""The relationship rules: from entities, scores and weights to typed edges, and the difference to stored edges. Pure.

Belongs here: what an edge is, the rules, ranked lists and how one change changes them, the extraction of
references, how verdicts apply, the diff of edges. Does not: which store gives neighbours, tags and references, and when
an entity is linked again (`sync.link`); how edges are stored (`stores`). It imports `entities` only.

Incremental linking gives the edges of a rebuild because of three rules here. The result of each function depends on the
*set* of its inputs, never on their order. Scores are rounded before they are compared. Ties go to the smaller
(type, id).
"""

from mcp_assets.graph.colours import EDGE_COLOURS, OTHER_COLOUR
from mcp_assets.graph.cosines import doubtful_hits, doubtful_positions, lowest_that_ties, settled_scores
from mcp_assets.graph.diff import EdgeDiff, ListDiff, StoredEdge, StoredList, diff, diff_lists
from mcp_assets.graph.edges import (
    STRENGTH_BINS,
    UNDIRECTED,
    Edge,
    EdgeKey,
    EdgeType,
    ListedEdge,
    bin_of,
    rounded,
    strongest,
)
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, keys_of, slug_key, title_key
from mcp_assets.graph.near_duplicates import (
    COMPARED_CHARACTERS,
    DuplicateRule,
    NearCopy,
    Wording,
    duplicate_edges,
    near_copies,
    near_enough,
    shared_words,
    wording_of,
)
from mcp_assets.graph.ranking import (
    LIST_AND_RESERVES,
    LIST_LENGTH,
    UNKNOWN_LIST,
    Neighbour,
    NeighbourList,
    Ranking,
    differing,
    ranked,
    truncated,
    update_lists,
    updated_list,
)
from mcp_assets.graph.references import Holders, ReferenceRules, Use, pick, resolve
from mcp_assets.graph.semantic import certain_list, cut_off_of, nearest, neighbourhood, search_threshold, semantic_edges
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
from mcp_assets.graph.url_references import LinkForm
from mcp_assets.graph.verdicts import KEPT, REFERENCE_TYPES, Decision, End, Verdict, Verdicts, evidence_of_edge

__all__ = [
    "COMPARED_CHARACTERS",
    "EDGE_COLOURS",
    "KEPT",
    "LIST_AND_RESERVES",
    "LIST_LENGTH",
    "OTHER_COLOUR",
    "REFERENCE_TYPES",
    "STRENGTH_BINS",
    "UNDIRECTED",
    "UNKNOWN_LIST",
    "UNKNOWN_TAG",
    "Decision",
    "DuplicateRule",
    "Edge",
    "EdgeDiff",
    "EdgeKey",
    "EdgeType",
    "End",
    "Holders",
    "LinkForm",
    "ListDiff",
    "ListedEdge",
    "NearCopy",
    "Neighbour",
    "NeighbourList",
    "Ranking",
    "ReferenceKey",
    "ReferenceKind",
    "ReferenceRules",
    "StoredEdge",
    "StoredList",
    "TagWeight",
    "TopicIndex",
    "Use",
    "Verdict",
    "Verdicts",
    "Wording",
    "bin_of",
    "candidate_tags",
    "certain_list",
    "cut_off_of",
    "diff",
    "diff_lists",
    "differing",
    "doubtful_hits",
    "doubtful_positions",
    "duplicate_edges",
    "evidence_of_edge",
    "id_key",
    "keys_of",
    "lowest_that_ties",
    "near_copies",
    "near_enough",
    "nearest",
    "neighbourhood",
    "pick",
    "ranked",
    "relevance",
    "resolve",
    "rounded",
    "search_threshold",
    "semantic_edges",
    "settled_scores",
    "shared_words",
    "slug_key",
    "strongest",
    "tags_of",
    "title_key",
    "topical_edges",
    "topical_neighbourhood",
    "truncated",
    "update_lists",
    "updated_list",
    "weight_of",
    "wording_of",
]
