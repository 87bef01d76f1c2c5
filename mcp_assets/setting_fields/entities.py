"""What an entity is: source tables, types, links between entities."""

from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import Identifier, SourcePreset, TypeMapping


class EntityFields(BaseSettings):
    """What an entity is: source tables, types, links between entities."""

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
    similarity_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        validation_alias="SIMILARITY_THRESHOLD",
        description="Cosine; default: the model's own.",
    )
    exact_up_to: PositiveInt = Field(
        default=100_000,
        validation_alias="MCP_ASSETS_EXACT_UP_TO",
        description="Points in a collection up to which similarity edges are exact; beyond it Qdrant answers by its "
        "index, faster, and each census measures the recall; docs/explanation/linking.md.",
    )
    least_recall: float = Field(
        default=0.95,
        gt=0,
        le=1,
        validation_alias="MCP_ASSETS_LEAST_RECALL",
        description="Share of the exact neighbours that must have a similarity edge, of collections beyond "
        "`MCP_ASSETS_EXACT_UP_TO`; below it the check `similarity_recall_suffices` warns.",
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
