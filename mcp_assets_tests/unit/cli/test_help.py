"""The help: it appears at once, because it loads nothing that it does not need, and has an example for each command."""

import subprocess
import sys

import pytest
import typer

from mcp_assets.cli.app import app
from mcp_assets.graph import EdgeType

HEAVY = ("dagster", "openai", "qdrant_client", "sqlalchemy", "pandas", "numpy", "psycopg", "nats", "igraph")

COMMANDS = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
LEAVES = {
    f"{name} {below}".strip(): command
    for name, group in COMMANDS.items()
    for below, command in (getattr(group, "commands", None) or {"": group}).items()
}


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mcp_assets.cli", *words], capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["dlq", "list", "-h"], ["--version"]])
def test_the_help_loads_no_store_no_provider_and_no_dagster(words: list[str]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['mcp-assets', *{words!r}]\n"
        "from mcp_assets.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_the_version_is_that_of_the_package() -> None:
    done = run("--version")
    assert done.stdout.startswith("mcp-assets 0.")


@pytest.mark.parametrize("name", LEAVES)
def test_each_command_has_a_sentence_and_an_example(name: str) -> None:
    command = LEAVES[name]
    assert command.help
    assert command.epilog is not None
    assert command.epilog.startswith("Example: ")
    assert f"mcp-assets {name}" in command.epilog


def test_commands_stand_in_groups_by_what_a_person_wants_to_do() -> None:
    panels = {name: command.rich_help_panel for name, command in COMMANDS.items()}
    assert set(panels.values()) == {"Start", "Work", "Look", "Mend"}


def test_a_type_of_edge_that_does_not_exist_is_refused_with_all_that_do() -> None:
    done = run("related", "task:1", "--type", "friendship")
    assert done.returncode == 2
    words = "".join(done.stderr.replace("│", " ").split())
    assert all(edge_type.value in words for edge_type in EdgeType)
    assert "'friendship'" in words
