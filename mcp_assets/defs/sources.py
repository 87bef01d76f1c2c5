"""External assets: the source tables and the NATS streams, which others write and this platform reads."""

from collections.abc import Sequence

import dagster as dg

from mcp_assets.settings import Settings


def source_table_key(table: str) -> dg.AssetKey:
    return dg.AssetKey(["source", *table.split(".")])


def stream_key(stream: str) -> dg.AssetKey:
    return dg.AssetKey(["nats", stream.replace("-", "_")])


def external_assets(settings: Settings) -> Sequence[dg.AssetSpec]:
    tables = {
        entity_type.source.table: name for name, entity_type in settings.entity_types.items() if entity_type.source
    }
    return [
        *(
            dg.AssetSpec(
                source_table_key(table),
                description=f"Source table of {name} entities: the truth.",
                kinds={"postgres", "table"},
                group_name="sources",
            )
            for table, name in tables.items()
        ),
        *(
            dg.AssetSpec(
                stream_key(stream),
                description="JetStream stream of entity events and requests.",
                kinds={"nats"},
                group_name="sources",
            )
            for stream in settings.streams
        ),
    ]
