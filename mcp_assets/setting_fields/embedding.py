"""The embedding provider and its models."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import CertificateFile, HttpUrl, Provider


class EmbeddingFields(BaseSettings):
    """The embedding provider and its models."""

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
    embedding_tls_ca_file: CertificateFile = Field(
        default=None,
        validation_alias="EMBEDDING_TLS_CA_FILE",
        description="Certificate of the authority that signed the provider's; default: those of the machine.",
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
        description="US dollars a million tokens, for plans and costs; default: the model's list price, if known.",
    )
    embedding_budget_a_day: PositiveFloat | None = Field(
        default=None,
        validation_alias="EMBEDDING_BUDGET_A_DAY",
        description="US dollars a day (UTC) after which full syncs pause until the next day. Events never pause.",
    )
    requests_a_minute: PositiveInt | None = Field(
        default=None,
        validation_alias="EMBEDDING_REQUESTS_A_MINUTE",
        description="Requests to each model a minute, of all runs together.",
    )
    tokens_a_minute: PositiveInt | None = Field(
        default=None,
        validation_alias="EMBEDDING_TOKENS_A_MINUTE",
        description="Tokens to each model a minute, of all runs together.",
    )
    embedding_concurrency: PositiveInt = Field(
        default=8,
        validation_alias="EMBEDDING_CONCURRENCY",
        description="Requests to the provider at once, in each process.",
    )
    embedding_shared_concurrency: NonNegativeInt = Field(
        default=0,
        validation_alias="EMBEDDING_SHARED_CONCURRENCY",
        description="Requests to the provider at once, over the runs of all machines; 0: each process has its "
        "own limit alone.",
    )
    embedding_timeout_s: PositiveFloat = Field(
        default=60.0,
        validation_alias="EMBEDDING_TIMEOUT_S",
        description="Seconds one request to the provider may take.",
    )
    provider_retry_s: PositiveFloat = Field(
        default=60.0,
        validation_alias="MCP_ASSETS_PROVIDER_RETRY_S",
        description="Wait before the next run while the provider refuses everything; doubles up to 16 minutes.",
    )
    kept_vectors_mb: int = Field(
        default=256,
        ge=1,
        validation_alias="MCP_ASSETS_KEPT_VECTORS_MB",
        description="MiB of paid vectors kept in PostgreSQL while Qdrant cannot take them.",
    )
    chunking: bool = Field(
        default=True,
        validation_alias="MCP_ASSETS_CHUNKING",
        description="Chunk points for texts over 8,000 characters.",
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
