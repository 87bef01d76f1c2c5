"""Metrics: what the platform shows to Prometheus, read from PostgreSQL alone at the time of the scrape.

Runs are short-lived processes, so that nothing is counted in a process that Prometheus could ask. Counters stand in the
tables `counters` and `embedding_costs`, to which the runs add; the other figures are those of `mcp-assets status`.
"""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mcp_assets.embedding.request_log import LATENCY_BUCKETS_S
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.gates import awaited_decision
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.stored_censuses import drift_counts, last_censuses, recall_by_type
from mcp_assets.sync.counters import LAG_BUCKETS_S, SUM, Count, Counter, bucket_name
from mcp_assets.sync.inbox.drain_lock import heartbeats
from mcp_assets.sync.inbox.table_counts import dead_letter_counts, inbox_counts, ledger_counts, wanted_full_syncs
from mcp_assets.sync.index.embedding_costs import budget_today
from mcp_assets.sync.index.provider_outage import provider_outages
from mcp_assets.sync.index.sweep import last_passes
from mcp_assets.sync.requests.full_sync_requests import sensor_age_s

_SLOWEST_S = 5
"""Seconds that one query of a scrape may take: Prometheus waits ten for all of them."""

_ENTITIES_VALID_S = 60.0
"""How long a count of entities is shown again: it reads the whole ledger, 0.1 s a million rows, and changes slowly."""


class Definition(NamedTuple):
    """A metric: its type in Prometheus' words, its labels, and what it means."""

    kind: str
    labels: Sequence[str]
    help: str


UP = "mcp_assets_up"

METRICS: Mapping[str, Definition] = {
    UP: Definition("gauge", (), "1: PostgreSQL answered this scrape. 0: it did not, and there are no other samples."),
    "mcp_assets_messages": Definition(
        "counter", ("kind", "outcome"), "Messages that intake has read; outcome: accepted, or rejected as no event."
    ),
    "mcp_assets_events": Definition(
        "counter", ("entity_type",), "Events that are applied, so that their entity is searchable."
    ),
    "mcp_assets_event_lag_seconds": Definition(
        "histogram",
        ("entity_type",),
        "From when JetStream stored an event until its entity is searchable.",
    ),
    "mcp_assets_inbox_depth": Definition("gauge", ("kind", "entity_type"), "Messages that are read and not applied."),
    "mcp_assets_inbox_oldest_seconds": Definition(
        "gauge", ("kind", "entity_type"), "Age of the oldest message that is read and not applied."
    ),
    "mcp_assets_entities": Definition("gauge", ("entity_type",), "Living entities in the ledger."),
    "mcp_assets_entities_dirty": Definition("gauge", ("entity_type",), "Entities whose newest state is not in Qdrant."),
    "mcp_assets_rechecks": Definition("gauge", (), "Entities that are compared again: their event may be early."),
    "mcp_assets_embedded_texts": Definition("counter", ("entity_type", "model"), "Texts that a model has embedded."),
    "mcp_assets_embedding_tokens": Definition(
        "counter", ("entity_type", "model"), "Tokens, as the provider counts them, or estimated where it does not."
    ),
    "mcp_assets_embedding_cost_dollars": Definition(
        "counter", ("entity_type", "model"), "US dollars, by the price when the texts were embedded."
    ),
    "mcp_assets_embedding_cost_today_dollars": Definition("gauge", (), "US dollars since 00:00 UTC."),
    "mcp_assets_embedding_budget_today_dollars": Definition(
        "gauge", (), "US dollars that full syncs may spend today; absent: no limit. Events go on beyond it."
    ),
    "mcp_assets_provider_request_seconds": Definition(
        "histogram", ("model",), "Time of requests that the embedding provider answered with status 200."
    ),
    "mcp_assets_provider_refusals": Definition(
        "counter", ("model", "status"), "Requests that it answered otherwise (status), or not (timeout, connection)."
    ),
    "mcp_assets_provider_outage": Definition(
        "gauge", ("model",), "1: the provider embeds nothing with the model; absent: it does, or has not been asked."
    ),
    "mcp_assets_model_change_held": Definition(
        "gauge", (), "1: a change of model waits for a person to decide. 0: none does."
    ),
    "mcp_assets_dead_letters": Definition("gauge", ("stage", "error_kind"), "Dead letters that are not replayed."),
    "mcp_assets_drift": Definition("gauge", ("kind", "severity"), "Differences that the last censuses have found."),
    "mcp_assets_census_age_seconds": Definition(
        "gauge", ("entity_type",), "Age of the oldest of the last censuses of the type's partitions."
    ),
    "mcp_assets_similarity_recall": Definition(
        "gauge",
        ("entity_type",),
        "Share of the exact neighbours of a sample that have a similarity edge; absent: all searches are exact.",
    ),
    "mcp_assets_linker_backlog": Definition("gauge", (), "Entities that are marked to be linked."),
    "mcp_assets_linker_oldest_seconds": Definition("gauge", (), "Age of the oldest such mark; 0: there is none."),
    "mcp_assets_sweep_pass_seconds": Definition(
        "gauge", ("entity_type",), "Length of the last whole pass of the sweep: its pace."
    ),
    "mcp_assets_sweep_age_seconds": Definition("gauge", ("entity_type",), "Time since that pass ended."),
    "mcp_assets_drains_alive": Definition("gauge", ("entity_type",), "Drains that hold their lock and beat."),
    "mcp_assets_sensor_age_seconds": Definition(
        "gauge", (), "Time since a sensor has ticked; absent: none ever has. Without ticks nothing is read."
    ),
    "mcp_assets_wanted_full_syncs": Definition("gauge", ("entity_type",), "1: the type has lost events."),
    "mcp_assets_answers_waiting": Definition("gauge", (), "Results that NATS has not confirmed."),
}
"""Every metric by its name; the samples of a counter end in _total, those of a histogram in _bucket, _sum, _count."""


