"""The Dockerfile: what it copies is there, what it runs exists, and nothing in it is taken as it comes."""

import fnmatch
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from mcp_assets_tests.commands import ROOT, faults_of
from mcp_assets_tests.nats_servers import free_port

DOCKER = ROOT / "deploy/docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction with its words, on one line."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        name, _, words = line.partition(" ")
        yield name, words


def values(name: str) -> list[str]:
    return [words for found, words in instructions() if found == name]


def sent_to_the_builder(path: str) -> bool:
    """The last line of .dockerignore that matches decides, as Docker takes it."""
    sent = True
    for pattern in IGNORED:
        wanted = pattern.removeprefix("!")
        if fnmatch.fnmatch(path, wanted) or path.startswith(f"{wanted}/"):
            sent = pattern.startswith("!")
    return sent


def test_the_base_image_is_named_by_its_full_version() -> None:
    (base,) = [words for words in values("ARG") if words.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[12]\.\d+-slim-\w+", base)
    assert {words.split()[0] for words in values("FROM")} == {"${PYTHON_IMAGE}"}


def test_each_file_that_it_copies_is_there_and_is_sent_to_the_builder() -> None:
    copied = [words.split()[:-1] for words in values("COPY") if not words.startswith("--from=")]
    sources = [source for sources in copied for source in sources]
    assert "pyproject.toml" in sources
    for source in sources:
        found = [str(path.relative_to(ROOT)) for path in ROOT.glob(source)]
        assert found, source
        assert any(sent_to_the_builder(path) for path in found), source


@pytest.mark.parametrize(
    "path", [".env", ".git/config", ".mcp/nats", ".venv/bin/python", "deploy/compose/secrets/tls.key"]
)
def test_no_secret_and_no_state_is_sent_to_the_builder(path: str) -> None:
    assert not sent_to_the_builder(path)


def test_whatever_is_installed_is_pinned_by_its_hash() -> None:
    installs = [words for words in " ".join(values("RUN")).split("&&") if "pip install" in words]
    assert len(installs) == 2
    for words in installs:
        assert "--no-deps" in words
        assert "--require-hashes" in words or "--no-index" in words
    assert not any("apt-get" in words for words in values("RUN"))


def test_it_runs_as_a_user_with_a_number_that_is_not_root() -> None:
    (user,) = values("USER")
    number, group = user.split(":")
    assert min(int(number), int(group)) >= 10_000


def test_its_command_and_its_health_check_exist() -> None:
    (command,) = values("CMD")
    words = json.loads(command)
    assert faults_of(words) == []
    (health,) = values("HEALTHCHECK")
    check = json.loads(health[health.index("[") :])
    script = DOCKER / Path(check[1]).name
    assert script.exists()
    assert f"COPY {script.relative_to(ROOT)} {check[1]}" in DOCKERFILE
    assert check[-1] == words[words.index("--port") + 1] == values("EXPOSE")[0]


def test_its_workspace_names_the_port_of_its_command() -> None:
    assert f"port: {values('EXPOSE')[0]}" in (DOCKER / "workspace.yaml").read_text()
    assert "location_name: mcp_assets" in (DOCKER / "workspace.yaml").read_text()


def healthcheck(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DOCKER / "healthcheck.py", *words], capture_output=True, text=True, check=False
    )


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 500)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        """Nothing to the terminal."""


def test_the_health_check_of_a_webserver_says_what_is_wrong() -> None:
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert healthcheck("http", f"{address}/well").returncode == 0
        ill = healthcheck("http", f"{address}/ill")
        assert (ill.returncode, ill.stderr) == (1, f"{address}/ill: HTTP Error 500: Internal Server Error\n")
    finally:
        server.shutdown()
        server.server_close()


def test_the_health_check_of_a_code_server_that_is_away_fails_in_one_line() -> None:
    away = healthcheck("grpc", str(free_port()))
    assert away.returncode == 1
    assert away.stderr.startswith("port ")
    assert away.stderr.count("\n") == 1


def test_the_health_check_refuses_other_words() -> None:
    refused = healthcheck(*shlex.split("daemon"))
    assert refused.returncode == 1
    assert "give `grpc PORT` or `http ADDRESS`" in refused.stderr
