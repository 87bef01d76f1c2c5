"""Alerts: sensors that post to a webhook when a run has failed, and when a check begins or ceases to fail.

Dead letters and drift are found by checks, so that they reach a person in the same way. The sensors exist only if
MCP_ASSETS_ALERT_WEBHOOK is set. What could not be posted is posted by the next tick, because the cursor moves last.
"""

import json
from collections.abc import Sequence

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from mcp_assets.defs.asset_checks import check_key
from mcp_assets.defs.keys import QUALITY_CHECK
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.settings import Settings
from mcp_assets.stores.webhook import post
from mcp_assets.sync.consistency.checks import CHECKS

_EVENTS_A_TICK = 200
"""Events that one tick reads. Those behind them are read by the next."""

_NAMED = 5
"""Failed runs that one post names: of an outage, many fail for one reason."""

_REASON_CHARACTERS = 300
"""Characters of an error that a post has: its first sentences, without the stack."""


def build_alert_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The two sensors. They are on by default, because to set the address of the webhook means to want them."""

    @dg.sensor(
        name="run_failure_alert_sensor",
        minimum_interval_seconds=settings.alert_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to the webhook in MCP_ASSETS_ALERT_WEBHOOK which runs have failed, and why. Starts no run.",
    )
    def run_failure_alert_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SkipReason:
        return _alert_of_runs(context, platform.get())

    @dg.sensor(
        name="check_alert_sensor",
        minimum_interval_seconds=settings.alert_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to the webhook in MCP_ASSETS_ALERT_WEBHOOK which asset checks begin or cease to fail: "
        + ("errors, and apart from them warnings" if settings.alert_warnings else "errors alone")
        + " (MCP_ASSETS_ALERT_WARNINGS). Starts no run.",
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
    ours = _of_this_location(context, [failure.run_id for failure in failures])
    lines = [
        f"• {run.job_name} {_link(platform, run.run_id)}: {_reason(context.instance, run.run_id)}"
        for run in ours[:_NAMED]
    ]
    if len(ours) > _NAMED:
        lines.append(f"• and {len(ours) - _NAMED} more")
    if lines:
        _post(platform, "\n".join([f"mcp_assets ERROR: {len(ours)} failed run(s)", *lines]))
    context.update_cursor(str(failures[-1].storage_id))
    return dg.SkipReason(f"{len(ours)} failed runs were posted")


def _of_this_location(context: dg.SensorEvaluationContext, run_ids: Sequence[str]) -> list[dg.DagsterRun]:
    """The runs of this code location, in the order of `run_ids`: other projects may share the Dagster instance."""
    runs = {run.run_id: run for run in context.instance.get_runs(dg.RunsFilter(run_ids=list(run_ids)))}
    here = context.code_location_origin
    return [
        run
        for run_id in run_ids
        # A run that was deleted meanwhile is of no interest any more.
        if (run := runs.get(run_id)) is not None
        and (
            here is None
            or run.remote_job_origin is None
            or run.remote_job_origin.repository_origin.code_location_origin.location_name == here.location_name
        )
    ]


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why the run failed: the error of its step, or of the run itself if no step has one."""
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=wanted):
        event = entry.dagster_event
        if event is None:
            continue
        # A run whose process was killed is marked as failed from outside, and has a message alone.
        error = getattr(event.event_specific_data, "error", None)
        while error is not None and error.cause is not None:
            error = error.cause
        reason = error.message if error is not None else event.message
        if reason:
            return " ".join(reason.split())[:_REASON_CHARACTERS]
    return "see its log"


_WORDS = {dg.AssetCheckSeverity.ERROR: "error", dg.AssetCheckSeverity.WARN: "warning"}


def _alert_of_checks(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    # By check, the word of the severity with which it fails, as it was posted last.
    known: dict[str, str] = json.loads(context.cursor) if context.cursor is not None else {}
    last = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(
        [*(check_key(name) for name in CHECKS), QUALITY_CHECK]
    )
    evaluations = [evaluation for record in last.values() if (evaluation := _evaluation(record)) is not None]
    failing = dict(known)
    lines: dict[str, list[str]] = {"error": [], "warning": [], "mended": []}
    for one in evaluations:
        word = None if one.passed else _WORDS[one.severity]
        if word == "warning" and not platform.settings.alert_warnings:
            # A check that was an error and only warns now is no error any more.
            word = None
        if word == known.get(one.check_name):
            continue
        if word is None:
            lines["mended"].append(one.check_name)
            del failing[one.check_name]
        else:
            lines[word].append(f"{one.check_name}: {one.description}")
            failing[one.check_name] = word
    if not any(lines.values()):
        return dg.SkipReason(f"{len(known)} checks fail, as before")
    _post(
        platform,
        "\n".join(
            [
                *_paragraph("ERROR", "check fails", "checks fail", lines["error"]),
                *_paragraph("warning", "check warns", "checks warn", lines["warning"]),
                *_paragraph("mended", "check fails no more", "checks fail no more", lines["mended"]),
            ]
        ),
    )
    context.update_cursor(json.dumps(failing))
    return dg.SkipReason(
        f"posted: {len(lines['error'])} errors and {len(lines['warning'])} warnings that are new, "
        f"{len(lines['mended'])} checks that fail no more"
    )


def _paragraph(kind: str, one: str, many: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [
        f"mcp_assets {kind}: {len(lines)} {one if len(lines) == 1 else many}",
        *(f"• {line}" for line in sorted(lines)),
    ]


def _evaluation(record: AssetCheckExecutionRecord) -> dg.AssetCheckEvaluation | None:
    """The outcome of the last execution of a check; None while it is under way, or if it ended without an outcome."""
    event = record.event.dagster_event if record.event is not None else None
    if event is None or event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data


def _link(platform: Platform, run_id: str) -> str:
    """The run by its short id, with a link if the address of the UI is known."""
    base = platform.settings.dagster_url
    return f"<{base.rstrip('/')}/runs/{run_id}|{run_id[:8]}>" if base else run_id[:8]


def _post(platform: Platform, text: str) -> None:
    url = platform.settings.alert_webhook
    assert url is not None  # noqa: S101  (the sensors exist only with it)
    retrying(platform.settings)(post, url.get_secret_value(), text)
