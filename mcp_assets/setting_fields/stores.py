"""Where the stores are and what the platform's parts in them are called."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from mcp_assets.setting_fields.values import (
    CertificateFile,
    DatabaseUrl,
    HttpUrl,
    Identifier,
    NatsUrl,
    ReadableFile,
    TableName,
    json_list,
    matching,
)


class StoreFields(BaseSettings):
    """Where the stores are and what the platform's parts in them are called."""

    database_url: DatabaseUrl = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL: source tables, the platform's own, Dagster's storage.",
    )
    source_database_url: DatabaseUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_SOURCE_DATABASE_URL",
        description="PostgreSQL of the source tables, if it is not that of `DATABASE_URL`; docs/how-to/own-tables.md.",
    )
    nats_url: NatsUrl = Field(default=None, validation_alias="NATS_URL", description="NATS server(s), comma-separated.")
    nats_creds_file: ReadableFile = Field(
        default=None,
        validation_alias="NATS_CREDS_FILE",
        description="File of NATS credentials (JWT and seed), as `nsc` writes them.",
    )
    nats_nkey_file: ReadableFile = Field(
        default=None,
        validation_alias="NATS_NKEY_FILE",
        description="File with the seed of an NKey of a user (`SU…`), which signs in without a password.",
    )
    nats_tls_ca_file: CertificateFile = Field(
        default=None,
        validation_alias="NATS_TLS_CA_FILE",
        description="Certificate of the authority that signed the NATS servers'; default: those of the machine.",
    )
    nats_tls_cert_file: ReadableFile = Field(
        default=None,
        validation_alias="NATS_TLS_CERT_FILE",
        description="The platform's own certificate, for a NATS that asks its clients for one.",
    )
    nats_tls_key_file: ReadableFile = Field(
        default=None, validation_alias="NATS_TLS_KEY_FILE", description="The private key of that certificate."
    )
    qdrant_url: HttpUrl = Field(
        default=None,
        validation_alias="QDRANT_URL",
        description="Qdrant, REST. An address without a port means 6333; behind a proxy name its port, such as 443.",
    )
    qdrant_api_key: SecretStr | None = Field(
        default=None, validation_alias="QDRANT_API_KEY", description="Key for Qdrant, if it requires one."
    )
    qdrant_read_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="QDRANT_READ_API_KEY",
        description="Read-only key for commands that only read, such as `search`; default: `QDRANT_API_KEY`.",
    )
    qdrant_tls_ca_file: CertificateFile = Field(
        default=None,
        validation_alias="QDRANT_TLS_CA_FILE",
        description="Certificate of the authority that signed Qdrant's; default: those of the machine.",
    )
    state_dir: Path = Field(
        default=Path(".mcp"),
        validation_alias="MCP_ASSETS_STATE_DIR",
        description="Where the embedded stack keeps its state.",
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
    streams: Annotated[tuple[str, ...], NoDecode, BeforeValidator(json_list)] = Field(
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
    results_stream: Annotated[str, matching(r"[A-Za-z0-9_-]+", "give letters, digits, - and _")] = Field(
        default="MCP_ASSETS_RESULTS",
        validation_alias="MCP_ASSETS_RESULTS_STREAM",
        description="Stream that keeps results for listeners that were away; docs/reference/messages.md.",
    )
    results_days: PositiveFloat = Field(
        default=3.0,
        validation_alias="MCP_ASSETS_RESULTS_DAYS",
        description="Days for which that stream keeps a result, if mcp_assets makes it.",
    )
