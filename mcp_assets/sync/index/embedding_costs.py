"""Embedding costs: what is embedded, by entity type and day, what it costs, and the daily budget of full syncs.

What was embedded is added up in the process, and written every few seconds: a process that is killed loses no more.
"""

import logging
import math
import threading
import time
from dataclasses import dataclass, field
from datetime import date

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.request_log import RequestingEmbedder
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync import counters
from mcp_assets.sync.counters import Count, Counter

notices = logging.getLogger("mcp_assets.notices")
"""Lines for a person who watches a run: dagster.yaml has them shown in the UI."""

BYTES_A_TOKEN = 4
"""Of text in UTF-8, as most tokenizers cut English; used where the provider does not count tokens."""

_WRITTEN_EVERY_S = 2.0
"""How often a process writes what it has embedded: a small transaction beside hundreds of a bulk load."""


@dataclass(slots=True)
class _Cost:
    """What was embedded of one entity type with one model."""

    texts: int = 0
    tokens: int = 0
    estimated_tokens: int = 0
    usd: float = 0.0


class EmbeddingCosts:
    """Adds up what this process embeds. Thread-safe. A companion of the platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._unwritten: dict[tuple[str, str], _Cost] = {}
        self._uncounted: list[Count] = []
        self._written_at = time.monotonic()

    def add(self, entity_type: str, profile: ModelProfile, texts: int, size: int, tokens: int | None) -> None:
        """Count texts of `size` bytes that a model has embedded; `tokens`: None if the provider does not count them."""
        counted = tokens if tokens is not None else math.ceil(size / BYTES_A_TOKEN)
        price = self._platform.usd_per_million_tokens(profile) or 0.0
        with self._lock:
            cost = self._unwritten.setdefault((entity_type, profile.key), _Cost())
            cost.texts += texts
            cost.tokens += counted
            cost.estimated_tokens += counted if tokens is None else 0
            cost.usd += counted * price / 1_000_000
            due = time.monotonic() - self._written_at >= _WRITTEN_EVERY_S
        if due:
            self.write()

    def write(self) -> None:
        """Write what is not written yet. If PostgreSQL is away, it is kept for the next time."""
        with self._lock:
            costs, self._unwritten = self._unwritten, {}
            counts, self._uncounted = [*self._uncounted, *self._requests()], []
            self._written_at = time.monotonic()
        if not costs and not counts:
            return
        try:
            with self._platform.postgres.transaction() as connection:
                if costs:
                    connection.execute(
                        self._platform.postgres.query("add_to_costs"),
                        {
                            "entity_type": [entity_type for entity_type, _ in costs],
                            "model": [model for _, model in costs],
                            "texts": [cost.texts for cost in costs.values()],
                            "tokens": [cost.tokens for cost in costs.values()],
                            "estimated_tokens": [cost.estimated_tokens for cost in costs.values()],
                            "usd": [cost.usd for cost in costs.values()],
                        },
                    )
                counters.add(self._platform, connection, counts)
        except StoreUnavailable:
            with self._lock:
                self._uncounted += counts
                for key, cost in costs.items():
                    known = self._unwritten.setdefault(key, _Cost())
                    known.texts += cost.texts
                    known.tokens += cost.tokens
                    known.estimated_tokens += cost.estimated_tokens
                    known.usd += cost.usd

    def close(self) -> None:
        self.write()

    def _requests(self) -> list[Count]:
        """What became of the requests to the providers since this was last called, as counters."""
        opened = self._platform.__dict__
        counts: list[Count] = []
        for embedder in (opened.get("embedder"), opened.get("previous_embedder")):
            if not isinstance(embedder, RequestingEmbedder):
                continue
            requests, model = embedder.take_requests(), embedder.profile.key
            counts += counters.histogram(Counter.REQUESTS, model, sorted(requests.answered.items()), requests.seconds)
            counts += [Count(Counter.REFUSALS, model, status, number) for status, number in requests.refused.items()]
        return counts


@dataclass(frozen=True, slots=True)
class DailyCost:
    """What was embedded on one day (UTC) of one entity type with one model."""

    day: date
    entity_type: str
    model: str
    texts: int
    tokens: int
    estimated_tokens: int
    """Those of the tokens that the provider did not count."""
    usd: float


def costs_by_day(platform: Platform, days: int) -> list[DailyCost]:
    """The costs of the last `days`, the newest first, as far as processes have written them."""
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "costs_by_day", DailyCost, {"days": days})


@dataclass(frozen=True, slots=True)
class _Today:
    spent_usd: float
    raised_usd: float
    ends_in_s: float


@dataclass(frozen=True, slots=True)
class Budget:
    """The embedding budget of today, UTC, in US dollars."""

    allowed_usd: float
    """The setting, and what a person has allowed beyond it today; infinite: there is no limit."""
    spent_usd: float
    ends_in_s: float
    """Seconds until the next day's budget."""

    @property
    def is_spent(self) -> bool:
        return self.spent_usd >= self.allowed_usd

    @property
    def sentence(self) -> str:
        """That the budget is spent, and when full syncs go on."""
        return (
            f"the embedding budget of today is spent (${self.spent_usd:.2f} of ${self.allowed_usd:.2f}, "
            "EMBEDDING_BUDGET_A_DAY): full syncs pause until 00:00 UTC, in "
            f"{_span(self.ends_in_s)}, or until `mcp-assets costs --raise-today` allows more; events go on"
        )


def budget_today(platform: Platform) -> Budget:
    """The budget of today; without EMBEDDING_BUDGET_A_DAY, what is allowed is infinite."""
    with platform.postgres.transaction() as connection:
        today = platform.postgres.row(connection, "budget_today", _Today)
    assert today is not None  # noqa: S101  (the query has one row)
    budget = platform.settings.embedding_budget_a_day
    allowed = math.inf if budget is None else budget + today.raised_usd
    return Budget(allowed, today.spent_usd, today.ends_in_s)


def spent_budget(platform: Platform) -> Budget | None:
    """The budget of today if it is spent; None: it is not, or the settings name none."""
    if platform.settings.embedding_budget_a_day is None:
        return None
    budget = budget_today(platform)
    return budget if budget.is_spent else None


def raise_budget(platform: Platform, usd: float) -> None:
    """Allow `usd` beyond the budget, today. Full syncs that pause go on within seconds."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("raise_budget"), {"usd": usd})


@dataclass
class BudgetPause:
    """Has the batches of a full sync wait while the budget of the day is spent. Thread-safe."""

    platform: Platform
    stopping: threading.Event
    """Once it is set, no batch waits."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self) -> None:
        """Return when there is budget. What is in flight meanwhile is paid all the same.

        Costs a query a batch, and none without EMBEDDING_BUDGET_A_DAY.
        """
        if self.platform.settings.embedding_budget_a_day is None:
            return
        self.platform.companion(EmbeddingCosts).write()
        # One batch asks, and says that the run pauses; the others wait behind it.
        with self._lock:
            spent = spent_budget(self.platform)
            if spent is None:
                return
            notices.warning("this run pauses: %s", spent.sentence)
            while spent_budget(self.platform) is not None:
                if self.stopping.wait(self.platform.tuning.index.budget_asked_again_s):
                    return
        notices.warning("this run goes on: there is embedding budget again")


def _span(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
