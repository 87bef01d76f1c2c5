"""Counters: sums since the platform was installed, in PostgreSQL, because runs and their memory are short-lived.

Work adds to them in its own transaction, so that what is counted is what was committed; `mcp-assets metrics` reads
them.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

LAG_BUCKETS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the histogram of lags: an event takes about a second, in a burst of thousands half a minute."""


class Counter(StrEnum):
    """What is counted; `counters.name`."""

    MESSAGES = "messages"
    """Messages that intake has read, by kind and outcome."""
    LAG = "event_lag"
    """Events that were applied, by entity type, in buckets of their lag; the part `sum` is the sum of the seconds."""
    REQUESTS = "provider_requests"
    """Requests that the provider answered, by model, in buckets of their time; the part `sum` as above."""
    REFUSALS = "provider_refusals"
    """Requests that the provider did not answer with vectors, by model and status."""


SUM = "sum"
"""The part of a histogram that is the sum of the values, beside its buckets."""


class Count(NamedTuple):
    """A number to add, or a counter as it is read."""

    name: str
    label: str
    part: str
    value: float


def add(platform: Platform, connection: Connection, counts: Sequence[Count]) -> None:
    """Add to the counters, by one statement."""
    if counts:
        connection.execute(
            platform.postgres.query("add_to_counters"),
            {
                "name": [one.name for one in counts],
                "label": [one.label for one in counts],
                "part": [one.part for one in counts],
                "value": [float(one.value) for one in counts],
            },
        )


def histogram(name: str, label: str, buckets: Iterable[tuple[float, int]], total: float) -> list[Count]:
    """The counts of a histogram: of each bucket (upper bound, how many), and of the sum of the values."""
    counted = [Count(name, label, bucket_name(bound), number) for bound, number in buckets]
    return [*counted, Count(name, label, SUM, total)] if counted else []


def bucket_name(bound: float) -> str:
    """An upper bound as PostgreSQL writes a float8, and as Prometheus writes the label `le`."""
    return "+Inf" if bound == float("inf") else f"{bound:g}"
