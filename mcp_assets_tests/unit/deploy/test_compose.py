"""deploy/compose: each file, secret, command and path in it exists, and no container may do more than it needs."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_assets.settings import Settings, variable_of
from mcp_assets_tests.commands import ROOT, faults_of

COMPOSE = ROOT / "deploy/compose"
FILE: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
PROVIDER: dict[str, Any] = yaml.safe_load((COMPOSE / "provider.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = [name for name, service in SERVICES.items() if "MCP_ASSETS_IMAGE" in service["image"]]
EXAMPLE = dict(
    line.split("=", 1) for line in (COMPOSE / "env.example").read_text().splitlines() if line and line[0] != "#"
)

each_service = pytest.mark.parametrize("name", SERVICES)


def source_of(use: str | dict[str, str]) -> str:
    """The name of a secret or config that a service uses, in the short or the long form."""
    return use if isinstance(use, str) else use["source"]


@each_service
def test_each_image_has_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    if name in OURS:
        image = EXAMPLE["MCP_ASSETS_IMAGE"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", image), image


@each_service
def test_each_container_is_read_only_without_capabilities_and_with_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert "max-size" in service["logging"]["options"]


@each_service
def test_each_service_has_a_health_check_and_one_that_ends_by_itself_has_none(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["healthcheck"] == {"disable": True}
    elif name == "code":
        assert "healthcheck" not in service
        assert "\nHEALTHCHECK" in (ROOT / "deploy/docker/Dockerfile").read_text()
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@each_service
def test_what_a_service_waits_for_and_joins_is_there(name: str) -> None:
    service = SERVICES[name]
    for other, wait in service.get("depends_on", {}).items():
        ends = SERVICES[other]["healthcheck"] == {"disable": True} if "healthcheck" in SERVICES[other] else False
        assert wait["condition"] == ("service_completed_successfully" if ends else "service_healthy")
    assert set(service["networks"]) <= FILE["networks"].keys()
    volumes = {volume.partition(":")[0] for volume in service.get("volumes", ())}
    assert volumes <= FILE["volumes"].keys()


def test_only_the_proxy_is_reached_from_outside_and_it_reaches_no_store() -> None:
    assert {name: ports for name, service in SERVICES.items() if (ports := service.get("ports"))} == {
        "metrics": ["127.0.0.1:9464:9464"],
        "proxy": ["${MCP_ASSETS_BIND:-127.0.0.1}:${MCP_ASSETS_HTTPS_PORT:-443}:8443"],
    }
    assert "stores" not in SERVICES["proxy"]["networks"]
    assert FILE["networks"]["stores"] == FILE["networks"]["web"] == {"internal": True}
    for store in ("postgres", "nats", "qdrant"):
        assert SERVICES[store]["networks"] == ["stores"]


def test_the_webserver_for_everybody_is_read_only_and_the_daemon_is_one() -> None:
    assert "--read-only" in SERVICES["webserver"]["command"]
    assert "--read-only" not in SERVICES["webserver-admin"]["command"]
    # Compose refuses to scale a service that has a name of its own.
    assert "container_name" in SERVICES["daemon"]


@pytest.mark.parametrize("name", OURS)
def test_each_command_and_health_check_of_ours_exists(name: str) -> None:
    service = SERVICES[name]
    command = service.get("command")
    if command is not None:
        parts = [part.split() for part in command[2].split(" && ")] if command[:2] == ["sh", "-ec"] else [command]
        assert [fault for part in parts for fault in faults_of(part)] == []
    check = service.get("healthcheck", {}).get("test")
    if check is not None:
        assert faults_of(check[1:]) == []
        if check[1] == "python":
            assert (ROOT / "deploy/docker" / Path(check[2]).name).exists()


def test_each_setting_is_one_and_each_secret_setting_is_a_file_that_is_mounted() -> None:
    known = {variable_of(field) for field in Settings.model_fields}
    services = {name: SERVICES[name] for name in OURS} | {
        f"{name}, provider": s for name, s in PROVIDER["services"].items()
    }
    for name, service in services.items():
        for variable, value in service["environment"].items():
            if variable.endswith("_FILE") and variable not in known:
                assert variable.removesuffix("_FILE") in known, (name, variable)
                assert value.removeprefix("/run/secrets/") in map(source_of, service["secrets"]), (name, variable)
            else:
                assert variable in known, (name, variable)
                assert "secret" not in str(value)


def test_each_secret_and_each_configuration_is_used_and_has_a_file() -> None:
    for kind in ("secrets", "configs"):
        used = {source_of(use) for service in SERVICES.values() for use in service.get(kind, ())}
        assert used == FILE[kind].keys()
    assert [file["file"] for file in FILE["configs"].values() if not (COMPOSE / file["file"]).exists()] == []


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A copy of the folder in which `prepare` has run."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: `prepare` makes passwords and a certificate with it")
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE, folder)
    prepare(folder)
    return folder


def prepare(folder: Path) -> str:
    return subprocess.run([folder / "prepare"], capture_output=True, text=True, check=True).stdout


def test_prepare_makes_every_secret_once(prepared: Path) -> None:
    secrets = prepared / "secrets"
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert {Path(secret["file"]).name for secret in FILE["secrets"].values()} <= before.keys()
    assert (prepared / ".env").read_text() == (COMPOSE / "env.example").read_text()
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in secrets.iterdir()} == {0o444}
    # The password and the address that holds it belong together.
    assert before["postgres_mcp_assets_password"] in before["database_url"]
    assert before["qdrant_api_key"] in before["qdrant.yaml"]

    assert prepare(prepared) == ""
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


def test_prepare_says_the_passwords_of_people_and_keeps_their_hashes_alone(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    shutil.copytree(COMPOSE, tmp_path / "compose")
    said = prepare(tmp_path / "compose")
    logins = re.findall(r"^login: user (\w+), password (\w+)$", said, re.MULTILINE)
    assert [user for user, _ in logins] == ["reader", "admin"]
    kept = "".join(path.read_text() for path in (tmp_path / "compose/secrets").iterdir())
    assert not any(password in kept for _, password in logins)


def test_git_ignores_what_prepare_makes(prepared: Path) -> None:
    ignored = (COMPOSE / ".gitignore").read_text().split()
    made = {path.name for path in prepared.iterdir()} - {path.name for path in COMPOSE.iterdir()}
    assert {name.strip("/") for name in ignored} >= made


def compose_command() -> list[str] | None:
    """`docker compose`, if this machine has it."""
    if shutil.which("docker") is not None:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return None


def test_docker_compose_accepts_the_files(prepared: Path) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("this machine has no docker compose: the other tests of this file hold what matters")
    # Beside the folder `deploy`, because the file names its neighbours.
    shutil.copytree(ROOT / "deploy/proxy", prepared.parent / "proxy")
    for files in ("compose.yaml", "compose.yaml:provider.yaml"):
        done = subprocess.run(
            [*command, "config", "--format", "json"],
            cwd=prepared,
            env=os.environ | {"COMPOSE_FILE": files},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["services"].keys() == SERVICES.keys()
