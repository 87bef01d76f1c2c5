"""Plan embedder: gives the plans of a batch their vectors, and records whether the provider embeds at all."""

import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Event

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.protocol import Embedder, EmbedderClosed, EmbedderUnavailable, EmbeddingResult
from mcp_assets.embedding.vectors import unit, vector_checks
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.index.embedding_costs import BudgetPause, EmbeddingCosts
from mcp_assets.sync.index.embedding_rate import EmbeddingMeter
from mcp_assets.sync.index.paid_vectors import Outcome, RecentVectors, VectorKey, Vectors
from mcp_assets.sync.index.provider_outage import provider_answers, provider_refuses
from mcp_assets.sync.index.write_plan import WritePlan

_ANSWERS_RECORDED_EVERY_S = 5.0
"""How often it is recorded that the provider embeds, which ends an outage that another process has recorded.

Each record is a write to PostgreSQL, and a bulk load makes hundreds of requests in this time.
"""


class PlanEmbedder:
    """Embeds the plans of the batches of one indexer. Thread-safe. No text is embedded twice at the same time."""

    def __init__(
        self, platform: Platform, entity_type: str, *, stopping: Event, abandoned: Event, background: bool
    ) -> None:
        """`abandoned`: once it is set, no answer of a provider is waited for.

        `background`: for a full sync, which pauses while the budget of the day is spent, until `stopping` is set.
        """
        self._platform = platform
        self._type = entity_type
        self._background = background
        self._pause = BudgetPause(platform, stopping)
        self._costs = platform.companion(EmbeddingCosts)
        self._abandoned = abandoned
        self._recent = RecentVectors()
        self.meter = EmbeddingMeter()
        self._answer_recorded_at: dict[str, float] = {}

    def embed(self, plans: Sequence[WritePlan], embedder: Embedder) -> int | None:
        """Give each plan its vectors or its refusal. Returns the tokens, where the provider reports them.

        A text that another batch embeds now, or has embedded a short while ago, is not embedded again.

        Raises:
            EmbedderUnavailable: none of the plans has been changed.
        """
        model = embedder.profile.key
        own: dict[VectorKey, WritePlan] = {}
        others: list[tuple[WritePlan, Future[Outcome]]] = []
        forced: list[WritePlan] = []
        for plan in plans:
            key = (model, plan.text_hash)
            if plan.refusal is not None:
                continue
            if plan.force:
                forced.append(plan)
            elif (outcome := self._recent.claim(key)) is not None:
                others.append((plan, outcome))
            else:
                own[key] = plan
        try:
            tokens = self._embed_all([*own.values(), *forced], embedder)
        except BaseException as error:
            self._recent.drop(own, error)
            raise
        for key, plan in own.items():
            found = plan.vectors or plan.refusal
            assert found is not None  # noqa: S101  (a plan that was embedded has one of the two)
            self._recent.give(key, found)
        for plan, outcome in others:
            shared = outcome.result()
            if isinstance(shared, Vectors):
                plan.vectors = shared
            else:
                plan.refusal = shared
        return tokens

    def _embed_all(self, plans: Sequence[WritePlan], embedder: Embedder) -> int | None:
        texts = [
            text
            for plan in plans
            for text in (plan.dirty.prepared.text, *(chunk.text for chunk in plan.dirty.prepared.chunks))
        ]
        if not texts:
            return None
        result = self._ask(embedder, texts)
        outcomes = iter(result.outcomes)
        accepted: list[tuple[WritePlan, list[NDArray[np.float32]]]] = []
        for plan in plans:
            own = list(itertools.islice(outcomes, plan.point_count))
            plan.refusal = next((outcome.refusal for outcome in own if outcome.refusal is not None), None)
            if plan.refusal is None:
                accepted.append((plan, [_vector(outcome.vector) for outcome in own]))
        if accepted:
            rows = unit(np.stack([vector for _, vectors in accepted for vector in vectors]))
            checks = vector_checks(rows).tolist()
            end = 0
            for plan, vectors in accepted:
                start, end = end, end + len(vectors)
                # A copy, because a view that is remembered would hold the memory of all rows.
                plan.vectors = Vectors(rows[start:end].copy(), checks[start:end])
        return result.tokens

    def _ask(self, embedder: Embedder, texts: Sequence[str]) -> EmbeddingResult:
        """The outcomes of `texts`. An outage of the provider, or its end, is recorded."""
        if self._background:
            self._pause.wait()
        began_at = time.monotonic()
        try:
            result = embedder.embed(texts, stopping=self._abandoned, background=self._background)
        except EmbedderClosed:
            raise
        except EmbedderUnavailable as error:
            try:
                provider_refuses(self._platform, embedder.profile, str(error))
            except StoreUnavailable as unavailable:
                error.add_note(f"and it could not be put on record: {unavailable}")
            raise
        size = sum(len(text) if text.isascii() else len(text.encode(errors="surrogatepass")) for text in texts)
        self.meter.add(embedder.profile, began_at, len(texts), size, result.tokens)
        self._costs.add(self._type, embedder.profile, len(texts), size, result.tokens)
        now = time.monotonic()
        model = embedder.profile.name
        if now - self._answer_recorded_at.get(model, -math.inf) > _ANSWERS_RECORDED_EVERY_S and any(
            outcome.vector is not None for outcome in result.outcomes
        ):
            self._answer_recorded_at[model] = now
            provider_answers(self._platform, embedder.profile)
        return result


def _vector(vector: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert vector is not None  # noqa: S101  (an outcome without a refusal has a vector)
    return vector
