"""The component's attributes as settings: found without Dagster, one value for each, from wherever it is read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_assets import project_component
from mcp_assets.project_component import COMPONENT
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, load_settings, read_settings, variable_of


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty Dagster project, as create-dagster makes one, with no settings in the environment."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    (tmp_path / "src/shop/defs/mcp").mkdir(parents=True)
    project_component._settings_in.cache_clear()
    yield tmp_path
    project_component._settings_in.cache_clear()


def say(project: Path, attributes: str, name: str = "mcp") -> Path:
    file = project / "src/shop/defs" / name / "defs.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"type: {COMPONENT}\nattributes: {attributes}\n")
    return file


def test_the_command_line_works_by_the_attributes(project: Path) -> None:
    say(project, "{shards: 7, schema_name: shop, types: {ticket: {source: {table: tickets}}}}")
    settings = load_settings()
    assert (settings.shards, settings.schema_name, list(settings.entity_types)) == (7, "shop", ["ticket"])


def test_other_components_and_other_folders_say_nothing(project: Path) -> None:
    say(project, "{shards: 7}").write_text("type: dagster_dbt.DbtProjectComponent\nattributes: {shards: 9}\n")
    (project / "defs.yaml").write_text(f"type: {COMPONENT}\nattributes: {{shards: 9}}\n")
    assert read_settings().shards == Settings.model_fields["shards"].default


def test_a_variable_that_says_the_same_is_no_contradiction(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(project, '{shards: 7, streams: ["A"]}')
    monkeypatch.setenv("MCP_ASSETS_SHARDS", "7")
    monkeypatch.setenv("MCP_ASSETS_STREAMS", '["A"]')
    assert read_settings().shards == 7


@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_variable_that_says_another_value_is_refused_with_both(
    project: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    say(project, "{shards: 7}")
    if place == ".env":
        (project / ".env").write_text("MCP_ASSETS_SHARDS=8\n")
    else:
        monkeypatch.setenv("mcp_assets_shards" if os.name == "nt" else "MCP_ASSETS_SHARDS", "8")
    with pytest.raises(SettingsError, match=r"MCP_ASSETS_SHARDS is 8 .* shards: 7"):
        read_settings()


def test_a_wrong_attribute_is_named_as_a_setting_is(project: Path) -> None:
    say(project, "{shards: 0}")
    with pytest.raises(SettingsError, match="MCP_ASSETS_SHARDS"):
        read_settings()


def test_two_components_that_differ_are_refused_and_two_that_agree_are_not(project: Path) -> None:
    say(project, "{shards: 7}")
    say(project, "{shards: 7}", name="again")
    assert read_settings().shards == 7
    project_component._settings_in.cache_clear()
    say(project, "{shards: 6}", name="again")
    with pytest.raises(SettingsError, match="keep one of the components"):
        read_settings()


def test_a_template_is_refused_because_only_dagster_fills_it_in(project: Path) -> None:
    say(project, "{shards: \"{{ env('SHARDS') }}\"}")
    with pytest.raises(SettingsError, match="template"):
        read_settings()


@pytest.mark.parametrize("content", ["a: [", "\x00"])
def test_a_file_that_is_no_yaml_is_named(project: Path, content: str) -> None:
    file = say(project, "{}")
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"mcp/defs\.yaml cannot be read"):
        read_settings()
