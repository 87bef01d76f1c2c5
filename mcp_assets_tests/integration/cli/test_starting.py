"""What demo, dev and env refuse or leave out, before anything is started."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_assets_tests.command import Place, bare_environment


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, bare_environment() | {"MCP_ASSETS_STATE_DIR": str(tmp_path / ".mcp")})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("command", [["demo", "--once"], ["dev"]])
def test_a_taken_port_is_said_before_anything_is_started(place: Place, taken: int, command: list[str]) -> None:
    done = place.run(*command, "--port", str(taken))
    assert done.code == 1
    assert f"port {taken} cannot be used" in done.stderr
    assert "--port" in done.stderr
    assert list(place.folder.iterdir()) == []


@pytest.mark.parametrize(
    "given",
    [
        {"DATABASE_URL": "postgresql://me@db.example.com/mine"},
        {"MCP_ASSETS_SOURCE_DATABASE_URL": "postgresql://me@db.example.com/mine"},
        {"NATS_URL": "nats://nats.example.com:4222"},
        {"QDRANT_URL": "https://qdrant.example.com"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_the_demo_writes_its_sample_into_no_store_of_the_site(place: Place, given: dict[str, str]) -> None:
    done = place.run("demo", "--once", given=given)
    assert done.code == 2
    assert next(iter(given)) in done.stderr
    assert list(place.folder.iterdir()) == []


@pytest.mark.parametrize("mapping", ["preset: cards\n", "types:\n  task:\n    source: {table: tracker.issues}\n"])
def test_the_demo_writes_its_sample_into_no_table_of_the_site(place: Place, mapping: str) -> None:
    (place.folder / "mcp_assets.yaml").write_text(mapping)
    done = place.run("demo", "--once")
    assert done.code == 2
    assert "another folder" in done.stderr


def test_the_demo_takes_the_examples_of_init_for_what_they_are(place: Place, taken: int) -> None:
    place.run("init")
    done = place.run("demo", "--once", "--port", str(taken))
    assert f"port {taken} cannot be used" in done.stderr


def test_env_prints_what_dagsters_commands_need_and_no_secret(place: Place) -> None:
    place.run("init")
    given = {"MCP_ASSETS_ALERT_WEBHOOK": "https://hooks.example.com/secret", "OPENAI_API_KEY": "sk-secret"}
    printed = place.run("env", given=given).stdout
    assert f"export DAGSTER_HOME={place.folder}\n" in printed
    assert f"export MCP_ASSETS_STATE_DIR={place.folder / '.mcp'}\n" in printed
    assert "secret" not in printed
    assert "*" not in printed


def test_env_keeps_this_machine_away_from_a_proxy(place: Place) -> None:
    printed = place.run("env", given={"HTTPS_PROXY": "http://proxy.example.com:3128", "NO_PROXY": "example.org"}).stdout
    assert "export NO_PROXY=example.org,localhost,127.0.0.1,::1\n" in printed
