"""Sources: the source tables and the NATS streams, which others write and this platform reads, as observable assets."""

import warnings
from collections.abc import Iterator

import dagster as dg

from mcp_assets.defs.keys import GROUP, OWNERS, key_of, stage_tag
from mcp_assets.defs.links import docs_link
from mcp_assets.defs.observations import source_metadata
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.defs.table_schemas import mapped_columns
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.settings import Settings
from mcp_assets.sync.views.sources import Source, sources_of


def build_sources(settings: Settings) -> dg.AssetsDefinition:
    """All source tables and streams. *Observe* in the UI reads their figures in a run; the sensor needs no run."""

    def observe_sources(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[dg.ObserveResult]:
        opened: Platform = platform.get()
        for source in sources_of(opened.settings):
            key = key_of(source)
            if key in context.selected_asset_keys:
                metadata = retrying(opened.settings)(source_metadata, opened, source)
                if metadata is None:
                    context.log.info(f"the stream {source.name} does not exist yet: the first intake makes it")
                else:
                    yield dg.ObserveResult(asset_key=key, metadata=metadata)

    with warnings.catch_warnings():
        # Dagster calls the decorator beta. This project pins Dagster's version, and a user can do nothing about it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        sources: dg.AssetsDefinition = dg.multi_observable_source_asset(
            name="observe_sources",
            specs=[_spec(settings, source) for source in sources_of(settings)],
            can_subset=True,
            description="Reads how many rows and messages there are, and how far the platform is behind.",
        )(observe_sources)
    return sources


def _spec(settings: Settings, source: Source) -> dg.AssetSpec:
    if not source.is_table:
        return dg.AssetSpec(
            key_of(source),
            description="JetStream stream of entity events and requests. Other programs publish to it.",
            kinds={"nats"},
            owners=OWNERS,
            tags=stage_tag("source"),
            group_name=GROUP,
            metadata={"stream": source.name, **docs_link(settings, "reference/messages")},
        )
    mapping = settings.entity_types[source.entity_types[0]].source
    assert mapping is not None  # noqa: S101  (the source of a type with a source table)
    names = " and ".join(source.entity_types)
    return dg.AssetSpec(
        key_of(source),
        description=f"Source table of {names} entities: the truth. Other programs write it.",
        kinds={"postgres", "table"},
        owners=OWNERS,
        tags=stage_tag("source"),
        group_name=GROUP,
        metadata={
            "dagster/table_name": source.name,
            "dagster/column_schema": mapped_columns(mapping),
            "entity_types": names,
            "alive_rows_are": mapping.alive,
            **docs_link(settings, "how-to/own-tables"),
        },
    )
