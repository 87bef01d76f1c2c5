"""Recall check: whether the similarity edges hold enough of the exact neighbours, where searches are approximate."""

from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.check_outcome import CheckOutcome
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.consistency.recent_censuses import recent_censuses
from mcp_assets.sync.consistency.stored_censuses import recall_by_type

_HOW_TO_RAISE_RECALL = (
    "Materialize `relationship_edges` of these types with `force: true`: all their lists are made again, by exact "
    "searches in blocks where that takes two CPU hours at most. If the recall falls again, Qdrant's index misses "
    "neighbours: raise `ef_construct` and `m` of the collection in Qdrant, or `MCP_ASSETS_EXACT_UP_TO`."
)


def recall_suffices(platform: Platform) -> CheckOutcome:
    """By the last census of each partition; a warning if an entity type has too little recall."""
    censuses = recent_censuses(platform)
    by_type = recall_by_type(censuses)
    least, bound = platform.settings.least_recall, platform.settings.exact_up_to
    if not by_type:
        return CheckOutcome(True, f"exact: no census found a collection of more than {bound:,} points")
    low = [name for name, recall in by_type.items() if recall.share is not None and recall.share < least]
    oldest = max(last.age_s for last in censuses)
    told = ", ".join(f"{name}: {recall}" for name, recall in by_type.items())
    return CheckOutcome(
        passed=not low,
        summary=f"{told}; {least} suffices; by censuses of which the oldest is {oldest:.0f} s old",
        count=len(low),
        severity=Severity.WARNING,
        rows=[{"type": name, "recall": str(by_type[name])} for name in low],
        advice=_HOW_TO_RAISE_RECALL if low else "",
        figures={
            "census_age_s": round(oldest, 1),
            **{f"recall/{name}": round(one.share, 4) for name, one in by_type.items() if one.share is not None},
            **{f"recall_lists/{name}": one.lists for name, one in by_type.items()},
        },
    )
