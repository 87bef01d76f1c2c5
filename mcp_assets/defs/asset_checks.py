"""Asset checks: the outcomes of `sync.consistency.checks` in Dagster. All belong to `consistency_census`."""

from collections.abc import Iterator

import dagster as dg

from mcp_assets.defs.keys import CENSUS
from mcp_assets.defs.metadata import finding_metadata
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.sync.consistency.checks import CHECKS, evaluate
from mcp_assets.sync.consistency.drift import Severity

_SEVERITIES = {
    Severity.ERROR: dg.AssetCheckSeverity.ERROR,
    Severity.WARNING: dg.AssetCheckSeverity.WARN,
}


def build_checks() -> dg.AssetChecksDefinition:
    """Each check may run by itself. Within one run, the first check that needs a census takes it for all."""

    @dg.multi_asset_check(
        name="consistency_checks",
        specs=[dg.AssetCheckSpec(name, asset=CENSUS, description=check.description) for name, check in CHECKS.items()],
        can_subset=True,
    )
    def consistency_checks(
        context: dg.AssetCheckExecutionContext, platform: PlatformResource
    ) -> Iterator[dg.AssetCheckResult]:
        opened = platform.get()
        selected = {key.name for key in context.selected_asset_check_keys}
        for name in CHECKS:
            if name in selected:
                finding = evaluate(opened, name)
                yield dg.AssetCheckResult(
                    asset_key=CENSUS,
                    check_name=name,
                    passed=finding.passed,
                    severity=_SEVERITIES[finding.severity],
                    description=finding.summary,
                    metadata=finding_metadata(finding),
                )

    return consistency_checks
