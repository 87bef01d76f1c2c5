"""Types of the settings' values; each refuses a wrong value with a sentence that says what to give."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
)

from mcp_assets.entities.registry import Listed, SourceTable

Provider = Literal["openai", "local"]
SourcePreset = Literal["mcp", "cards"]


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

DatabaseUrl = Annotated[SecretStr | None, _address("postgresql|postgres", "postgresql://user@host:5432/database")]
NatsUrl = Annotated[SecretStr | None, _address("nats|tls|ws|wss", "nats://host:4222")]
WebhookUrl = Annotated[SecretStr | None, _address("https?", "https://hooks.example.com/services/…")]
HttpUrl = Annotated[str | None, _address("https?", "http://host:6333")]


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