def sample_names(name: str) -> list[str]:
    """The names under which Prometheus stores the samples of a metric."""
    match METRICS[name].kind:
        case "counter":
            return [f"{name}_total"]
        case "histogram":
            return [f"{name}_bucket", f"{name}_sum", f"{name}_count"]
    return [name]


class PlatformCollector(Collector):
    """Reads the metrics of a platform at each scrape. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._entities: tuple[float, Mapping[str, tuple[int, int]]] | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering does not read from PostgreSQL."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics; if PostgreSQL does not answer, `mcp_assets_up` with 0 and no other."""
        with self._lock:
            up = _Families()
            try:
                families = self._read()
            except (StoreUnavailable, StoreRefused, SettingsError):
                up.add(UP, (), 0)
                return iter(up.made())
        families.add(UP, (), 1)
        return iter(families.made())

    def _read(self) -> "_Families":
        found = _Families()
        platform = self._platform
        postgres = platform.postgres
        with postgres.transaction() as connection:
            connection.execute(postgres.query("limit_scrape"), {"timeout": f"{_SLOWEST_S}s"})
            _read_counters(found, postgres.rows(connection, "read_counters", Count))
            for cost in postgres.rows(connection, "costs_in_all", _CostInAll):
                labels = (cost.entity_type, cost.model)
                found.add("mcp_assets_embedded_texts", labels, cost.texts)
                found.add("mcp_assets_embedding_tokens", labels, cost.tokens)
                found.add("mcp_assets_embedding_cost_dollars", labels, cost.usd)
            _read_waiting(found, platform, connection)
            for name, (living, dirty) in self._entity_counts(connection).items():
                found.add("mcp_assets_entities", (name,), living)
                found.add("mcp_assets_entities_dirty", (name,), dirty)
        _read_spending(found, platform)
        _read_upkeep(found, platform)
        return found

    def _entity_counts(self, connection: Connection) -> Mapping[str, tuple[int, int]]:
        if self._entities is None or time.monotonic() - self._entities[0] > _ENTITIES_VALID_S:
            counts = {row.entity_type: (row.living, row.dirty) for row in ledger_counts(self._platform, connection)}
            self._entities = (time.monotonic(), counts)
        return self._entities[1]


@dataclass(frozen=True, slots=True)
class _CostInAll:
    """What was embedded of one entity type with one model since the platform was installed."""

    entity_type: str
    model: str
    texts: int
    tokens: int
    usd: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What waits, in numbers and seconds."""

    marked: int
    oldest_mark_s: float
    rechecks: int
    answers: int


class _Families:
    """The metrics of one scrape, with the samples that were read."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, labels: Sequence[str], value: float) -> None:
        """A sample of a gauge or a counter."""
        family = self._family(name)
        assert isinstance(family, GaugeMetricFamily | CounterMetricFamily)  # noqa: S101  (METRICS says which)
        family.add_metric(list(labels), value)

    def add_histogram(
        self, name: str, labels: Sequence[str], bounds: Sequence[float], parts: Mapping[str, float]
    ) -> int:
        """A histogram of its parts, the counts of single buckets and the sum. Returns how many values it has.

        All `bounds` have a sample, because a series that begins late would lose its first values in a rate.
        """
        names = {*map(bucket_name, (*bounds, math.inf)), *parts} - {SUM}
        buckets: list[tuple[str, float]] = []
        total = 0.0
        for bound in sorted(names, key=float):
            total += parts.get(bound, 0.0)
            buckets.append((bound, total))
        family = self._family(name)
        assert isinstance(family, HistogramMetricFamily)  # noqa: S101  (METRICS says which)
        family.add_metric(list(labels), buckets, sum_value=parts.get(SUM, 0.0))
        return round(total)

    def made(self) -> list[Metric]:
        """Those that have samples, in the order of METRICS."""
        return [self._families[name] for name in METRICS if name in self._families]

    def _family(self, name: str) -> Metric:
        if name not in self._families:
            kind, labels, text = METRICS[name]
            makers = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
            self._families[name] = makers[kind](name, text, labels=list(labels))
        return self._families[name]


