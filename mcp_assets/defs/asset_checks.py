"""Asset checks: the outcomes of `sync.consistency.checks` in Dagster, each on the asset that it judges.

No check is blocking. A blocking check keeps the assets behind its asset from being made while it fails, and what stands
behind them here is the census, which has to be taken precisely then.
"""

from collections.abc import Iterator, Mapping

import dagster as dg

from mcp_assets.defs.keys import CENSUS, EDGES, EMBEDDINGS, ENTITIES
from mcp_assets.defs.links import docs_link
from mcp_assets.defs.metadata import CHANGES, finding_metadata
from mcp_assets.defs.partitions import ranges_of
from mcp_assets.defs.progress_lines import ProgressLines
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.consistency.census import take_censuses
from mcp_assets.sync.consistency.checks import CHECKS, evaluate
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.consistency.progress import CensusProgress

_SEVERITIES = {
    Severity.ERROR: dg.AssetCheckSeverity.ERROR,
    Severity.WARNING: dg.AssetCheckSeverity.WARN,
}

CHECKED_ASSETS: Mapping[str, dg.AssetKey] = {
    "no_missing_vectors": EMBEDDINGS,
    "no_stale_vectors": EMBEDDINGS,
    "no_orphan_vectors": EMBEDDINGS,
    "no_duplicate_points": EMBEDDINGS,
    "vectors_are_valid": EMBEDDINGS,
    "no_foreign_points": EMBEDDINGS,
    "collections_match_model": EMBEDDINGS,
    "model_change_is_decided": EMBEDDINGS,
    "no_orphaned_relationships": EDGES,
    "no_dangling_references": EDGES,
    "edges_match_rules": EDGES,
    "similarity_recall_suffices": EDGES,
    "no_dead_letters": ENTITIES,
    "intake_is_current": ENTITIES,
    "provider_answers": EMBEDDINGS,
    "ledger_matches_source": ENTITIES,
    "search_words_match_ledger": ENTITIES,
}
"""By check, the asset that it judges."""

_WITHOUT_CENSUS = frozenset(
    {
        "collections_match_model",
        "model_change_is_decided",
        "no_dead_letters",
        "intake_is_current",
        "provider_answers",
    }
)
"""Checks that read the stores themselves. All others judge by the last census of each partition."""


def check_key(name: str) -> dg.AssetCheckKey:
    """The key of the check `name`."""
    return dg.AssetCheckKey(CHECKED_ASSETS[name], name)


def every_check() -> dg.AssetSelection:
    return dg.AssetSelection.checks(*map(check_key, CHECKS))


def build_checks() -> dg.AssetChecksDefinition:
    """Each check may run by itself. Within one run, the first check that needs a census takes it for all."""

    @dg.multi_asset_check(
        name="consistency_checks",
        specs=[
            dg.AssetCheckSpec(
                name,
                asset=CHECKED_ASSETS[name],
                # In a run that takes the census, too, they judge by that one.
                additional_deps=[] if name in _WITHOUT_CENSUS else [CENSUS],
                description=check.description,
            )
            for name, check in CHECKS.items()
        ],
        can_subset=True,
    )
    def consistency_checks(
        context: dg.AssetCheckExecutionContext, platform: PlatformResource
    ) -> Iterator[dg.AssetCheckResult]:
        opened = platform.get()
        selected = {key.name for key in context.selected_asset_check_keys}
        if selected - _WITHOUT_CENSUS:
            _take_outdated_censuses(context, opened)
        for name in CHECKS:
            if name in selected:
                finding = evaluate(opened, name)
                yield dg.AssetCheckResult(
                    asset_key=CHECKED_ASSETS[name],
                    check_name=name,
                    passed=finding.passed,
                    severity=_SEVERITIES[finding.severity],
                    description=finding.summary,
                    metadata={
                        **finding_metadata(finding),
                        **({} if finding.passed else docs_link(opened.settings, f"how-to/failed-checks#{name}")),
                    },
                )

    return consistency_checks


def _take_outdated_censuses(context: dg.AssetCheckExecutionContext, platform: Platform) -> None:
    """Take the census of each partition that this run has changed, unless the run has taken it itself.

    The last census tells of the time before. A run that found nothing to change costs no census.
    """
    changed: set[str] = set()
    for entry in context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        if event is None or event.partition is None:
            continue
        if event.asset_key == CENSUS:
            changed.discard(event.partition)
            continue
        figures = event.step_materialization_data.materialization.metadata
        if any(figures[name].value for name in CHANGES if name in figures):
            changed.add(event.partition)
    try:
        partitions = [(one.entity_type, shard) for one in ranges_of(sorted(changed)) for shard in one.shards]
        progress, lines = CensusProgress(platform, partitions), ProgressLines(context.log, platform)
        for one_pass in progress.passes:
            retrying(platform.settings)(take_censuses, platform, one_pass)
            progress.add(one_pass)
            lines.say(progress)
    except (StoreUnavailable, StoreRefused, CollectionMismatch) as error:
        # The checks say the same of the store, or name the age of the censuses by which they judge.
        context.log.warning(f"no census of what this run has changed could be taken: {error}")
