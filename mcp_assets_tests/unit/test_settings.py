"""Settings: each field has its variable, a bad value names it, and no secret is ever shown."""

import json
import traceback
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mcp_assets.embedded import stack
from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, load_settings, read_settings, variable_of

SECRETS = {
    "DATABASE_URL": "postgresql://user:hunter2@db/app",
    "NATS_URL": "nats://token-hunter2@bus:4222",
    "QDRANT_API_KEY": "key-hunter2",
    "OPENAI_API_KEY": "sk-hunter2",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no .env file of this machine is seen."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_has_a_variable_of_its_own_and_a_description() -> None:
    variables = [field.validation_alias for field in Settings.model_fields.values()]

    assert all(isinstance(variable, str) and variable.isupper() for variable in variables)
    assert len(set(variables)) == len(variables)
    assert all(field.description for field in Settings.model_fields.values())
    assert variable_of("batch_size") == "MCP_ASSETS_BATCH_SIZE"


def test_defaults_are_those_of_a_laptop() -> None:
    settings = Settings()

    assert settings.provider == "local"
    assert settings.profile.name == "wordllama"
    assert (settings.shards, settings.retry_attempts, settings.retry_delay_ms) == (4, 3, 1000)
    assert settings.streams == ("MCP_ASSETS",)
    assert list(settings.entity_types) == ["task", "page", "memory"]
    assert settings.chunks == ChunkSpec(2000, 200)


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_a_key_or_a_base_url_selects_the_openai_provider_with_ada_002(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://embedder/v1")
    assert Settings().provider == "openai"
    assert Settings().profile.name == "text-embedding-ada-002"

    monkeypatch.setenv("EMBEDDING_PROVIDER", "local")
    assert Settings().provider == "local"


def test_a_variable_that_is_set_to_nothing_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("MCP_ASSETS_SHARDS", "")

    assert Settings().database_url is None
    assert Settings().shards == 4


def test_the_env_file_of_the_working_directory_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("MCP_ASSETS_SHARDS=7\nMCP_ASSETS_BATCH_SIZE=11\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("MCP_ASSETS_BATCH_SIZE", "12")

    settings = Settings()

    assert (settings.shards, settings.batch_size) == (7, 12)


def test_no_secret_is_in_anything_that_shows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    settings = Settings()

    shown = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        str(settings.model_dump()),
        json.dumps(settings.model_dump(mode="json")),
        repr(settings.database_url),
    ]

    assert not any("hunter2" in text for text in shown)
    assert settings.require_database_url() == SECRETS["DATABASE_URL"]
    assert settings.require_nats_url() == SECRETS["NATS_URL"]


BAD_VALUES = {
    "MCP_ASSETS_BATCH_SIZE": "0",
    "MCP_ASSETS_SHARDS": "many",
    "MCP_ASSETS_RETRY_ATTEMPTS": "0",
    "MCP_ASSETS_RETRY_DELAY_MS": "-1",
    "MCP_ASSETS_CHUNK_SIZE": "10",
    "MCP_ASSETS_CHUNK_OVERLAP": "-1",
    "MCP_ASSETS_SOURCE_PRESET": "boards",
    "MCP_ASSETS_SCHEMA": 'x"; DROP SCHEMA public; --',
    "MCP_ASSETS_TYPES": '{"task": {"sauce": 1}}',
    "MCP_ASSETS_STREAMS": "[]",
    "EMBEDDING_PROVIDER": "magic",
    "EMBEDDING_DIMENSION": "0",
    "SIMILARITY_THRESHOLD": "1.5",
    "MCP_ASSETS_SENSOR_TICK_S": "9999",
    "MCP_ASSETS_DRAIN_MAX_S": "0",
}


@pytest.mark.parametrize("variable", BAD_VALUES)
def test_a_bad_value_is_refused_with_the_name_of_its_variable_and_without_any_value(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for secret, value in SECRETS.items():
        monkeypatch.setenv(secret, value)
    monkeypatch.setenv(variable, BAD_VALUES[variable])

    with pytest.raises(ValidationError, match=variable) as caught:
        Settings()
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert "DROP SCHEMA" not in str(caught.value)


@pytest.mark.parametrize("variable", ["MCP_ASSETS_TYPES", "MCP_ASSETS_STREAMS"])
def test_a_value_that_should_be_json_and_is_not_is_refused_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "{not json")

    with pytest.raises(ValidationError, match=variable):
        Settings()


def test_settings_that_contradict_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_CHUNK_SIZE", "400")
    monkeypatch.setenv("MCP_ASSETS_CHUNK_OVERLAP", "300")
    with pytest.raises(ValidationError, match=r"MCP_ASSETS_CHUNK_OVERLAP.*half of MCP_ASSETS_CHUNK_SIZE"):
        Settings()

    monkeypatch.setenv("MCP_ASSETS_CHUNK_OVERLAP", "200")
    assert Settings().chunks == ChunkSpec(400, 200)
    monkeypatch.setenv("MCP_ASSETS_CHUNKING", "false")
    assert Settings().chunks is None


def test_an_empty_registry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_TYPES", "{}")

    with pytest.raises(ValidationError, match="MCP_ASSETS_TYPES names no entity type"):
        Settings()


def test_types_mapped_by_hand_stand_in_place_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = {
        "doc": {
            "source": {"table": "site.docs", "id": "key", "content": ["body"], "alive": "gone IS NULL"},
            "collection": "docs",
            "aliases": ["document"],
            "id_keys": ["doc_key"],
        },
        "note": {},
    }
    monkeypatch.setenv("MCP_ASSETS_TYPES", json.dumps(mapping))

    types = Settings().entity_types

    assert list(types) == ["doc", "note"]
    assert types["doc"].source is not None
    assert types["doc"].source.id == "key"
    assert types["doc"].aliases == ("document",)
    assert types["note"].source is None
    assert types.collections() == ["docs", "cross_references"]


@pytest.mark.parametrize(
    ("require", "variable"),
    [
        (Settings.require_database_url, "DATABASE_URL"),
        (Settings.require_nats_url, "NATS_URL"),
        (Settings.require_qdrant_url, "QDRANT_URL"),
    ],
)
def test_a_store_that_is_not_named_is_an_error_that_says_what_to_do(require: object, variable: str) -> None:
    assert callable(require)
    with pytest.raises(SettingsError, match=rf"{variable} is not set.*mcp-assets up"):
        require(Settings())


def test_an_unknown_model_without_its_dimension_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.example.com")
    monkeypatch.setenv("EMBEDDING_MODEL", "unheard-of")
    with pytest.raises(SettingsError, match="EMBEDDING_DIMENSION"):
        _ = Settings().profile

    monkeypatch.setenv("EMBEDDING_DIMENSION", "384")
    assert Settings().profile.dimension == 384


def test_a_model_that_the_local_provider_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_MODEL", "text-embedding-3-small")
    with pytest.raises(SettingsError, match=r"EMBEDDING_MODEL is 'text-embedding-3-small'.*OPENAI_BASE_URL"):
        _ = Settings().profile


WRONG = {
    # variable, value: the sentence
    ("EMBEDDING_DIMENSION", "12x"): "EMBEDDING_DIMENSION is '12x': give a whole number",
    ("MCP_ASSETS_SHARDS", "0"): "MCP_ASSETS_SHARDS is '0': give a number of at least 1",
    ("MCP_ASSETS_SENSOR_TICK_S", "9999"): "MCP_ASSETS_SENSOR_TICK_S is '9999': give a number of at most 300",
    ("MCP_ASSETS_SWEEP", "perhaps"): "MCP_ASSETS_SWEEP is 'perhaps': give true or false",
    ("MCP_ASSETS_SOURCE_PRESET", "boards"): "MCP_ASSETS_SOURCE_PRESET is 'boards': give 'mcp' or 'cards'",
    ("MCP_ASSETS_CENSUS_CRON", "often"): "MCP_ASSETS_CENSUS_CRON is 'often': give a cron schedule of five fields, such "
    'as "43 2 * * *"',
    ("DATABASE_URL", "db:5432"): "DATABASE_URL: give an address such as postgresql://user@host:5432/database",
    ("QDRANT_URL", "localhost:6333"): "QDRANT_URL is 'localhost:6333': give an address such as http://host:6333",
    ("MCP_ASSETS_TYPES", "{task"): "MCP_ASSETS_TYPES is '{task': this is not JSON (Expecting property name enclosed in "
    "double quotes: line 1 column 2 (char 1)): check its quotes and braces",
    ("MCP_ASSETS_TYPES", '{"task": {"sauce": null}}'): "MCP_ASSETS_TYPES: task.sauce is no field of a mapping: did you "
    "mean source?",
    ("MCP_ASSETS_TYPES", '{"task": {"source": {"table": "t", "alve": "true"}}}'): "MCP_ASSETS_TYPES: task.source.alve "
    "is no field of a mapping: did you mean alive?",
    ("MCP_ASSETS_TYPES", '{"task": {"source": {}}}'): "MCP_ASSETS_TYPES, task.source.table: this field is missing",
}


@pytest.mark.parametrize(("given", "sentence"), WRONG.items(), ids=lambda value: str(value)[:60])
def test_a_wrong_setting_is_one_sentence_that_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, given: tuple[str, str], sentence: str
) -> None:
    monkeypatch.setenv(*given)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert str(caught.value) == sentence


def test_each_of_several_wrong_settings_has_a_line_and_no_secret_is_in_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://root:hunter2@db/x")
    monkeypatch.setenv("MCP_ASSETS_SHARDS", "many")
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert [line.split(":")[0].split(" ")[0] for line in str(caught.value).splitlines()] == [
        "DATABASE_URL",
        "MCP_ASSETS_SHARDS",
    ]
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_embedded_stack_fills_in_what_is_unset_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    running = stack.StackAddresses("postgresql://embedded", "nats://embedded", None)
    monkeypatch.setattr(stack, "addresses", lambda _: running)
    monkeypatch.setenv("NATS_URL", "nats://mine")

    settings = load_settings()

    assert settings.require_database_url() == "postgresql://embedded"
    assert isinstance(settings.database_url, SecretStr)
    assert settings.require_nats_url() == "nats://mine"
    with pytest.raises(SettingsError, match="QDRANT_URL"):
        settings.require_qdrant_url()


def test_without_an_embedded_stack_the_settings_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_URL", "http://mine")

    assert load_settings() == Settings()


def test_a_wrong_pattern_of_entity_urls_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_ASSETS_ENTITY_URL", "https://wiki.example.org/{slug}")
    with pytest.raises(ValidationError, match=r"MCP_ASSETS_ENTITY_URL: .* must hold \{id\}"):
        Settings()
    monkeypatch.setenv("MCP_ASSETS_ENTITY_URL", "https://wiki.example.org/{type}/{id}")
    assert Settings().entity_url == "https://wiki.example.org/{type}/{id}"
