"""The mapping file: it extends a preset field by field, says all that a variable can, and each fault has its line."""

import json
import os
from pathlib import Path

import pytest

from mcp_assets.cli.services import dagster_environment, exports
from mcp_assets.entities.registry import SOURCE_PRESETS, SourceTable
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, read_settings, variable_of

MCP = SOURCE_PRESETS["mcp"]


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of this machine is seen."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)


def settings_with(text: str) -> Settings:
    Path("mcp_assets.yaml").write_text(text)
    return read_settings()


def source_in(settings: Settings, entity_type: str) -> SourceTable:
    source = settings.entity_types[entity_type].source
    assert source is not None
    return source


def test_a_file_that_adds_a_type_says_only_that() -> None:
    types = settings_with("types:\n  decision:\n    aliases: adr\n").entity_types

    assert dict(types) == {**MCP, "decision": types["decision"]}
    assert list(types) == ["task", "page", "memory", "decision"]
    assert (types["decision"].source, types["decision"].aliases) == (None, ("adr",))


def test_a_file_that_changes_one_column_of_a_type_says_only_that() -> None:
    settings = settings_with("types: {task: {source: {metadata: {tags: labels}}}}")

    known = MCP["task"].source
    assert known is not None
    assert source_in(settings, "task") == known.model_copy(update={"metadata": {**known.metadata, "tags": "labels"}})
    assert settings.entity_types["page"] == MCP["page"]
    assert settings.entity_types["task"].collection == "kanban_tasks"


def test_null_takes_a_metadata_key_away_and_a_list_replaces_a_list() -> None:
    settings = settings_with(
        "types:\n"
        "  task: {source: {metadata: {due_date: null, status: state}, content: [body, notes]}}\n"
        "  page: {source: {metadata: null, metadata_json: null}}\n"
        "  memory: {source: null}\n"
    )

    task = source_in(settings, "task")
    assert "due_date" not in task.metadata
    assert (task.metadata["status"], task.metadata["tags"], task.content) == ("state", "tags", ("body", "notes"))
    assert (source_in(settings, "page").metadata, source_in(settings, "page").metadata_json) == ({}, None)
    assert settings.entity_types["memory"].source is None
    assert settings.entity_types["memory"].collection == "memory_nodes"


def test_types_of_the_preset_can_be_left_out_and_one_can_stand_by_itself() -> None:
    settings = settings_with("without: [memory]\ntypes:\n  task:\n    preset: none\n    source: {table: issues}\n")

    assert list(settings.entity_types) == ["page", "task"]
    assert source_in(settings, "task") == SourceTable(table="issues")
    assert settings.entity_types["task"].collection is None


def test_a_file_without_a_preset_says_all_that_the_variable_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {
        "task": {
            "collection": "kanban_tasks",
            "aliases": ["card", "issue"],
            "id_keys": ["issue_id"],
            "source": {
                "table": "tracker.issues",
                "database_url": "env:TRACKER_URL",
                "id": ["project", "number"],
                "title": "summary",
                "content": ["body", "acceptance"],
                "metadata": {"status": "state", "parent_id": ["project", "parent_number"]},
                "metadata_json": "extra",
                "alive": "deleted_at IS NULL AND NOT draft",
                "created_at": None,
                "updated_at": "changed_at",
            },
        },
        "decision": {"aliases": ["adr"]},
    }
    # JSON is YAML.
    of_file = settings_with(json.dumps({"preset": "none", "types": types})).entity_types
    Path("mcp_assets.yaml").unlink()
    monkeypatch.setenv("MCP_ASSETS_TYPES", json.dumps(types))

    assert of_file == read_settings().entity_types
    assert of_file["task"].source is not None
    assert of_file["task"].source.id_columns == ("project", "number")


def test_an_empty_file_is_the_preset_and_a_file_may_choose_another_one() -> None:
    assert dict(settings_with("# nothing yet\n").entity_types) == dict(MCP)
    assert dict(settings_with("preset: cards\n").entity_types) == dict(SOURCE_PRESETS["cards"])


def test_the_fields_that_a_file_does_not_give_are_known_as_defaults() -> None:
    """Only of a column that is named is it a fault if the table lacks it."""
    settings = settings_with("types: {task: {source: {created_at: made_at}}}")

    assert "updated_at" not in source_in(settings, "task").model_fields_set
    assert "created_at" in source_in(settings, "task").model_fields_set


def test_yaml_may_write_truth_values_and_single_columns_as_people_do() -> None:
    settings = settings_with("types: {task: {source: {alive: true, content: body, id: [key]}}}")

    source = source_in(settings, "task")
    assert (source.alive, source.content, source.id) == ("true", ("body",), "key")


def test_file_and_variable_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_TYPES", '{"note": {}}')
    with pytest.raises(SettingsError, match=r"both MCP_ASSETS_TYPES and the mapping file .*mcp_assets\.yaml.*unset"):
        settings_with("preset: cards\n")


def test_a_preset_in_the_file_that_contradicts_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_SOURCE_PRESET", "mcp")
    assert list(settings_with("preset: mcp\n").entity_types) == list(MCP)
    with pytest.raises(SettingsError, match=r"line 1: preset is 'cards', and MCP_ASSETS_SOURCE_PRESET is 'mcp'"):
        settings_with("preset: cards\n")


