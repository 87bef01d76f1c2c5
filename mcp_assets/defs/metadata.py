"""Metadata: what a materialization of a partition tells in the UI."""

from collections.abc import Mapping

from mcp_assets.sync.indexer import Counts


def ledger_metadata(counts: Counts) -> Mapping[str, int | float]:
    """Of `entities`: numbers, so that Dagster plots them over time."""
    changed = counts.embedded + counts.repayloaded + counts.empty
    return {
        "scanned": counts.scanned,
        "changed": changed,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "failed": counts.failed,
    }


def embeddings_metadata(counts: Counts, seconds: float) -> Mapping[str, int | float]:
    """Of `embeddings`; `seconds`: time in which `counts.texts` were embedded and written."""
    told: dict[str, int | float] = {
        "scanned": counts.scanned,
        "embedded": counts.embedded,
        "texts": counts.texts,
        "payloads_updated": counts.repayloaded,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "failed": counts.failed,
        "texts_per_s": round(counts.texts / seconds, 1) if seconds > 0 else 0.0,
    }
    if counts.tokens is not None:
        told["tokens"] = counts.tokens
    return told
