"""Keys: asset keys, names of jobs, and the tags by which a run says what it is for."""

from collections.abc import Mapping
from typing import Literal

import dagster as dg

from mcp_assets.sync.views.sources import Source

ENTITIES = dg.AssetKey("entities")
EMBEDDINGS = dg.AssetKey("embeddings")
EDGES = dg.AssetKey("relationship_edges")
CENSUS = dg.AssetKey("consistency_census")
QUALITY = dg.AssetKey("quality")
OWNERS = ["team:mcp-assets"]

GROUP = "mcp"
"""One group for all: the UI opens several groups as closed boxes, and a single one with all its assets."""

DRAIN_TAG = "mcp_assets/drain"
FULL_SYNC_TAG = "mcp_assets/full_sync"
FULL_SYNC_ID_TAG = "mcp_assets/full_sync_id"
"""Which full sync a run works for: a full sync may have two backfills."""
REQUESTS_TAG = "mcp_assets/requests"
REASON_TAG = "mcp_assets/asked_because"
"""Why a sensor asked for the run, in words."""
BACKFILL_TAG = "dagster/backfill"

INDEX_JOB = "index"
RELATE_JOB = "relate"
TAG_WEIGHTS_JOB = "refresh_tag_weights"
CENSUS_JOB = "census"
CHECKS_JOB = "checks"
REPAIR_JOB = "repair"
REQUESTS_JOB = "requests"
DEAD_LETTERS_JOB = "dead_letters"
RECONCILE_JOB = "reconcile"
CLEAN_UP_JOB = "clean_up"
PLAN_JOB = "plan"
QUALITY_JOB = "quality"

QUALITY_CHECK = dg.AssetCheckKey(QUALITY, "quality_is_enough")


def stage_tag(stage: Literal["source", "ledger", "vectors", "graph", "audit"]) -> Mapping[str, str]:
    """The tag by which the assets of a stage are found in the UI."""
    return {"mcp_assets/stage": stage}


def source_table_key(table: str) -> dg.AssetKey:
    return dg.AssetKey(["source", *table.split(".")])


def stream_key(stream: str) -> dg.AssetKey:
    return dg.AssetKey(["nats", stream.replace("-", "_")])


def key_of(source: Source) -> dg.AssetKey:
    """The key of a source table or a stream."""
    return source_table_key(source.name) if source.is_table else stream_key(source.name)
