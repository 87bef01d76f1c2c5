"""Alerts: sensors that post to a webhook when a run has failed, and when a check begins or ceases to fail.

Dead letters and drift are found by checks, so that they reach a person in the same way. The sensors exist only if
MCP_ASSETS_ALERT_WEBHOOK is set. What could not be posted is posted by the next tick, because the cursor moves last.
"""

import json

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from mcp_assets.defs.keys import CENSUS
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.webhook import post
from mcp_assets.sync.consistency.checks import CHECKS

_EVERY_S = 15
"""Seconds between two ticks: a person notices no difference, and each costs a query."""

_EVENTS_A_TICK = 200
"""Events that one tick reads. Those behind them are read by the next."""

_NAMED = 5
"""Failed runs that one post names: of an outage, many fail for one reason."""

_REASON_CHARACTERS = 300
"""Characters of an error that a post has: its first sentences, without the stack."""


def build_alert_sensors() -> list[dg.SensorDefinition]:
    """The two sensors. They are on by default, because to set the address of the webhook means to want them."""

    @dg.sensor(
        name="run_failure_alert_sensor",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to the webhook in MCP_ASSETS_ALERT_WEBHOOK which runs have failed, and why.",
    )
    def run_failure_alert_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
        return _alert_of_runs(context, platform.get())

    @dg.sensor(
        name="check_alert_sensor",
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to the webhook in MCP_ASSETS_ALERT_WEBHOOK which asset checks begin or cease to fail.",
    )
    def check_alert_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
        return _alert_of_checks(context, platform.get())

    return [run_failure_alert_sensor, check_alert_sensor]


def _alert_of_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    if context.cursor is None:
        # What failed before the webhook was set is known, or of no interest any more.
        last = context.instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        context.update_cursor(str(last[0].storage_id if last else 0))
        return dg.SkipReason("from now on, failed runs are posted")
    failures = context.instance.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(
            event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=int(context.cursor)
        ),
        limit=_EVENTS_A_TICK,
        ascending=True,
    ).records
    if not failures:
        return dg.SkipReason("no run has failed")
    lines = [
        f"• {failure.event_log_entry.job_name or 'a run'} {_run(platform, failure.run_id)}: "
        f"{_reason(context.instance, failure.run_id)}"
        for failure in failures[:_NAMED]
    ]
    if len(failures) > _NAMED:
        lines.append(f"• and {len(failures) - _NAMED} more")
    _post(platform, "\n".join([f"mcp_assets: {len(failures)} failed run(s)", *lines]))
    context.update_cursor(str(failures[-1].storage_id))
    return dg.SkipReason(f"{len(failures)} failed runs were posted")


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why the run failed: the error of its step, or of the run itself if no step has one."""
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=wanted):
        event = entry.dagster_event
        if event is None:
            continue
        error = event.step_failure_data.error if event.is_step_failure else event.job_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        reason = error.message if error is not None else event.message
        if reason:
            return " ".join(reason.split())[:_REASON_CHARACTERS]
    return "see its log"


def _alert_of_checks(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    known = set(json.loads(context.cursor)) if context.cursor is not None else set()
    last = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(CENSUS, name) for name in CHECKS]
    )
    evaluations = [evaluation for record in last.values() if (evaluation := _evaluation(record)) is not None]
    began = [one for one in evaluations if not one.passed and one.check_name not in known]
    ceased = [one for one in evaluations if one.passed and one.check_name in known]
    if not began and not ceased:
        return dg.SkipReason(f"{len(known)} checks fail, as before")
    lines = [f"• {one.check_name} fails ({one.severity.value.lower()}): {one.description}" for one in began]
    lines += [f"• {one.check_name} passes again" for one in ceased]
    _post(platform, "\n".join(["mcp_assets: checks", *lines]))
    failing = (known | {one.check_name for one in began}) - {one.check_name for one in ceased}
    context.update_cursor(json.dumps(sorted(failing)))
    return dg.SkipReason(f"{len(began)} checks began to fail, {len(ceased)} pass again")


def _evaluation(record: AssetCheckExecutionRecord) -> dg.AssetCheckEvaluation | None:
    """The outcome of the last execution of a check; None while it is under way, or if it ended without an outcome."""
    event = record.event.dagster_event if record.event is not None else None
    if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data


def _run(platform: Platform, run_id: str) -> str:
    """The run by its short id, with a link if the address of the UI is known."""
    base = platform.settings.dagster_url
    return f"<{base.rstrip('/')}/runs/{run_id}|{run_id[:8]}>" if base else run_id[:8]


def _post(platform: Platform, text: str) -> None:
    url = platform.settings.alert_webhook
    assert url is not None  # noqa: S101  (the sensors exist only with it)
    retrying(platform.settings)(post, url.get_secret_value(), text)
