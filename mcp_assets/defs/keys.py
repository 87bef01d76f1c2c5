"""Keys: asset keys, names of jobs, and the tags by which a run says what it is for."""

import dagster as dg

ENTITIES = dg.AssetKey("entities")
EMBEDDINGS = dg.AssetKey("embeddings")
EDGES = dg.AssetKey("relationship_edges")
CENSUS = dg.AssetKey("consistency_census")
OWNERS = ["team:mcp-assets"]

DRAIN_TAG = "mcp_assets/drain"
FULL_SYNC_TAG = "mcp_assets/full_sync"
REQUESTS_TAG = "mcp_assets/requests"
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
