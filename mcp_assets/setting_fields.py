"""The fields of the settings: for each its environment variable, type, default and description."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from mcp_assets.entities.registry import Listed, SourceTable

Provider = Literal["openai", "local"]
SourcePreset = Literal["mcp", "cards"]


def _matching(pattern: str, wanted: str) -> AfterValidator:
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
    _matching(r"[a-z_][a-z0-9_]{0,62}", "give a name of at most 63 lower-case letters, digits and underscores"),
]

CronSchedule = Annotated[
    str, _matching(r"@\w+|\S+( +\S+){4}", 'give a cron schedule of five fields, such as "43 2 * * *"')
]

TableName = Annotated[
    str,
    _matching(
        r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?",
        "give a table as name or schema.name, of lower-case letters, digits and underscores",
    ),
]

DatabaseUrl = Annotated[SecretStr | None, _address("postgresql|postgres", "postgresql://user@host:5432/database")]
NatsUrl = Annotated[SecretStr | None, _address("nats|tls|ws|wss", "nats://host:4222")]
WebhookUrl = Annotated[SecretStr | None, _address("https?", "https://hooks.example.com/services/…")]
HttpUrl = Annotated[str | None, _address("https?", "http://host:6333")]


def _json_list(value: Any) -> Any:
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


class SettingFields(BaseSettings):
    """Every setting, each from the environment variable of its alias (or a `.env` file). Secrets are never printed."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", populate_by_name=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    database_url: DatabaseUrl = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL: source tables, the platform's own, Dagster's storage.",
    )
    nats_url: NatsUrl = Field(default=None, validation_alias="NATS_URL", description="NATS server(s), comma-separated.")
    qdrant_url: HttpUrl = Field(default=None, validation_alias="QDRANT_URL", description="Qdrant, REST.")
    qdrant_api_key: SecretStr | None = Field(
        default=None, validation_alias="QDRANT_API_KEY", description="Key for Qdrant, if it requires one."
    )
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="Key of the embedding provider; setting it selects `openai`.",
    )
    openai_base_url: HttpUrl = Field(
        default=None,
        validation_alias="OPENAI_BASE_URL",
        description="Any OpenAI-compatible server; setting it selects `openai`.",
    )

    embedding_provider: Provider | None = Field(
        default=None,
        validation_alias="EMBEDDING_PROVIDER",
        description="`openai` or `local`; default: openai if a key or base URL is set.",
    )
    embedding_model: str | None = Field(
        default=None,
        validation_alias="EMBEDDING_MODEL",
        description="Default text-embedding-ada-002 (openai), wordllama (local).",
    )
    embedding_dimension: PositiveInt | None = Field(
        default=None,
        validation_alias="EMBEDDING_DIMENSION",
        description="Needed only for a model that mcp_assets does not know.",
    )
    embedding_price: NonNegativeFloat | None = Field(
        default=None,
        validation_alias="EMBEDDING_PRICE",
        description="US dollars a million tokens, for `mcp-assets plan`; default: the model's list price, if known.",
    )
    embedding_concurrency: PositiveInt = Field(
        default=8, validation_alias="EMBEDDING_CONCURRENCY", description="Requests to the provider at once."
    )
    embedding_timeout_s: PositiveFloat = Field(
        default=60.0,
        validation_alias="EMBEDDING_TIMEOUT_S",
        description="Seconds one request to the provider may take.",
    )
    previous_model: str | None = Field(
        default=None,
        validation_alias="EMBEDDING_PREVIOUS_MODEL",
        description="The model before a change, so that its collections stay current; docs/how-to/change-model.md.",
    )
    previous_dimension: PositiveInt | None = Field(
        default=None,
        validation_alias="EMBEDDING_PREVIOUS_DIMENSION",
        description="Its dimension, if mcp_assets does not know the model or it was shortened.",
    )
    previous_base_url: HttpUrl = Field(
        default=None,
        validation_alias="OPENAI_PREVIOUS_BASE_URL",
        description="Its server, if not `OPENAI_BASE_URL`.",
    )
    previous_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_PREVIOUS_API_KEY",
        description="Its key, if not `OPENAI_API_KEY`.",
    )
    similarity_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        validation_alias="SIMILARITY_THRESHOLD",
        description="Cosine; default: the model's own.",
    )

    batch_size: int = Field(
        default=256,
        ge=1,
        le=2048,
        validation_alias="MCP_ASSETS_BATCH_SIZE",
        description="Entities read, embedded and committed together.",
    )
    retry_attempts: PositiveInt = Field(
        default=3,
        validation_alias="MCP_ASSETS_RETRY_ATTEMPTS",
        description="Tries of a failing call to a store or provider.",
    )
    retry_delay_ms: PositiveInt = Field(
        default=1000,
        validation_alias="MCP_ASSETS_RETRY_DELAY_MS",
        description="Wait before the second try; doubles with each.",
    )
    store_wait_s: NonNegativeFloat = Field(
        default=600.0,
        validation_alias="MCP_ASSETS_STORE_WAIT_S",
        description="Seconds a run that has embedded waits for a store that is away, before it fails.",
    )
    kept_vectors_mb: int = Field(
        default=256,
        ge=1,
        validation_alias="MCP_ASSETS_KEPT_VECTORS_MB",
        description="MiB of paid vectors kept in PostgreSQL while Qdrant cannot take them.",
    )
    provider_retry_s: PositiveFloat = Field(
        default=60.0,
        validation_alias="MCP_ASSETS_PROVIDER_RETRY_S",
        description="Wait before the next run while the provider refuses everything; doubles up to 16 minutes.",
    )
    shards: int = Field(
        default=4, ge=1, le=1024, validation_alias="MCP_ASSETS_SHARDS", description="Partitions an entity type."
    )
    chunk_size: int = Field(
        default=2000,
        ge=200,
        le=8000,
        validation_alias="MCP_ASSETS_CHUNK_SIZE",
        description="Characters in a chunk of a long text.",
    )
    chunk_overlap: int = Field(
        default=200,
        ge=0,
        validation_alias="MCP_ASSETS_CHUNK_OVERLAP",
        description="Characters that neighbouring chunks share.",
    )
    chunking: bool = Field(
        default=True,
        validation_alias="MCP_ASSETS_CHUNKING",
        description="Chunk points for texts over 8,000 characters.",
    )

    source_preset: SourcePreset = Field(
        default="mcp",
        validation_alias="MCP_ASSETS_SOURCE_PRESET",
        description="Shape of the source tables; see docs/how-to/own-tables.md.",
    )
    sources_file: Path | None = Field(
        default=None,
        validation_alias="MCP_ASSETS_SOURCES_FILE",
        description="YAML file that maps your tables; default `mcp_assets.yaml` in the working folder, if it is there; "
        "docs/how-to/own-tables.md.",
    )
    types: dict[Identifier, TypeMapping] | None = Field(
        default=None,
        validation_alias="MCP_ASSETS_TYPES",
        description="JSON; entity types mapped here, in place of a preset and of that file.",
    )
    source_database_url: DatabaseUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_SOURCE_DATABASE_URL",
        description="PostgreSQL of the source tables, if it is not that of `DATABASE_URL`; docs/how-to/own-tables.md.",
    )
    schema_name: Identifier = Field(
        default="mcp_assets",
        validation_alias="MCP_ASSETS_SCHEMA",
        description="PostgreSQL schema of the platform's own tables.",
    )
    relationships_table: TableName = Field(
        default="public.relationships",
        validation_alias="MCP_ASSETS_RELATIONSHIPS_TABLE",
        description="Table of the edges; made if absent, adopted if it is there.",
    )
    topical_threshold: float = Field(
        default=0.3,
        ge=0,
        le=1,
        validation_alias="MCP_ASSETS_TOPICAL_THRESHOLD",
        description="Weighted Jaccard of tags at and above which two entities count as related.",
    )
    tag_candidates: PositiveInt = Field(
        default=200,
        validation_alias="MCP_ASSETS_TAG_CANDIDATES",
        description="Entities are not compared because of a tag that more entities than this hold.",
    )
    link_forms: dict[str, str] = Field(
        default={},
        validation_alias="MCP_ASSETS_LINK_FORMS",
        description="JSON; addresses of entities in texts, such as `https://wiki.example.com/{slug}`, to their type.",
    )
    entity_url: str | None = Field(
        default=None,
        validation_alias="MCP_ASSETS_ENTITY_URL",
        description="Address of an entity's own page, such as `https://wiki.example.org/{type}/{id}`; the page of "
        "`graph export` links to it.",
    )
    streams: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_json_list)] = Field(
        default=("MCP_ASSETS",),
        min_length=1,
        validation_alias="MCP_ASSETS_STREAMS",
        description="JSON list of JetStream streams to read.",
    )
    create_stream: bool = Field(
        default=True,
        validation_alias="MCP_ASSETS_CREATE_STREAM",
        description="Make the (single) stream, and the one for results, if they are absent.",
    )
    results_stream: Annotated[str, _matching(r"[A-Za-z0-9_-]+", "give letters, digits, - and _")] = Field(
        default="MCP_ASSETS_RESULTS",
        validation_alias="MCP_ASSETS_RESULTS_STREAM",
        description="Stream that keeps results for listeners that were away; docs/reference/messages.md.",
    )
    results_days: PositiveFloat = Field(
        default=3.0,
        validation_alias="MCP_ASSETS_RESULTS_DAYS",
        description="Days for which that stream keeps a result, if mcp_assets makes it.",
    )

    mass_delete_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        validation_alias="MCP_ASSETS_MASS_DELETE_SHARE",
        description="Share of an entity type above which a full sync or repair asks before it removes so many.",
    )
    sweep: bool = Field(
        default=True,
        validation_alias="MCP_ASSETS_SWEEP",
        description="Compare source tables with the ledger all the time, at no more than 1 % of a core.",
    )
    sweep_rows: PositiveInt = Field(
        default=1000,
        validation_alias="MCP_ASSETS_SWEEP_ROWS",
        description="Rows of a type that one pass of the sweep acts on; if more differ, it only reports them.",
    )
    census_cron: CronSchedule = Field(
        default="23 * * * *",
        validation_alias="MCP_ASSETS_CENSUS_CRON",
        description="When the census of everything is taken, and the checks after it.",
    )

    sensor_tick_s: PositiveFloat = Field(
        default=50.0,
        le=300,
        validation_alias="MCP_ASSETS_SENSOR_TICK_S",
        description="Seconds a sensor waits for work in one tick.",
    )
    drain_linger_s: NonNegativeFloat = Field(
        default=5.0,
        validation_alias="MCP_ASSETS_DRAIN_LINGER_S",
        description="Seconds a drain stays after the last work.",
    )
    drain_max_s: PositiveFloat = Field(
        default=180.0,
        validation_alias="MCP_ASSETS_DRAIN_MAX_S",
        description="Seconds after which a drain ends and the next one takes over.",
    )
    reconcile_cron: CronSchedule = Field(
        default="43 2 * * *",
        validation_alias="MCP_ASSETS_RECONCILE_CRON",
        description="When everything is compared with the source tables, as cron has it, UTC.",
    )
    clean_up_cron: CronSchedule = Field(
        default="13 4 * * *",
        validation_alias="MCP_ASSETS_CLEAN_UP_CRON",
        description="When old runs are deleted, as cron has it, UTC.",
    )
    tag_weights_cron: CronSchedule = Field(
        default="17 3 * * *",
        validation_alias="MCP_ASSETS_TAG_WEIGHTS_CRON",
        description="When the weights of tags are counted again, as cron has it, UTC.",
    )
    observe_every_s: PositiveInt = Field(
        default=300,
        validation_alias="MCP_ASSETS_OBSERVE_EVERY_S",
        description="Seconds between two looks at source tables and streams, whose figures Dagster plots.",
    )
    keep_runs_days: PositiveFloat = Field(
        default=30.0,
        validation_alias="MCP_ASSETS_KEEP_RUNS_DAYS",
        description="Days after which a finished run is deleted, with its events; so are observations of sources.",
    )
    alert_webhook: WebhookUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_ALERT_WEBHOOK",
        description="Address to which failed runs and checks are posted, as Slack takes them; docs/how-to/alerts.md.",
    )
    alert_warnings: bool = Field(
        default=True, validation_alias="MCP_ASSETS_ALERT_WARNINGS", description="Post checks that warn, as warnings."
    )
    alert_every_s: PositiveInt = Field(
        default=15, validation_alias="MCP_ASSETS_ALERT_EVERY_S", description="Seconds between two looks for alerts."
    )
    dagster_url: HttpUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_DAGSTER_URL",
        description="Where people reach the Dagster UI; posts to that webhook link to it.",
    )
    docs_url: HttpUrl = Field(
        default=None, validation_alias="MCP_ASSETS_DOCS_URL", description="The site of these pages; the UI links to it."
    )
    state_dir: Path = Field(
        default=Path(".mcp"),
        validation_alias="MCP_ASSETS_STATE_DIR",
        description="Where the embedded stack keeps its state.",
    )
