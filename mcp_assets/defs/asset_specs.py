"""Asset specs: what the page of each asset says before anything is materialized."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._utils.schedules import get_smallest_cron_interval

from mcp_assets.defs.keys import CENSUS, EDGES, EMBEDDINGS, ENTITIES, GROUP, OWNERS, key_of, stage_tag
from mcp_assets.defs.links import docs_link
from mcp_assets.defs.table_schemas import EDGES as EDGE_COLUMNS
from mcp_assets.defs.table_schemas import LEDGER, POINTS
from mcp_assets.entities.text import prepared_by, text_version
from mcp_assets.settings import Settings
from mcp_assets.sync.link.link_rules import RULES_VERSION
from mcp_assets.sync.views.sources import sources_of

_FIGURES = (
    "\n\nOf the figures below, *Row count* and `total/…` are of all partitions. The others are what one run did in the "
    "partition that it reported last."
)


def index_specs(settings: Settings) -> list[dg.AssetSpec]:
    """Of `entities`, `embeddings` and `relationship_edges`."""
    shared: dict[str, Any] = {
        "skippable": True,
        "owners": OWNERS,
        "group_name": GROUP,
        "freshness_policy": _fresh_after_each(settings.reconcile_cron),
    }
    return [_entities(settings, shared), _embeddings(settings, shared), _edges(settings, shared)]


def _entities(settings: Settings, shared: Mapping[str, Any]) -> dg.AssetSpec:
    return dg.AssetSpec(
        ENTITIES,
        deps=[key_of(source) for source in sources_of(settings)],
        description="The ledger: each entity's newest state and its hashes, a row an entity." + _FIGURES,
        kinds={"postgres"},
        code_version=prepared_by(settings.chunks),
        tags=stage_tag("ledger"),
        metadata={
            "dagster/table_name": f"{settings.schema_name}.entities",
            "dagster/column_schema": LEDGER,
            **docs_link(settings, "reference/tables"),
        },
        **shared,
    )


def _embeddings(settings: Settings, shared: Mapping[str, Any]) -> dg.AssetSpec:
    profile = settings.profile
    return dg.AssetSpec(
        EMBEDDINGS,
        deps=[ENTITIES],
        description="Every entity as a point in Qdrant, a long one with points for its chunks." + _FIGURES,
        kinds={"qdrant", settings.provider},
        code_version=f"{profile.name}-{profile.dimension}/{text_version(settings.chunks)}",
        tags=stage_tag("vectors"),
        metadata={
            "model": profile.name,
            "dimension": profile.dimension,
            "provider": settings.provider,
            **_collections(settings),
            "dagster/column_schema": POINTS,
            **docs_link(settings, "reference/points"),
        },
        **shared,
    )


def _edges(settings: Settings, shared: Mapping[str, Any]) -> dg.AssetSpec:
    profile = settings.profile
    return dg.AssetSpec(
        EDGES,
        deps=[ENTITIES, EMBEDDINGS],
        description="Typed, weighted links from each entity of the partition to others, of any type." + _FIGURES,
        kinds={"postgres"},
        code_version=f"{profile.name}-{profile.similarity_threshold}/rules-{RULES_VERSION}",
        tags=stage_tag("graph"),
        metadata={
            "dagster/table_name": settings.relationships_table,
            "dagster/column_schema": EDGE_COLUMNS,
            "similarity_threshold": profile.similarity_threshold,
            **docs_link(settings, "reference/edges"),
        },
        **shared,
    )


def census_spec(settings: Settings) -> dg.AssetSpec:
    """Of `consistency_census`."""
    return dg.AssetSpec(
        CENSUS,
        deps=[ENTITIES, EMBEDDINGS, EDGES],
        description="Source tables, ledger, Qdrant and edges, compared as they are now; what differs is drift. "
        "The job `census` takes it, and then judges it by the checks of the three assets." + _FIGURES,
        kinds={"postgres", "qdrant"},
        owners=OWNERS,
        group_name=GROUP,
        tags=stage_tag("audit"),
        freshness_policy=_fresh_after_each(settings.census_cron),
        metadata={
            "dagster/table_name": f"{settings.schema_name}.drift",
            **docs_link(settings, "explanation/consistency"),
        },
    )


def _collections(settings: Settings) -> Mapping[str, Any]:
    """The alias in Qdrant of each entity type."""
    types: dict[str, list[str]] = {}
    for name, entity_type in settings.entity_types.items():
        types.setdefault(entity_type.collection_name, []).append(name)
    return {f"collection/{alias}": ", ".join(names) for alias, names in types.items()}


def _fresh_after_each(cron: str) -> dg.FreshnessPolicy:
    """Fresh: materialized since the tick before the last one. A schedule that misses its work once turns it stale."""
    interval: timedelta = get_smallest_cron_interval(cron)
    return dg.FreshnessPolicy.cron(deadline_cron=cron, lower_bound_delta=interval)