def test_a_file_that_the_setting_names_and_that_is_absent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_SOURCES_FILE", "elsewhere/mapping.yaml")
    with pytest.raises(SettingsError, match=r"elsewhere/mapping\.yaml cannot be read.*MCP_ASSETS_SOURCES_FILE"):
        read_settings()


def test_processes_in_other_folders_are_given_the_same_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_with("types: {decision: {}}")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    given = {dagster_environment(settings)["MCP_ASSETS_SOURCES_FILE"], exports(settings)["MCP_ASSETS_SOURCES_FILE"]}
    assert given == {str(tmp_path / "mcp_assets.yaml")}

    monkeypatch.chdir(folder)
    assert list(read_settings().entity_types) == list(MCP)
    monkeypatch.setenv("MCP_ASSETS_SOURCES_FILE", given.pop())
    assert read_settings() == settings
    assert "decision" in read_settings().entity_types


def test_settings_differ_when_the_file_has_changed() -> None:
    before = settings_with("types: {decision: {}}")

    assert settings_with("types: {decision: {}}") == before
    assert settings_with("types: {decision: {aliases: adr}}") != before


WRONG = {
    "types: [1]\n": "mcp_assets.yaml, line 1: types: give fields, each in a line of its own below it, such as "
    "`table: tasks`",
    "tables: {}\n": "mcp_assets.yaml, line 1: tables is no field of a mapping: the fields are preset, without, types",
    "tipes: {}\n": "mcp_assets.yaml, line 1: tipes is no field of a mapping: did you mean types?",
    "preset: boards\n": "mcp_assets.yaml, line 1: preset is 'boards': give mcp, cards or none",
    "preset:\n": "mcp_assets.yaml, line 1: preset is empty: give mcp, cards or none",
    "without:\n- task\n- x\n": "mcp_assets.yaml, line 3: 'x' is no type of the preset mcp: its types are task, page, "
    "memory",
    "preset: none\n": "mcp_assets.yaml names no entity type: put one under `types`, or name a preset",
    "types:\n  task:\n    sauce: 1\n": "mcp_assets.yaml, line 3: types.task.sauce is no field of a mapping: did you "
    "mean source?",
    "types:\n  task:\n    source:\n      id: key\n      alve: x\n": "mcp_assets.yaml, line 5: types.task.source.alve "
    "is no field of a mapping: did you mean alive?",
    "types:\n  doc:\n    source:\n      id: key\n": "mcp_assets.yaml, line 3: types.doc.source.table: this field is "
    "missing",
    "types:\n  task:\n    source:\n      content:\n      - body\n      - no\n": "mcp_assets.yaml, line 6: "
    "types.task.source.content.1: give a text (YAML reads False here: put quotes around it)",
    "types:\n  task:\n    source:\n      metadata: {on: x}\n": "mcp_assets.yaml, line 4: YAML reads the key on as no "
    "text: put quotes around it",
    "types:\n  task:\n    source:\n      id: [a, a]\n": "mcp_assets.yaml, line 4: types.task.source.id: it names a "
    "column twice",
    "types:\n  Task-1: {}\n": "mcp_assets.yaml, line 2: types.Task-1: give a name of at most 63 lower-case letters, "
    "digits and underscores",
    "types:\n  task: {}\n  task: {}\n": "mcp_assets.yaml, line 3: types.task stands in line 2, too: write one of them",
    "types:\n  task:\n\t  source: 1\n": "mcp_assets.yaml, line 3: this is not YAML (found character '\\t' that cannot "
    "start any token): check indentation, colons and quotes",
    "types: &x\n  task: *x\n": "mcp_assets.yaml, line 1: an alias leads back to itself",
    "- task\n": "mcp_assets.yaml, line 1: the file: give fields, each in a line of its own below it, such as "
    "`table: tasks`",
    "types:\n  task:\n    preset: cards\n": "mcp_assets.yaml, line 3: the preset of a type can only be `none`",
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.items(), ids=lambda value: str(value)[:40])
def test_a_wrong_file_is_one_sentence_with_line_and_field(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_with(text)
    assert str(caught.value) == sentence


def test_each_of_several_faults_has_a_sentence() -> None:
    with pytest.raises(SettingsError) as caught:
        settings_with("types:\n  task: {sauce: 1}\n  page:\n    source: {table: ''}\n")
    assert str(caught.value).splitlines() == [
        "mcp_assets.yaml, line 2: types.task.sauce is no field of a mapping: did you mean source?",
        "mcp_assets.yaml, line 4: types.page.source.table: it is empty",
    ]


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        settings_with("types:\n  task:\n    source:\n      database_url: postgresql://u:hunter2@db/x\n")
    assert "mcp_assets.yaml, line 4: the database_url of task holds a password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_text_is_an_error() -> None:
    Path("mcp_assets.yaml").write_bytes(b"types: \xff\xfe")
    with pytest.raises(SettingsError, match="is not in UTF-8"):
        read_settings()
    Path("mcp_assets.yaml").write_text("a: \x00")
    with pytest.raises(SettingsError, match="is not YAML"):
        read_settings()


def test_another_file_can_be_read_in_place_of_a_wrong_one() -> None:
    Path("mcp_assets.yaml").write_text("types: [")
    assert dict(read_settings(sources_file=Path(os.devnull)).entity_types) == dict(MCP)