def _read_counters(found: _Families, counts: Sequence[Count]) -> None:
    histograms: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for one in counts:
        match one.name:
            case Counter.MESSAGES:
                found.add("mcp_assets_messages", (one.label, one.part), one.value)
            case Counter.REFUSALS:
                found.add("mcp_assets_provider_refusals", (one.label, one.part), one.value)
            case _:
                histograms[one.name, one.label][one.part] = one.value
    for (name, label), parts in histograms.items():
        if name == Counter.LAG:
            events = found.add_histogram("mcp_assets_event_lag_seconds", (label,), LAG_BUCKETS_S, parts)
            found.add("mcp_assets_events", (label,), events)
        elif name == Counter.REQUESTS:
            found.add_histogram("mcp_assets_provider_request_seconds", (label,), LATENCY_BUCKETS_S, parts)


def _read_waiting(found: _Families, platform: Platform, connection: Connection) -> None:
    now = time.time()
    for row in inbox_counts(platform, connection):
        labels = (row.kind, row.entity_type)
        found.add("mcp_assets_inbox_depth", labels, row.messages)
        found.add("mcp_assets_inbox_oldest_seconds", labels, max(0.0, now - row.oldest_at.timestamp()))
    for letters in dead_letter_counts(platform, connection):
        found.add("mcp_assets_dead_letters", (letters.stage, letters.error_kind), letters.letters)
    lost = {wanted.entity_type for wanted in wanted_full_syncs(platform, connection)}
    for name in platform.settings.entity_types:
        found.add("mcp_assets_wanted_full_syncs", (name,), name in lost)
    waiting = platform.postgres.row(connection, "scrape_waiting", _Waiting)
    assert waiting is not None  # noqa: S101  (the query has one row)
    found.add("mcp_assets_linker_backlog", (), waiting.marked)
    found.add("mcp_assets_linker_oldest_seconds", (), waiting.oldest_mark_s)
    found.add("mcp_assets_rechecks", (), waiting.rechecks)
    found.add("mcp_assets_model_change_held", (), awaited_decision(platform, connection) is not None)
    found.add("mcp_assets_answers_waiting", (), waiting.answers)


def _read_spending(found: _Families, platform: Platform) -> None:
    budget = budget_today(platform)
    found.add("mcp_assets_embedding_cost_today_dollars", (), budget.spent_usd)
    if not math.isinf(budget.allowed_usd):
        found.add("mcp_assets_embedding_budget_today_dollars", (), budget.allowed_usd)
    for outage in provider_outages(platform):
        found.add("mcp_assets_provider_outage", (outage.model,), 1)


def _read_upkeep(found: _Families, platform: Platform) -> None:
    censuses = last_censuses(platform)
    oldest: dict[str, float] = {}
    for census in censuses:
        oldest[census.entity_type] = max(census.age_s, oldest.get(census.entity_type, 0.0))
    for name, age_s in oldest.items():
        found.add("mcp_assets_census_age_seconds", (name,), age_s)
    for name, recall in recall_by_type(censuses).items():
        if recall.share is not None:
            found.add("mcp_assets_similarity_recall", (name,), recall.share)
    if censuses:
        drift = dict.fromkeys(DriftKind, 0)
        for counts in drift_counts(platform, [census.id for census in censuses]).values():
            for kind, number in counts.items():
                drift[kind] += number
        for kind, number in drift.items():
            found.add("mcp_assets_drift", (kind.value, kind.severity.value), number)
    for swept in last_passes(platform):
        found.add("mcp_assets_sweep_pass_seconds", (swept.entity_type,), swept.counts.seconds)
        found.add("mcp_assets_sweep_age_seconds", (swept.entity_type,), swept.age_s)
    alive = heartbeats(platform)
    if (sensor_s := sensor_age_s(platform)) is not None:
        found.add("mcp_assets_sensor_age_seconds", (), sensor_s)
    for name in platform.settings.entity_types:
        found.add("mcp_assets_drains_alive", (name,), sum(beat.is_alive for beat in alive.get(name, ())))
