"""`mcp-assets init`: what it writes, what it keeps, and that all of it works as it stands."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import mcp_assets
from mcp_assets.cli.init import _FILES
from mcp_assets.cli.project import packaged
from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.platform import Platform
from mcp_assets.settings import read_settings
from mcp_assets_tests.command import Place, bare_environment

ROOT = Path(mcp_assets.__file__).parents[1]
SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, bare_environment() | {"MCP_ASSETS_STATE_DIR": str(tmp_path / ".mcp")})


def test_it_writes_each_file_and_says_three_things_to_do_next(place: Place) -> None:
    done = place.run("init", "shop")
    assert done.code == 0, done.stderr
    folder = place.folder / "shop"
    assert sorted(file.name for file in folder.iterdir()) == sorted(_FILES)
    assert all(name in done.stdout for name in _FILES)
    steps = done.stdout.partition("What next:")[2].strip().splitlines()
    assert [step.strip()[:2] for step in steps] == ["1.", "2.", "3."]
    assert "cd shop" in steps[0]


def test_it_keeps_what_is_there_and_replaces_it_only_when_asked_to(place: Place) -> None:
    place.run("init")
    mapping = place.folder / "mcp_assets.yaml"
    mapping.write_text("preset: cards\n")
    files = place.answer("init")["files"]
    assert files == {name: "kept" if name == mapping.name else "unchanged" for name in _FILES}
    assert mapping.read_text() == "preset: cards\n"
    assert place.answer("init", "--force")["files"]["mcp_assets.yaml"] == "replaced"
    assert mapping.read_text() == packaged(mapping.name).read_text()


def test_a_file_that_is_replaced_is_kept_beside_the_new_one_which_others_may_not_read_if_it_holds_keys(
    place: Place,
) -> None:
    place.run("init")
    settings = place.folder / ".env"
    settings.write_text("QDRANT_API_KEY=key\n")
    settings.chmod(0o644)
    place.run("init", "--force")
    assert (place.folder / ".env.before").read_text() == "QDRANT_API_KEY=key\n"
    assert settings.stat().st_mode & 0o777 == 0o600


def test_the_files_of_the_checkout_are_those_of_a_project(place: Place) -> None:
    place.run("init")
    assert (place.folder / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
    assert (place.folder / ".env").read_text() == (ROOT / ".env.example").read_text()
    ours = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    theirs = yaml.safe_load((place.folder / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert theirs == ours | {"module_name": "definitions"}


def test_a_wheel_carries_each_file_that_is_written() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = {Path(target).name for target in build["force-include"].values()}
    own = {file.name for file in (ROOT / "mcp_assets/project_files").iterdir() if file.is_file()}
    assert {".env.example" if name == ".env" else name for name in _FILES} <= carried | own
    assert all((ROOT / source).is_file() for source in build["force-include"])


def test_the_settings_file_is_for_its_owner_alone_because_keys_are_put_into_it(place: Place) -> None:
    place.run("init")
    assert (place.folder / ".env").stat().st_mode & 0o777 == 0o600


def test_all_settings_are_at_their_defaults(place: Place) -> None:
    before = place.run("env").stdout
    place.run("init")
    changed = set(place.run("env").stdout.splitlines()) - set(before.splitlines())
    named = {line.partition("=")[0] for line in changed}
    assert named <= {"export DAGSTER_HOME", "export MCP_ASSETS_SOURCES_FILE"}
    assert f"export DAGSTER_HOME={place.folder}" in changed


@pytest.mark.parametrize("table", ["[tool.dagster]\nmodule_name = 'shop'", "[tool.dg]\ndirectory_type = 'project'"])
def test_a_dagster_project_is_left_alone_and_the_component_is_named(place: Place, table: str) -> None:
    (place.folder / "pyproject.toml").write_text(table)
    done = place.run("init")
    assert done.code == 2
    assert "McpAssetsComponent" in done.stderr
    assert [file.name for file in place.folder.iterdir()] == ["pyproject.toml"]


def test_a_folder_that_cannot_be_written_is_named(place: Place) -> None:
    (place.folder / "file").write_text("")
    done = place.run("init", "file/shop")
    assert done.code == 2
    assert "file" in done.stderr
    assert "Traceback" not in done.stderr


ALL = "entities,embeddings,relationship_edges"

COMMANDS = {
    "dg list defs": ["dg", "list", "defs", "--json"],
    "dagster asset materialize": [
        *("dagster", "asset", "materialize", "-m", "definitions", "--select", ALL, "--partition", "task-00"),
    ],
    "dg launch": ["dg", "launch", "--assets", ALL, "--partition", "task-00"],
    "dagster job launch": ["dagster", "job", "launch", "--job", "clean_up"],
    "dagster job backfill": ["dagster", "job", "backfill", "--job", "index", "--partitions", "task-00", "--noprompt"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_dagsters_commands_work_after_env_alone_and_leave_nothing_in_the_folder(
    command: str, place: Place, platform: Platform, environment: None
) -> None:
    place.run("init")
    before = {file.name for file in place.folder.iterdir()}
    done = subprocess.run(
        ["bash", "-c", 'eval "$(mcp-assets env)" && exec "$@"', "bash", *COMMANDS[command]],
        cwd=place.folder,
        env={
            **os.environ,
            "HOME": str(place.folder.parent),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "MCP_ASSETS_STATE_DIR": str(place.folder / ".mcp"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SupersessionWarning" not in done.stderr
    assert "temporary directory" not in done.stdout + done.stderr
    assert {file.name for file in place.folder.iterdir()} - before <= {".mcp", "__pycache__"}


def uncommented(text: str) -> str:
    """The mapping file with its examples in force: a comment that is for people begins with one space."""
    lines = [line[1:] if re.match(r"#([a-z]|  )", line) else line for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def test_the_mapping_changes_nothing_as_it_stands_and_is_a_mapping_with_its_examples_in_force(tmp_path: Path) -> None:
    file = tmp_path / "mcp_assets.yaml"
    file.write_text(packaged(file.name).read_text())
    assert dict(read_settings({}, sources_file=file).entity_types) == dict(SOURCE_PRESETS["mcp"])
    file.write_text(uncommented(file.read_text()))
    types = read_settings({}, sources_file=file).entity_types
    assert list(types) == ["task", "page"]
    assert types["task"].source is not None
    assert types["task"].source.table == "tracker.issues"
