"""Observations: the figures of source tables and streams, which a sensor logs every few minutes without any run.

Each observation is a row of Dagster's event log. So a source is observed only when its figures have changed, and once
an hour otherwise. A source whose figures take long to read rests for a hundred times as long as that took.
"""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import dagster as dg

from mcp_assets.defs.keys import key_of
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.source_tables.figures import TableFigures
from mcp_assets.sync.views.sources import Source, StreamFigures, sources_of, stream_figures, table_figures

_UNCHANGED_FOR_S = 3_600.0
"""Seconds after which a source is observed although nothing has changed, so that the UI shows that it was looked at."""

_RESTS_FOR = 100
"""How many times as long as reading its figures took a source is left alone: reading costs at most 1 % of the time."""


def build_observation_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that observes the sources. It is on by default, and asks for no run."""

    @dg.sensor(
        name="source_observation_sensor",
        # Their pages name the sensor because of it. It asks for no run of them.
        target=[key_of(source) for source in sources_of(settings)],
        minimum_interval_seconds=settings.observe_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Observes source tables and streams: rows, newest update, messages, unread, lag. It starts no run. "
        "A source is observed when its figures have changed, and once an hour otherwise.",
    )
    def source_observation_sensor(platform: PlatformResource) -> dg.SensorResult:
        return observe(platform.get())

    return source_observation_sensor


@dataclass(frozen=True, slots=True)
class Last:
    """The last observation of a source: when it was, and when the source may be read again, by the monotonic clock."""

    at: float
    rests_until: float
    digest: str
    """Of its figures."""


class LastObservations:
    """What this process has observed last. It is in memory, because the cursor of the sensor is for people to read.

    After a restart each source is observed once more.
    """

    def __init__(self, platform: Platform) -> None:  # noqa: ARG002  (as companions are made)
        self.of: dict[dg.AssetKey, Last] = {}

    def close(self) -> None:
        """There is nothing to close."""


def observe(platform: Platform) -> dg.SensorResult:
    """One tick: the observations of those sources that are due and that have changed."""
    known = platform.companion(LastObservations).of
    events: list[dg.AssetObservation] = []
    unread: list[str] = []
    for source in sources_of(platform.settings):
        key, now = key_of(source), time.monotonic()
        last = known.get(key)
        if last is not None and now < last.rests_until:
            continue
        metadata = None
        try:
            # Not tried again at once: the next tick does that, and the other sources may be in other stores.
            metadata = source_metadata(platform, source)
            if metadata is None:
                unread.append(f"{key.to_user_string()} does not exist yet")
        except (StoreUnavailable, StoreRefused) as error:
            unread.append(f"{key.to_user_string()} could not be read: {error}")
        rests_until = now + _RESTS_FOR * (time.monotonic() - now)
        if metadata is None:
            known[key] = Last(-math.inf, rests_until, "") if last is None else replace(last, rests_until=rests_until)
            continue
        digest = hashlib.md5(repr(sorted(metadata.items())).encode(), usedforsecurity=False).hexdigest()
        if last is not None and last.digest == digest and now - last.at < _UNCHANGED_FOR_S:
            known[key] = Last(last.at, rests_until, digest)
            continue
        known[key] = Last(now, rests_until, digest)
        events.append(dg.AssetObservation(key, metadata=metadata))
    observed = ", ".join(event.asset_key.to_user_string() for event in events)
    words = "; ".join([f"observed {observed}" if observed else "nothing has changed", *unread])
    return dg.SensorResult(asset_events=events, cursor=words, skip_reason=words)


def source_metadata(platform: Platform, source: Source) -> Mapping[str, dg.MetadataValue] | None:
    """What an observation of the source says; None: the stream does not exist yet.

    Raises:
        StoreRefused, StoreUnavailable: the source cannot be read.
    """
    if source.is_table:
        return _of_table(table_figures(platform, source.entity_types))
    figures = stream_figures(platform, source.name)
    return None if figures is None else _of_stream(figures)


def _of_table(figures: TableFigures) -> dict[str, dg.MetadataValue]:
    entries: dict[str, dg.MetadataValue] = {"dagster/row_count": dg.MetadataValue.int(figures.rows)}
    if figures.living is not None:
        entries["living_rows"] = dg.MetadataValue.int(figures.living)
    if figures.newest_at is not None:
        entries["newest_update"] = dg.MetadataValue.timestamp(figures.newest_at)
    entries["dagster/column_schema"] = dg.MetadataValue.table_schema(
        dg.TableSchema(
            [
                dg.TableColumn(
                    column.name,
                    column.type,
                    description=column.comment,
                    constraints=dg.TableColumnConstraints(nullable=column.nullable),
                )
                for column in figures.columns
            ]
        )
    )
    return entries


def _of_stream(figures: StreamFigures) -> dict[str, dg.MetadataValue]:
    return {
        "dagster/row_count": dg.MetadataValue.int(figures.messages),
        "last_sequence": dg.MetadataValue.int(figures.last_sequence),
        "unread": dg.MetadataValue.int(figures.unread),
        "not_applied": dg.MetadataValue.int(figures.unapplied),
        "lag_s": dg.MetadataValue.float(round(figures.lag_s, 1)),
    }
