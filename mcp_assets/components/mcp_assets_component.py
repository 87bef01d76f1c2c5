"""The component: attributes of defs.yaml, each of which is a setting, and the definitions for these settings."""

from typing import Any, Literal

import dagster as dg
from pydantic import Field


def _attribute(description: str) -> Any:
    """An attribute that defs.yaml may leave out."""
    return Field(default=None, description=description)


class McpAssetsComponent(dg.Component, dg.Resolvable, dg.Model):
    """Keeps tasks, pages and memories embedded, linked and consistent: assets, checks, jobs, schedules and sensors.

    Each attribute is the setting of the same name, which an environment variable sets otherwise. An attribute and a
    variable that say different things are an error. Addresses and keys are environment variables alone.
    """

    sources_file: str | None = _attribute(
        "Mapping file of your tables, relative to the project's folder; default: mcp_assets.yaml there, if it exists."
    )
    types: dict[str, Any] | None = _attribute("Entity types mapped here, as MCP_ASSETS_TYPES has them.")
    source_preset: Literal["mcp", "cards"] | None = _attribute("MCP_ASSETS_SOURCE_PRESET: shape of the source tables.")
    shards: int | None = _attribute("MCP_ASSETS_SHARDS: partitions an entity type.")
    streams: list[str] | None = _attribute("MCP_ASSETS_STREAMS: JetStream streams to read.")
    embedding_provider: Literal["openai", "local"] | None = _attribute("EMBEDDING_PROVIDER.")
    embedding_model: str | None = _attribute("EMBEDDING_MODEL.")
    embedding_dimension: int | None = _attribute("EMBEDDING_DIMENSION: for a model that mcp_assets does not know.")
    openai_base_url: str | None = _attribute("OPENAI_BASE_URL: an OpenAI-compatible server.")
    similarity_threshold: float | None = _attribute("SIMILARITY_THRESHOLD: cosine; default: the model's own.")
    topical_threshold: float | None = _attribute("MCP_ASSETS_TOPICAL_THRESHOLD: weighted Jaccard of tags.")
    schema_name: str | None = _attribute("MCP_ASSETS_SCHEMA: schema of the platform's own tables.")
    relationships_table: str | None = _attribute("MCP_ASSETS_RELATIONSHIPS_TABLE: table of the edges.")
    entity_url: str | None = _attribute("MCP_ASSETS_ENTITY_URL: address of an entity's own page.")
    census_cron: str | None = _attribute("MCP_ASSETS_CENSUS_CRON: when the census is taken.")
    reconcile_cron: str | None = _attribute("MCP_ASSETS_RECONCILE_CRON: when everything is compared.")

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """What `dg list components` shows."""
        return dg.ComponentTypeSpec(
            description="Embeddings, relationship edges and consistency of MCP tasks, pages and memories.",
            owners=["team:mcp-assets"],
            tags=["postgres", "nats", "qdrant"],
            produces=["asset", "asset_check", "job", "schedule", "sensor", "resource"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions, whose runs, ticks and checks work by the attributes.

        Raises:
            dagster.DagsterInvalidDefinitionError: a setting is wrong, or attribute and environment differ.
        """
        # `dg` imports this module to list components; what the definitions need takes seconds.
        from mcp_assets.definitions import component_defs
        from mcp_assets.project_component import settings_of
        from mcp_assets.setting_errors import SettingsError

        given = settings_of(self.model_dump(exclude_none=True), context.project_root)
        try:
            return component_defs(given)
        except SettingsError as error:
            raise dg.DagsterInvalidDefinitionError(f"{context.path}: {error}") from error
