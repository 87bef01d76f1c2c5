"""The asset `quality`: how good edges and searches are, as figures that Dagster plots, with its check and schedule."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mcp_assets.defs.keys import EDGES, EMBEDDINGS, GROUP, OWNERS, QUALITY, QUALITY_CHECK, QUALITY_JOB, stage_tag
from mcp_assets.defs.links import docs_link
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings
from mcp_assets.sync.views.quality import Miss, Quality, measure_quality


def build_quality_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset measures once, and its check judges what was measured."""

    @dg.multi_asset(
        name="measure_quality",
        specs=[
            dg.AssetSpec(
                QUALITY,
                deps=[EMBEDDINGS, EDGES],
                description="How good edges and searches are: the share of explicit links that semantic and topical "
                "edges find, and hits of searches on the golden file, if there is one (MCP_ASSETS_GOLDEN_FILE).",
                kinds={"postgres", "qdrant"},
                owners=OWNERS,
                group_name=GROUP,
                tags=stage_tag("audit"),
                metadata=docs_link(settings, "how-to/quality"),
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                QUALITY_CHECK.name,
                asset=QUALITY,
                description="The figures are not below their thresholds: MCP_ASSETS_QUALITY_RECALL, "
                "MCP_ASSETS_QUALITY_HIT_5.",
            )
        ],
    )
    def quality(platform: PlatformResource) -> Iterator[dg.MaterializeResult[None]]:
        with embedding_until_interrupted(platform.get()) as opened:
            try:
                measured = measure_quality(opened)
            except SettingsError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
        yield dg.MaterializeResult(
            asset_key=QUALITY,
            metadata=quality_metadata(measured),
            check_results=[_judged(opened.settings, measured)],
        )

    return quality


def quality_metadata(measured: Quality) -> Mapping[str, dg.MetadataValue]:
    """Of `quality`: the figures as numbers to plot, and golden questions that found nothing."""
    entries: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.float(value)
        for name, value in measured.figures().items()
    }
    if measured.search is not None and measured.search.misses:
        entries["misses"] = _misses_table(measured.search.misses)
    return entries


def _misses_table(misses: Sequence[Miss]) -> dg.MetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"query": one.query, "expected": one.expected, "rank": str(one.rank or "none"), "first": one.first}
            )
            for one in misses
        ]
    )


def _judged(settings: Settings, measured: Quality) -> dg.AssetCheckResult:
    passed = not measured.shortfalls
    return dg.AssetCheckResult(
        asset_key=QUALITY,
        check_name=QUALITY_CHECK.name,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(measured.shortfalls) or "no figure is below its threshold",
        metadata={} if passed else docs_link(settings, f"how-to/failed-checks#{QUALITY_CHECK.name}"),
    )


def build_quality_job() -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        QUALITY_JOB,
        selection=dg.AssetSelection.assets(QUALITY) | dg.AssetSelection.checks(QUALITY_CHECK),
        executor_def=dg.in_process_executor,
        description="Measure how good edges and searches are, and hold the figures against their thresholds.",
    )


def build_quality_schedule(settings: Settings, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Each week. It embeds the questions of the golden file, which a site has only if it wants them asked."""
    return dg.ScheduleDefinition(
        name="weekly_quality",
        job=job,
        cron_schedule=settings.quality_cron,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Measures how good edges and searches are. MCP_ASSETS_QUALITY_CRON sets the time.",
    )
