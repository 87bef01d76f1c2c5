"""Shards: a run notices that its partitions were named by a process with another MCP_ASSETS_SHARDS than its own.

A partition such as `task-01` is another range of entities by another number of shards. So a run that was asked for by
a code server with one number, and is executed by a process with another, would do other entities than those that
Dagster then shows as done.
"""

import dagster as dg

from mcp_assets.settings import Settings

_SHARDS_TAG = "mcp_assets/shards"


def tags_of(settings: Settings) -> dict[str, str]:
    """Tags of an op over partitions, which the run keeps as the process that asked for it had them."""
    return {_SHARDS_TAG: str(settings.shards)}


def check_shards(context: dg.AssetExecutionContext, settings: Settings) -> None:
    """Raise dagster.Failure if the run was asked for by a process with another number of shards than `settings`."""
    asked = _asked_with(context)
    if asked is not None and asked != str(settings.shards):
        raise dg.Failure(
            f"the run was asked for by a process with MCP_ASSETS_SHARDS={asked} (a code server), and this process has "
            f"{settings.shards}, by which its partitions are other entities: nothing was done. Give all processes the "
            "same MCP_ASSETS_SHARDS, restart them, and launch the run again",
            allow_retries=False,
        )


def _asked_with(context: dg.AssetExecutionContext) -> str | None:
    """The number of shards in the definitions that the run was made from; None if they have none."""
    snapshot = context.run.job_snapshot_id
    if snapshot is None:
        return None
    ops = context.instance.get_historical_job(snapshot).job_snapshot.node_defs_snapshot.op_def_snaps
    return next((op.tags[_SHARDS_TAG] for op in ops if _SHARDS_TAG in op.tags), None)
