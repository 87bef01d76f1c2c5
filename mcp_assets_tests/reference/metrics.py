"""The figures of materializations as a page of the reference. A figure without a description here is an error."""

from collections import Counter
from collections.abc import Iterable

from mcp_assets.defs.metadata import census_metadata, edges_metadata, embeddings_metadata, ledger_metadata
from mcp_assets.defs.quality import quality_metadata
from mcp_assets.graph import STRENGTH_BINS, EdgeType
from mcp_assets.quality import PairFigures, SearchFigures
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.stored_censuses import Census
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.views.quality import RULES, EdgeQuality, Miss, Quality, SearchQuality, VerdictQuality

_HEAD = """# Figures of materializations

Each materialization is of one partition, but for `quality`, and carries these figures, which Dagster plots over time.
They are counts, unless a unit is given.
Figures of whole assets (`dagster/row_count`, `total/…`) stand beside them.
Source tables have observations (`dagster/row_count`, `living_rows`, `newest_update`), and so have streams.
Of a stream they are `dagster/row_count`, `last_sequence`, `unread`, `not_applied` and `lag_s` (seconds).
"""

_DESCRIPTIONS = {
    "scanned": "entities that were compared, or that messages named",
    "changed": "entities whose text or metadata had changed",
    "relationship_edges changed": "edges whose strength or evidence has changed",
    "unchanged": "entities that were found as they should be",
    "deleted": "entities that were removed",
    "failed": "entities that became dead letters",
    "embedded": "entities whose text was embedded",
    "texts": "texts that were embedded: entities and chunks",
    "payloads_updated": "entities whose payload was replaced without embedding",
    "texts_per_s": "texts embedded and written, a second",
    "openai.calls": "requests that the provider answered",
    "openai.total_tokens": "tokens, as the provider counts them",
    "openai.prompt_tokens": "the same: all tokens of embeddings are of the prompt",
    "cost_dollars": "what these tokens cost, in US dollars",
    "strengths": "a plot of the strengths of all edges from the partition",
    "dagster/partition_row_count": "edges from the partition",
    "edges/<type>": "edges of one type from the partition",
    "relinked": "entities that were linked again",
    "lists_in_blocks": "semantic lists found in blocks ([linking](../explanation/linking.md))",
    "lists_asked": "semantic lists that Qdrant was asked for",
    "added": "new edges",
    "added/<type>": "new edges of one type",
    "removed": "edges that are gone",
    "removed/<type>": "edges of one type that are gone",
    "changed/<type>": "edges of one type whose strength or evidence has changed",
    "checked": "entities that the census compared",
    "points": "points that it read",
    "edges": "edges that it read",
    "live_by_events": "entities without a source row, which live by their events",
    "deep": "whether all texts and edges were compared, not a sample",
    "seconds": "how long the census took, in seconds",
    "drift": "differences of all kinds",
    "drift/<kind>": "differences of one kind",
    "links": "explicit links that were compared",
    "quality edges": "semantic and topical edges of the entities that have these links",
    "quality edges/<type>": "those of one type",
    "recall": "share of the explicit links that these edges find, too",
    "recall/<type>": "share that the edges of one type find",
    "precision": "share of these edges that are explicit links, too",
    "precision/<type>": "the same, of the edges of one type",
    "accepted": "edges that the rules made and a team accepted",
    "rejected": "edges that the rules made and a team rejected",
    "judged_precision": "share of the judged edges that were accepted",
    "judged_recall": "share of the accepted edges that the rules make now",
    "questions": "golden questions that were asked",
    "questions_absent": "golden questions that were not asked, because no entity that answers them is there",
    "hit_1": "share of the questions with an answer as the first result",
    "hit_5": "share of the questions with an answer among the first five results",
    "mrr": "mean reciprocal rank of the first answer",
    "misses": "questions without an answer among the first five results",
}


def page() -> str:
    one = Counter({EdgeType.CROSS_REFERENCE: 1})
    links = LinkCounts(added=one, changed=one, removed=one)
    strengths = {EdgeType.CROSS_REFERENCE: [1] * STRENGTH_BINS}
    sections = {
        "entities": ledger_metadata(Counts()),
        "embeddings": embeddings_metadata(Counts(tokens=1), 1.0, 1, 1.0),
        "relationship_edges": edges_metadata(links, strengths),
        "consistency_census": census_metadata(Census("task", 0, "kanban_tasks", deep=False)),
        "quality": quality_metadata(_quality()),
    }
    return _HEAD + "".join(_section(asset, keys) for asset, keys in sections.items())


def _quality() -> Quality:
    """One with each figure."""
    pairs = PairFigures(0.5, 0.5, 1)
    found = SearchQuality(SearchFigures(1, 0.0, 0.0, 0.0), 0, 0, [Miss("query", "task:7", None, "")])
    return Quality(EdgeQuality(1, {None: pairs, **dict.fromkeys(RULES, pairs)}), VerdictQuality(1, 1, 1), found, [])


def _section(asset: str, keys: Iterable[str]) -> str:
    lines = [
        f"| `{key}` | {_DESCRIPTIONS.get(f'{asset} {key}') or _DESCRIPTIONS[key]} |\n"
        for key in dict.fromkeys(map(_pattern, keys))
    ]
    return f"\n## `{asset}`\n\n| figure | meaning |\n|---|---|\n" + "".join(lines)


def _pattern(key: str) -> str:
    """The key with a placeholder for a type of edge or a kind of drift."""
    stem, slash, name = key.partition("/")
    if slash and name in set(EdgeType):
        return f"{stem}/<type>"
    return f"{stem}/<kind>" if slash and name in set(DriftKind) else key
