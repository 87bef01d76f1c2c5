"""Embedding rate: how fast late full syncs embedded, and how many tokens the provider counted for their texts."""

import threading
import time
from dataclasses import dataclass

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

LEAST_TEXTS = 50
"""Texts from which a full sync is measured: less than that is mostly the time of a first answer."""

RUNS_COUNTED = 5
"""Full syncs that a rate is the mean of: the newest, because providers and machines change."""


@dataclass(slots=True)
class _Sent:
    """What was sent to one model. Times are of the monotonic clock."""

    began_at: float
    texts: int = 0
    size: int = 0
    """Bytes in UTF-8."""
    tokens: int | None = None
    ended_at: float = 0.0


class EmbeddingMeter:
    """Measures what one full sync embeds, by model. Thread-safe: its batches overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, _Sent] = {}

    def add(self, profile: ModelProfile, began_at: float, texts: int, size: int, tokens: int | None) -> None:
        """Count texts of `size` bytes that were answered now; `began_at`: when they were sent."""
        with self._lock:
            sent = self._sent.setdefault(profile.key, _Sent(began_at))
            sent.began_at = min(sent.began_at, began_at)
            sent.texts += texts
            sent.size += size
            if tokens is not None:
                sent.tokens = (sent.tokens or 0) + tokens
            sent.ended_at = time.monotonic()

    def record(self, platform: Platform) -> None:
        """Keep the rate of each model that embedded enough."""
        measured = {model: sent for model, sent in self._sent.items() if sent.texts >= LEAST_TEXTS}
        if not measured:
            return
        with platform.postgres.transaction() as connection:
            connection.execute(
                platform.postgres.query("record_embedding_rates"),
                {
                    "models": list(measured),
                    "texts": [sent.texts for sent in measured.values()],
                    "bytes": [sent.size for sent in measured.values()],
                    "tokens": [sent.tokens for sent in measured.values()],
                    "seconds": [max(sent.ended_at - sent.began_at, 0.001) for sent in measured.values()],
                },
            )


@dataclass(frozen=True, slots=True)
class EmbeddingRate:
    """What the newest full syncs with a model measured."""

    runs: int
    texts_per_s: float
    tokens_per_byte: float | None
    """None: the provider counts no tokens."""


def measured_rate(platform: Platform, connection: Connection, profile: ModelProfile) -> EmbeddingRate | None:
    """The rate of a model; None: no full sync with it has embedded enough."""
    return platform.postgres.row(
        connection, "embedding_rate", EmbeddingRate, {"model": profile.key, "runs": RUNS_COUNTED}
    )
