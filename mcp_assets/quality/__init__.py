"""Quality: how good searches and edges are, as figures of what was found and of what should have been found. Pure.

Belongs here: questions and their answers, the golden file's format, figures of ranks and of pairs of entities. Does
not: who is asked (`sync.search`, Qdrant), and where figures are kept. It imports `entities` only.
"""

from mcp_assets.quality.comparison import Compared, SideFigures, is_worse, most_changed, side_figures
from mcp_assets.quality.golden import GoldenFileError, read_golden
from mcp_assets.quality.pairs import Pair, PairFigures, pair_figures, recall
from mcp_assets.quality.questions import Question, sampled
from mcp_assets.quality.ranks import RESULTS, SearchFigures, rank_of, search_figures

__all__ = [
    "RESULTS",
    "Compared",
    "GoldenFileError",
    "Pair",
    "PairFigures",
    "Question",
    "SearchFigures",
    "SideFigures",
    "is_worse",
    "most_changed",
    "pair_figures",
    "rank_of",
    "read_golden",
    "recall",
    "sampled",
    "search_figures",
    "side_figures",
]
