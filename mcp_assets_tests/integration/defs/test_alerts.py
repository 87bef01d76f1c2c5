"""Alerts: failed runs, and checks that begin or cease to fail, are posted once to the webhook, and after its outage."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from pydantic import SecretStr

from mcp_assets.definitions import build_defs
from mcp_assets.defs.asset_checks import check_key
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets_tests.integration.defs.conftest import CODE_LOCATION, resource_of


@dataclass
class Webhook:
    """An HTTP server that answers with `status` and keeps what it was sent."""

    url: str = ""
    status: int = 200
    texts: list[str] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if made.status == 200:
                made.texts.append(json.loads(body)["text"])
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/services/hunter2"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


Tick = Callable[[], str]


@pytest.fixture
def platform(make_platform: Callable[..., Platform], webhook: Webhook) -> Platform:
    return make_platform(alert_webhook=SecretStr(webhook.url), dagster_url="https://dagster.example.com/")


def ticks_of(name: str, platform: Platform, instance: dg.DagsterInstance) -> Tick:
    """Evaluates the sensor `name` once more. As in the daemon, the cursor moves only if no error is raised."""
    definitions = build_defs(platform.settings, resource_overrides={"platform": resource_of(platform)})
    sensor = definitions.resolve_sensor_def(name)
    cursor: list[str | None] = [None]

    def tick() -> str:
        with dg.build_sensor_context(
            instance=instance, cursor=cursor[0], definitions=definitions, resources={"platform": resource_of(platform)}
        ) as context:
            context._code_location_origin = CODE_LOCATION  # as the code server of this project sets it
            done = sensor.evaluate_tick(context)
            cursor[0] = context.cursor
            return done.skip_message or ""

    return tick


@dg.op
def fails() -> None:
    raise RuntimeError("it could not be embedded") from ValueError("the quota of this account is used up")


@dg.job
def failing() -> None:
    fails()


def judge(
    instance: dg.DagsterInstance,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    name: str = "no_missing_vectors",
) -> None:
    """An evaluation of a check in the event log."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=check_key(name).asset_key,
            check_name=name,
            passed=passed,
            metadata={},
            severity=severity,
            description="3 lack a vector",
        )
    )


def test_there_are_no_alerts_without_a_webhook(make_platform: Callable[..., Platform]) -> None:
    definitions = build_defs(make_platform().settings)
    assert not [sensor.name for sensor in definitions.sensors or () if "alert" in sensor.name]


def test_a_failed_run_is_posted_once_with_its_cause_and_a_link(platform: Platform, webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        failing.execute_in_process(instance=instance, raise_on_error=False)
        tick = ticks_of("run_failure_alert_sensor", platform, instance)
        tick()
        assert webhook.texts == [], "what failed before the sensor was on is not posted"

        run_id = failing.execute_in_process(instance=instance, raise_on_error=False).run_id
        assert tick() == "1 failed runs were posted"
        assert tick() == "no run has failed"

    (text,) = webhook.texts
    assert "failing" in text
    assert f"<https://dagster.example.com/runs/{run_id}|{run_id[:8]}>" in text
    assert "the quota of this account is used up" in text


def test_a_run_whose_process_was_killed_is_posted_although_its_failure_has_no_error(
    platform: Platform, webhook: Webhook
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("run_failure_alert_sensor", platform, instance)
        tick()
        # As Dagster's run monitoring does it.
        instance.report_run_failed(instance.create_run_for_job(failing))
        assert tick() == "1 failed runs were posted"
    (text,) = webhook.texts
    assert "marked as failed from outside" in text


def test_failed_runs_of_other_projects_on_the_instance_are_not_posted(platform: Platform, webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("run_failure_alert_sensor", platform, instance)
        tick()
        failed = []
        for name in ("another_project", CODE_LOCATION.location_name):
            location = InProcessCodeLocationOrigin(CODE_LOCATION.loadable_target_origin, location_name=name)
            origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("failing")
            failed.append(instance.create_run_for_job(failing, remote_job_origin=origin))
            instance.report_run_failed(failed[-1])
        assert tick() == "1 failed runs were posted"
    (text,) = webhook.texts
    assert [run.run_id[:8] in text for run in failed] == [False, True]


def test_an_outage_of_the_webhook_loses_no_alert_and_its_address_is_in_no_error(
    platform: Platform, webhook: Webhook
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("run_failure_alert_sensor", platform, instance)
        tick()
        failing.execute_in_process(instance=instance, raise_on_error=False)
        for status, kind in ((503, StoreUnavailable), (404, StoreRefused)):
            webhook.status = status
            with pytest.raises(Exception, match=str(status)) as caught:
                tick()
            errors = [caught.value, caught.value.__cause__]
            assert any(isinstance(error, kind) for error in errors)
            assert not any("hunter2" in str(error) for error in errors)
        webhook.status = 200
        assert tick() == "1 failed runs were posted"
    assert len(webhook.texts) == 1


def test_a_check_is_posted_when_it_begins_to_fail_and_when_it_passes_again(
    platform: Platform, webhook: Webhook
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("check_alert_sensor", platform, instance)
        judge(instance, passed=True)
        assert tick() == "0 checks fail, as before"
        judge(instance, passed=False)
        assert tick().startswith("posted: 1 errors and 0 warnings")
        judge(instance, passed=False)
        assert tick() == "1 checks fail, as before"
        judge(instance, passed=True)
        assert tick().startswith("posted: 0 errors and 0 warnings")
        assert tick() == "0 checks fail, as before"
    assert webhook.texts == [
        "mcp_assets ERROR: 1 check fails\n• no_missing_vectors: 3 lack a vector",
        "mcp_assets mended: 1 check fails no more\n• no_missing_vectors",
    ]


def test_a_warning_is_posted_as_one_and_again_when_it_becomes_an_error(platform: Platform, webhook: Webhook) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("check_alert_sensor", platform, instance)
        judge(instance, passed=False, severity=dg.AssetCheckSeverity.WARN, name="no_dead_letters")
        judge(instance, passed=False, name="no_missing_vectors")
        tick()
        judge(instance, passed=False, name="no_dead_letters")
        tick()
        judge(instance, passed=False, severity=dg.AssetCheckSeverity.WARN, name="no_dead_letters")
        tick()
    assert webhook.texts == [
        "mcp_assets ERROR: 1 check fails\n• no_missing_vectors: 3 lack a vector\n"
        "mcp_assets warning: 1 check warns\n• no_dead_letters: 3 lack a vector",
        "mcp_assets ERROR: 1 check fails\n• no_dead_letters: 3 lack a vector",
        "mcp_assets warning: 1 check warns\n• no_dead_letters: 3 lack a vector",
    ]


def test_warnings_are_not_posted_where_the_settings_want_errors_alone(
    make_platform: Callable[..., Platform], webhook: Webhook
) -> None:
    platform = make_platform(alert_webhook=SecretStr(webhook.url), alert_warnings=False)
    with dg.DagsterInstance.ephemeral() as instance:
        tick = ticks_of("check_alert_sensor", platform, instance)
        judge(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
        assert tick() == "0 checks fail, as before"
        judge(instance, passed=False)
        tick()
        judge(instance, passed=False, severity=dg.AssetCheckSeverity.WARN)
        tick()
    assert webhook.texts == [
        "mcp_assets ERROR: 1 check fails\n• no_missing_vectors: 3 lack a vector",
        "mcp_assets mended: 1 check fails no more\n• no_missing_vectors",
    ]
