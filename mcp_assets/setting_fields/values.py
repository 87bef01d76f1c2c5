"""Types of the settings' values; each refuses a wrong value with a sentence that says what to give."""

import json
import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
)

from mcp_assets.entities.registry import Listed, SourceTable
from mcp_assets.tls import authority_in

Provider = Literal["openai", "local"]
SourcePreset = Literal["mcp", "cards"]
MetadataIndex = Literal["keyword", "integer", "float", "bool", "datetime"]


def matching(pattern: str, wanted: str) -> AfterValidator:
    """The value has to match `pattern`; `wanted` says in the imperative what to give."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


def _address(schemes: str, example: str) -> AfterValidator:
    """The value has to be an address of one of `schemes`, a pattern, or several that are separated by commas."""
    compiled = re.compile(rf"({schemes})://\S+")

    def check(value: SecretStr | str | None) -> SecretStr | str | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if text is not None and compiled.fullmatch(text.strip()) is None:
            raise ValueError(f"give an address such as {example}")
        return value

    return AfterValidator(check)


Identifier = Annotated[
    str,
    matching(r"[a-z_][a-z0-9_]{0,62}", "give a name of at most 63 lower-case letters, digits and underscores"),
]

CronSchedule = Annotated[
    str, matching(r"@\w+|\S+( +\S+){4}", 'give a cron schedule of five fields, such as "43 2 * * *"')
]

TableName = Annotated[
    str,
    matching(
        r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?",
        "give a table as name or schema.name, of lower-case letters, digits and underscores",
    ),
]


def _without_credentials(value: str | None) -> str | None:
    """An address is shown in messages and pages, and a password in it would be, too."""
    if value is not None and urlsplit(value).username is not None:
        raise ValueError("give the address without user and password: a key has a setting of its own")
    return value


def _readable(path: Path | None) -> Path | None:
    """The absolute path, because processes in other folders, to which it is handed on, read the same file."""
    if path is None:
        return None
    path = path.expanduser().absolute()
    if not path.is_file():
        raise ValueError(f"there is no file {path}: check the path")
    if not os.access(path, os.R_OK):
        raise ValueError(f"this user may not read {path}: check its mode and owner")
    return path


def _certificate(path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        authority_in(path)
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificate in PEM form: give a file of that form") from None
    return path


ReadableFile = Annotated[Path | None, AfterValidator(_readable)]
CertificateFile = Annotated[Path | None, AfterValidator(_readable), AfterValidator(_certificate)]

DatabaseUrl = Annotated[SecretStr | None, _address("postgresql|postgres", "postgresql://user@host:5432/database")]
NatsUrl = Annotated[SecretStr | None, _address("nats|tls|ws|wss", "nats://host:4222")]
WebhookUrl = Annotated[SecretStr | None, _address("https?", "https://hooks.example.com/services/…")]
HttpUrl = Annotated[str | None, _address("https?", "http://host:6333"), AfterValidator(_without_credentials)]


def json_list(value: Any) -> Any:
    """Decoded here and not by pydantic-settings, whose error would not name the variable."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('it must be a JSON list of texts, such as ["MCP_ASSETS"]') from None


class TypeMapping(BaseModel):
    """One entity type of a site: where its rows stand and which collection holds its points."""

    model_config = ConfigDict(extra="forbid")

    source: SourceTable | None = Field(default=None, description="Without one, the type lives by its events alone.")
    collection: str | None = Field(default=None, description="Qdrant collection; default cross_references.")
    aliases: Listed = Field(default=(), description="Further names of the type in subjects and bodies of messages.")
    id_keys: Listed = Field(
        default=(), description="Further keys of an event's body that hold its id, beside `<type>_id`."
    )
