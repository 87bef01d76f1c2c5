"""Search and the MCP server: weights, filters, duplicates, who may connect."""

from pydantic import Field, NonNegativeFloat, SecretStr
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import MetadataIndex


class SearchFields(BaseSettings):
    """Search and the MCP server: weights, filters, duplicates, who may connect."""

    search_words_weight: NonNegativeFloat = Field(
        default=3.0,
        validation_alias="MCP_ASSETS_SEARCH_WORDS_WEIGHT",
        description="Weight of the ranking by words in a search.",
    )
    search_meaning_weight: NonNegativeFloat = Field(
        default=1.0,
        validation_alias="MCP_ASSETS_SEARCH_MEANING_WEIGHT",
        description="Weight of the ranking by meaning; raise it if your embedding model is better than the local one.",
    )
    mcp_token: SecretStr | None = Field(
        default=None,
        validation_alias="MCP_ASSETS_MCP_TOKEN",
        description="Token that clients of `mcp-assets mcp --http` have to send; docs/how-to/assistants.md.",
    )
    mcp_writes: bool = Field(
        default=False,
        validation_alias="MCP_ASSETS_MCP_WRITES",
        description="Let clients of `mcp-assets mcp` accept and reject relationships; docs/how-to/verdicts.md.",
    )
    duplicate_similarity: float = Field(
        default=0.85,
        gt=0,
        le=1,
        validation_alias="MCP_ASSETS_DUPLICATE_SIMILARITY",
        description="Cosine from which on the words of two entities are compared, to find possible duplicates.",
    )
    duplicate_shared_words: float = Field(
        default=0.7,
        gt=0,
        le=1,
        validation_alias="MCP_ASSETS_DUPLICATE_SHARED_WORDS",
        description="Share of the pairs of neighbouring words that two entities have in common from which on they are "
        "possible duplicates; docs/how-to/duplicates.md.",
    )
    filter_keys: dict[str, MetadataIndex] = Field(
        default={"due_date": "datetime"},
        validation_alias="MCP_ASSETS_FILTER_KEYS",
        description="JSON; metadata keys that Qdrant indexes for `search --where`, to the kind of their values: "
        "keyword, integer, float, bool or datetime. Mapped columns that it does not name are keywords.",
    )
