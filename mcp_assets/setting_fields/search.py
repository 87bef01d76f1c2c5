"""How a search weighs words and meaning, and by which metadata it filters."""

from pydantic import Field, NonNegativeFloat
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import MetadataIndex


class SearchFields(BaseSettings):
    """How a search weighs words and meaning, and by which metadata it filters."""

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
    filter_keys: dict[str, MetadataIndex] = Field(
        default={"due_date": "datetime"},
        validation_alias="MCP_ASSETS_FILTER_KEYS",
        description="JSON; metadata keys that Qdrant indexes for `search --where`, to the kind of their values: "
        "keyword, integer, float, bool or datetime. Mapped columns that it does not name are keywords.",
    )
