"""deploy/kubernetes: what the values and manifests name exists, and dagster-k8s takes the configuration of a run."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from dagster_postgres.utils import get_conn_string

from dagster_warm_launcher.postgres_storage import WarmPostgresStorage
from mcp_assets.settings import Settings, variable_of
from mcp_assets_tests.commands import ROOT, faults_of

KUBERNETES = ROOT / "deploy/kubernetes"
VALUES_FILE = KUBERNETES / "values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(VALUES_FILE.read_text())
CODE: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
LAUNCHER: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
WEBSERVER: dict[str, Any] = VALUES["dagsterWebserver"]
DAEMON: dict[str, Any] = VALUES["dagsterDaemon"]

CHART = os.environ.get("MCP_ASSETS_TESTS_DAGSTER_CHART")
"""Folder of Dagster's Helm chart, if somebody has it: no registry of packages does."""


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


SETTINGS: dict[str, Any] = manifests("settings.yaml")[0]
SECRETS = {secret["metadata"]["name"]: secret["stringData"] for secret in manifests("secret.example.yaml")}
MIGRATE: dict[str, Any] = manifests("migrate.yaml")[0]["spec"]["template"]["spec"]
PROXY: dict[str, Any] = manifests("proxy.yaml")[0]["spec"]["template"]["spec"]


def refused_by_the_launcher(config: Mapping[str, Any]) -> list[str]:
    """What dagster-k8s does not take of the configuration of its run launcher."""
    launcher: Any = K8sRunLauncher
    checked = process_config(resolve_to_config_type(launcher.config_type()), config)
    return [error.message for error in checked.errors or ()]


def probes(values: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each probe below `values`, by its path."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key.endswith("Probe"):
                yield f"{path}{key}", value
            yield from probes(value, f"{path}{key}.")
    elif isinstance(values, list):
        for value in values:
            yield from probes(value, path)


def test_the_chart_is_of_the_dagster_that_is_installed() -> None:
    version = importlib.metadata.version("dagster")
    assert f"version {version}:" in VALUES_FILE.read_text()
    assert f"--version {version} " in VALUES_FILE.read_text()


def test_each_command_exists() -> None:
    assert (
        faults_of(["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", str(CODE["port"]), *CODE["dagsterApiGrpcArgs"]])
        == []
    )
    found = dict(probes(VALUES))
    assert len(found) >= 7
    for path, probe in found.items():
        if "exec" in probe:
            words = probe["exec"]["command"]
            assert faults_of(words) == [], path
            if words[0] == "python":
                assert (ROOT / "deploy/docker" / Path(words[1]).name).exists(), path
                assert words[-1] == str(CODE["port"])
        elif "httpGet" in probe:
            assert probe["httpGet"]["port"] == WEBSERVER["service"]["port"]
    shell, flags, script = MIGRATE["containers"][0]["command"]
    assert (shell, flags) == ("sh", "-ec")
    assert [fault for part in script.split(" && ") for fault in faults_of(part.split())] == []


def test_the_readiness_probe_of_the_code_server_has_no_command_which_the_template_would_spoil() -> None:
    assert CODE["readinessProbe"]["enabled"] is True
    assert "exec" not in CODE["readinessProbe"]


def test_dagster_k8s_takes_what_the_chart_makes_of_the_run_launcher() -> None:
    config = {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): value for key, value in LAUNCHER.items()}
    config |= {
        "env_config_maps": [one["name"] for one in config["env_config_maps"]],
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
    }
    run = config.pop("run_k8s_config")
    config["run_k8s_config"] = {
        "pod_spec_config": run["podSpecConfig"],
        "job_spec_config": run["jobSpecConfig"],
    }
    assert run.keys() == {"podSpecConfig", "jobSpecConfig"}
    assert refused_by_the_launcher(config) == []


