"""The jobs `census`, `checks` and `repair`, and the schedule of the census with its checks."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from mcp_assets.defs.census import CENSUS
from mcp_assets.defs.metadata import drift_table
from mcp_assets.defs.partitions import partitions_of
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.validation import validate

CENSUS_JOB = "census"
CHECKS_JOB = "checks"
REPAIR_JOB = "repair"


class RepairConfig(dg.Config):
    """What to mend: all types without any. `deep`: look at everything, not at a sample of texts and edges.

    `allow_mass_delete`: remove however much is gone. `foreign`: remove points that other programs wrote, too;
    `foreign_edges`: remove their rows of `relationships` that lack a living end.
    """

    types: list[str] = Field(default=[])
    deep: bool = False
    allow_mass_delete: bool = False
    foreign: bool = False
    foreign_edges: bool = False


def build_census_job() -> UnresolvedAssetJobDefinition:
    """The census of a range of partitions, and then the checks."""
    return dg.define_asset_job(
        CENSUS_JOB,
        selection=dg.AssetSelection.assets(CENSUS) | dg.AssetSelection.checks_for_assets(CENSUS),
        executor_def=dg.in_process_executor,
        description="Compare the stores of the chosen partitions, and check what was found.",
    )


def build_checks_job() -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        CHECKS_JOB,
        selection=dg.AssetSelection.checks_for_assets(CENSUS),
        executor_def=dg.in_process_executor,
        description="All checks by themselves; a census is taken only where the last one is old.",
    )


def build_census_schedule(settings: Settings, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    keys: Sequence[str] = partitions_of(settings).get_partition_keys()

    @dg.schedule(
        name="hourly_census",
        job=job,
        cron_schedule=settings.census_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="The census of everything, and the checks.",
    )
    def hourly_census() -> dg.RunRequest:
        return dg.RunRequest(
            tags={
                "dagster/asset_partition_range_start": keys[0],
                "dagster/asset_partition_range_end": keys[-1],
            }
        )

    return hourly_census


def build_repair_job() -> dg.JobDefinition:
    """Census, repair, and a report; it fails if drift is left, or so much would go that a person has to allow it."""

    @dg.op(name="mend")
    def mend(context: dg.OpExecutionContext, config: RepairConfig, platform: PlatformResource) -> None:
        opened = platform.get()
        types = opened.settings.entity_types
        if unknown := [name for name in config.types if name not in types]:
            raise dg.Failure(f"no entity type {unknown[0]!r}: one of {', '.join(types)}", allow_retries=False)
        with embedding_until_interrupted(opened):
            report = validate(
                opened,
                entity_types=config.types or list(types),
                repair=True,
                deep=config.deep,
                allow_mass_delete=config.allow_mass_delete,
                foreign=config.foreign,
                foreign_edges=config.foreign_edges,
            )
        metadata: dict[str, dg.MetadataValue] = {
            "checked": dg.MetadataValue.int(report.checked),
            "embedded": dg.MetadataValue.int(report.embedded),
            **{f"found/{kind}": dg.MetadataValue.int(count) for kind, count in report.found.items()},
            **{f"mended/{kind}": dg.MetadataValue.int(count) for kind, count in report.mended.items()},
        }
        if report.examples:
            metadata["examples"] = drift_table(report.examples)
        if report.unfinished:
            raise dg.Failure(report.unfinished, metadata=metadata, allow_retries=False)
        context.add_output_metadata(metadata)

    @dg.job(
        name=REPAIR_JOB,
        executor_def=dg.in_process_executor,
        description="Find what is wrong in the stores and mend exactly that; types, deep, allow_mass_delete, foreign, "
        "foreign_edges.",
    )
    def job() -> None:
        mend()

    return job
