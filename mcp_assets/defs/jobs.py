"""Jobs: what can be launched by name."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.assets import EMBEDDINGS, ENTITIES

INDEX_JOB = "index"


def build_index_job() -> UnresolvedAssetJobDefinition:
    """`entities` and `embeddings` over a range of partitions: what the sensor asks for and a person may launch."""
    return dg.define_asset_job(
        INDEX_JOB,
        selection=dg.AssetSelection.assets(ENTITIES, EMBEDDINGS),
        executor_def=dg.in_process_executor,
        description="Bring ledger and embeddings of the chosen partitions to what the source of truth says.",
    )