def test_a_run_has_the_settings_and_secrets_of_the_code_server_and_resources_of_its_own() -> None:
    for key in ("envConfigMaps", "volumes", "volumeMounts", "securityContext"):
        assert LAUNCHER[key] == CODE[key]
    assert LAUNCHER["runK8sConfig"]["podSpecConfig"]["securityContext"] == CODE["podSecurityContext"]
    # If it were enabled, the code server's resources would take the place of the launcher's.
    assert CODE["includeConfigInLaunchedRuns"] == {"enabled": False}
    assert LAUNCHER["resources"]["limits"]["memory"] > CODE["resources"]["limits"]["memory"]


@pytest.mark.parametrize("part", [CODE, DAEMON, WEBSERVER], ids=["code", "daemon", "webserver"])
def test_each_pod_is_without_root_and_with_limits(part: dict[str, Any]) -> None:
    assert part["podSecurityContext"]["runAsNonRoot"] is True
    assert part["securityContext"]["readOnlyRootFilesystem"] is True
    assert part["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert part["resources"].keys() == {"requests", "limits"}
    assert part["image"] == CODE["image"]
    assert f"{CODE['image']['repository']}:{CODE['image']['tag']}" == MIGRATE["containers"][0]["image"]


def test_each_setting_is_one_and_each_secret_is_mounted_where_it_says() -> None:
    known = {variable_of(field) for field in Settings.model_fields} | {"DAGSTER_DISABLE_TELEMETRY"}
    mounts = {mount["name"]: mount["mountPath"] for mount in CODE["volumeMounts"]}
    (secret,) = [volume for volume in CODE["volumes"] if "secret" in volume]
    keys = SECRETS[secret["secret"]["secretName"]]
    for variable, value in SETTINGS["data"].items():
        if variable.endswith("_FILE") and variable not in known:
            assert variable.removesuffix("_FILE") in known, variable
            folder, _, key = value.rpartition("/")
            assert folder == mounts[secret["name"]]
            assert key in keys, variable
        else:
            assert variable in known, variable
    assert SETTINGS["data"]["MCP_ASSETS_STATE_DIR"] == mounts["state"]
    assert CODE["envConfigMaps"] == [{"name": SETTINGS["metadata"]["name"]}]
    assert MIGRATE["containers"][0]["envFrom"] == [{"configMapRef": {"name": SETTINGS["metadata"]["name"]}}]
    assert MIGRATE["containers"][0]["volumeMounts"] == CODE["volumeMounts"]
    assert "postgresql-password" in SECRETS[VALUES["global"]["postgresqlSecretName"]]


def test_dagster_has_its_tables_where_every_other_deployment_has_them() -> None:
    chart = VALUES["postgresql"]
    url = sqlalchemy.make_url(
        get_conn_string(
            chart["postgresqlUsername"],
            "PASSWORD",
            chart["postgresqlHost"],
            chart["postgresqlDatabase"],
            "5432",
            chart["postgresqlParams"],
            chart["postgresqlScheme"],
        )
    )
    fields: Any = WarmPostgresStorage.config_type()
    schema = fields["schema"].default_value
    assert url.query["options"] == f"-csearch_path={schema}"
    assert url.get_dialect().driver == "psycopg2"
    assert f"@{chart['postgresqlHost']}:5432/{chart['postgresqlDatabase']}" in SECRETS["mcp-assets"]["database_url"]


def test_the_proxy_has_its_rules_its_secrets_and_the_names_of_the_webservers() -> None:
    (container,) = PROXY["containers"]
    template = (ROOT / "deploy/proxy/default.conf.template").read_text()
    given = {variable["name"]: variable["value"] for variable in container["env"]}
    assert set(re.findall(r"\$\{(\w+)\}", template)) == {name for name in given if name.startswith("PROXY_")}
    for mount in container["volumeMounts"]:
        if mount["name"] == "rules":
            assert (ROOT / "deploy/proxy" / mount["subPath"]).exists()
    files = {f"/run/secrets/{key}" for name in ("mcp-assets-logins", "mcp-assets-tls") for key in SECRETS[name]}
    assert set(re.findall(r"/run/secrets/[\w.]+", template)) == files
    # The chart names the Services by the release, `dagster`, and this.
    name, port = f"dagster-{WEBSERVER['nameOverride']}", WEBSERVER["service"]["port"]
    assert WEBSERVER["enableReadOnly"] is True
    assert given["PROXY_ADMINS_UPSTREAM"].startswith(f"http://{name}.mcp-assets.svc")
    assert given["PROXY_READERS_UPSTREAM"].startswith(f"http://{name}-read-only.mcp-assets.svc")
    assert given["PROXY_ADMINS_UPSTREAM"].endswith(f":{port}")


def test_nothing_reaches_a_server_without_a_login_but_what_needs_it() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests("network-policies.yaml")}
    assert policies["refuse-all"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    (code,) = policies["code-server"]["ingress"]
    assert code["ports"] == [{"protocol": "TCP", "port": CODE["port"]}]
    assert policies["code-server"]["podSelector"]["matchLabels"]["deployment"] == CODE["name"]
    (webservers,) = policies["webservers"]["ingress"]
    assert webservers["ports"] == [{"protocol": "TCP", "port": WEBSERVER["service"]["port"]}]
    (expression,) = policies["webservers"]["podSelector"]["matchExpressions"]
    # The chart labels the pods by the release, `dagster`, and the name in the values.
    name = f"dagster-{WEBSERVER['nameOverride']}"
    assert expression == {"key": "component", "operator": "In", "values": [name, f"{name}-read-only"]}
    proxy = manifests("proxy.yaml")[0]["spec"]["selector"]["matchLabels"]
    assert webservers["from"] == [{"podSelector": {"matchLabels": proxy}}]


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    """What Helm makes of chart and values."""
    helm = shutil.which("helm")
    if helm is None or CHART is None:
        pytest.skip(
            "needs helm on the path, and MCP_ASSETS_TESTS_DAGSTER_CHART, the folder of Dagster's Helm chart: "
            "the other tests of this file hold what can be held without them"
        )
    for command in ("lint --strict", "template dagster"):
        done = subprocess.run(
            [helm, *command.split(), CHART, "--namespace", "mcp-assets", "--values", VALUES_FILE],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest is not None]


def test_the_chart_makes_what_the_other_files_name(rendered: list[dict[str, Any]]) -> None:
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in rendered}
    assert ("Service", "dagster-webserver") in by_name
    assert ("Service", "dagster-webserver-read-only") in by_name
    assert by_name["Deployment", "dagster-daemon"]["spec"]["replicas"] == 1
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests("network-policies.yaml")}
    components = {
        one["spec"]["template"]["metadata"]["labels"]["component"] for one in rendered if one["kind"] == "Deployment"
    }
    named = {
        value
        for spec in policies.values()
        for expression in spec["podSelector"].get("matchExpressions", ())
        for value in expression["values"]
    }
    assert named == {"dagster-webserver", "dagster-webserver-read-only"}
    assert named | {"dagster-daemon", "user-deployments"} == components
    for one in rendered:
        if one["kind"] == "Deployment":
            for container in one["spec"]["template"]["spec"]["containers"]:
                words = container.get("args") or container["command"][2].split()
                assert faults_of(words) == []


def test_the_instance_that_the_chart_makes_has_the_launcher_and_the_storage(rendered: list[dict[str, Any]]) -> None:
    (text,) = [one["data"]["dagster.yaml"] for one in rendered if "dagster.yaml" in (one.get("data") or {})]
    instance = yaml.safe_load(text)
    assert (instance["run_launcher"]["module"], instance["run_launcher"]["class"]) == ("dagster_k8s", "K8sRunLauncher")
    launcher = instance["run_launcher"]["config"]
    assert refused_by_the_launcher(launcher) == []
    for part in ("run_storage", "event_log_storage", "schedule_storage"):
        assert instance[part]["config"]["postgres_db"]["scheme"] == VALUES["postgresql"]["postgresqlScheme"]
