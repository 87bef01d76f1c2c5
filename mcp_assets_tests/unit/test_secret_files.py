"""Secrets from files: FOO_FILE names a file with the value of FOO, as containers mount their secrets."""

from pathlib import Path

import pytest

from mcp_assets.cli.services import dagster_environment, exports
from mcp_assets.entities.registry import SourceTable
from mcp_assets.secret_files import LARGEST_BYTES, file_variables
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, read_settings, variable_of

VALUES = {
    "DATABASE_URL": "postgresql://user:canary-1@db/app",
    "MCP_ASSETS_SOURCE_DATABASE_URL": "postgresql://user:canary-2@db/source",
    "NATS_URL": "nats://user:canary-3@bus:4222",
    "QDRANT_API_KEY": "canary-4",
    "QDRANT_READ_API_KEY": "canary-5",
    "OPENAI_API_KEY": "canary-6",
    "OPENAI_PREVIOUS_API_KEY": "canary-7",
    "MCP_ASSETS_MCP_TOKEN": "canary-9",
    "MCP_ASSETS_ALERT_WEBHOOK": "https://hooks.example.com/canary-8",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no .env file of this machine is seen."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
        monkeypatch.delenv(variable_of(field) + "_FILE", raising=False)
    monkeypatch.chdir(tmp_path)


def written(folder: Path, variable: str, content: str | bytes) -> Path:
    path = folder / variable.lower()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def secret(settings: Settings, variable: str) -> str:
    field = next(name for name in Settings.model_fields if variable_of(name) == variable)
    value: str = getattr(settings, field).get_secret_value()
    return value


def test_every_secret_setting_can_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert set(file_variables(Settings.model_fields)) == VALUES.keys(), "a new secret needs a line in VALUES above"
    for variable, value in VALUES.items():
        monkeypatch.setenv(variable + "_FILE", str(written(tmp_path, variable, value + "\n")))

    settings = read_settings()

    assert {variable: secret(settings, variable) for variable in VALUES} == VALUES
    assert "canary" not in repr(settings)
    assert settings.provider == "openai"


def test_a_file_named_in_the_env_file_is_read_too(tmp_path: Path) -> None:
    path = written(tmp_path, "QDRANT_API_KEY", "canary\r\n")
    (tmp_path / ".env").write_text(f"QDRANT_API_KEY_FILE={path}\n")

    assert secret(read_settings(), "QDRANT_API_KEY") == "canary"


def test_a_secret_that_is_set_in_both_ways_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NATS_URL_FILE", str(written(tmp_path, "NATS_URL", VALUES["NATS_URL"])))
    (tmp_path / ".env").write_text("NATS_URL=nats://localhost:4222\n")

    with pytest.raises(SettingsError, match=r"both NATS_URL and NATS_URL_FILE are set.*unset one"):
        read_settings()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"cannot be read \(no such file or directory\): check the path"),
        ("", "is empty: write the secret into it"),
        ("\n", "is empty"),
        (b"\xff\xfe", "is no UTF-8 text"),
        ("x" * (LARGEST_BYTES + 1), "is longer than 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes | None, said: str
) -> None:
    path = tmp_path / "absent" if content is None else written(tmp_path, "key", content)
    monkeypatch.setenv("QDRANT_API_KEY_FILE", str(path))

    with pytest.raises(SettingsError, match=f"QDRANT_API_KEY_FILE: the file {path} {said}"):
        read_settings()


def test_all_files_at_fault_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("QDRANT_API_KEY", "NATS_URL"):
        monkeypatch.setenv(variable + "_FILE", str(tmp_path / "absent"))

    with pytest.raises(SettingsError) as caught:
        read_settings()

    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_secret_in_a_file_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", str(written(tmp_path, "DATABASE_URL", "mysql://canary@db/x")))

    with pytest.raises(SettingsError, match="DATABASE_URL: give an address") as caught:
        read_settings()

    assert "canary" not in str(caught.value)


def test_the_address_of_a_mapped_source_can_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEAM_DB_FILE", str(written(tmp_path, "TEAM_DB", "postgresql://u:canary@db/team\n")))
    source = SourceTable(table="tasks", id="id", content=("title",), database_url="env:TEAM_DB")

    assert read_settings().source_url(source) == "postgresql://u:canary@db/team"

    monkeypatch.setenv("TEAM_DB", "postgresql://db/other")
    with pytest.raises(SettingsError, match="both TEAM_DB and TEAM_DB_FILE are set"):
        read_settings().source_url(source)


def test_child_processes_get_the_path_and_never_the_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(tmp_path, "NATS_URL", "nats://localhost:4222\n")
    monkeypatch.setenv("NATS_URL_FILE", path.name)

    settings = read_settings()
    exported = exports(settings)

    assert exported["NATS_URL_FILE"] == str(path)
    assert "NATS_URL" not in exported, "a child process would find both variables set, and refuse that"
    assert dagster_environment(settings)["NATS_URL_FILE"] == str(path)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"QDRANT_URL": "http://user:canary@qdrant:6333"}, "QDRANT_URL: give the address without user and password"),
        ({"NATS_CREDS_FILE": "/nowhere/creds"}, "NATS_CREDS_FILE.*: there is no file /nowhere/creds"),
        ({"NATS_TLS_CA_FILE": "text"}, "NATS_TLS_CA_FILE.*holds no certificate in PEM form"),
        ({"NATS_TLS_CERT_FILE": "text"}, "NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE belong together"),
        ({"NATS_CREDS_FILE": "text", "NATS_NKEY_FILE": "text"}, "both NATS_CREDS_FILE and NATS_NKEY_FILE are set"),
    ],
)
def test_settings_of_access_that_cannot_be_used_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    written(tmp_path, "text", "no certificate")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=said) as caught:
        read_settings()

    assert "canary" not in str(caught.value)
