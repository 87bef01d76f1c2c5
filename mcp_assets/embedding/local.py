"""The local provider: wordllama's own model, from its wheel, without network or account. 256, 128 or 64 dimensions."""

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.profiles import WORDLLAMA, ModelProfile, model_key
from mcp_assets.embedding.protocol import (
    EmbedderUnavailable,
    EmbeddingOutcome,
    EmbeddingResult,
    Refusal,
    Vector,
    only_vector,
    refusal_before_sending,
)
from mcp_assets.embedding.vectors import fault_of
from mcp_assets.embedding.word_tokens import Tokens, WordTokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TEXTS_PER_CALL = 256
"""Texts whose words are looked up at once: few calls of the tokenizer, and few tokens in memory."""

_TOKENS_PER_SUM = 512
"""Token vectors gathered at once, 0.5 MB, so that they are still in the processor's cache when they are summed."""


class LocalEmbedder:
    """Embeds with wordllama in this process: the mean of the token vectors.

    The tokens are those of wordllama's tokenizer, found by words; pooling is done here, one text at a time and without
    padding. That takes less than a third of the processor's time of the library's `embed`, gives the same floats bit by
    bit, and makes a vector independent of the batch its text comes in.
    """

    def __init__(self, profile: ModelProfile = WORDLLAMA) -> None:
        """`profile`: of the model wordllama; its dimension may be smaller than the model's, which cuts the vectors.

        Raises:
            ValueError: the profile is another model's.
        """
        if model_key(profile.name) != WORDLLAMA.name:
            raise ValueError(
                f"the local provider has the model {WORDLLAMA.name}, not {profile.name}: unset EMBEDDING_MODEL, or set "
                "OPENAI_BASE_URL to the server of that model"
            )
        self.profile = profile

    @property
    def concurrency(self) -> int:
        """Two, because pooling and the tokenizer release the GIL, while the look-up of words holds it."""
        return 2

    def embed(
        self,
        texts: Sequence[str],
        *,
        stopping: Event | None = None,  # noqa: ARG002
        background: bool = False,  # noqa: ARG002
    ) -> EmbeddingResult:
        """One outcome per text. Raises EmbedderUnavailable if the model's files cannot be loaded."""
        model = load_model()
        refusals = [refusal_before_sending(text) for text in texts]
        sound = [text for text, refusal in zip(texts, refusals, strict=True) if refusal is None]
        embedded = (
            outcome
            for start in range(0, len(sound), _TEXTS_PER_CALL)
            for outcome in self._embed_sound(model, sound[start : start + _TEXTS_PER_CALL])
        )
        return EmbeddingResult(
            [next(embedded) if refusal is None else EmbeddingOutcome(None, refusal) for refusal in refusals],
            tokens=None,
        )

    def embed_query(self, text: str) -> Vector:
        """As `embed`, because the model treats queries and texts alike."""
        return only_vector(self.embed([text]))

    def stop(self) -> None:
        """Nothing to stop: no request leaves this process."""

    def close(self) -> None:
        """Nothing to close: all embedders of the process share the model."""

    def _embed_sound(self, model: "_Model", texts: list[str]) -> list[EmbeddingOutcome]:
        vectors = model.means(model.words.of(texts), self.profile.dimension)
        if np.isfinite(vectors).all() and vectors.any(axis=1).all():
            return [EmbeddingOutcome(vector, None) for vector in vectors]
        return [self._outcome(vector) for vector in vectors]

    def _outcome(self, vector: Vector) -> EmbeddingOutcome:
        fault = fault_of(vector, self.profile.dimension)
        if fault is None:
            return EmbeddingOutcome(vector, None)
        return EmbeddingOutcome(None, Refusal(fault, f"{self.profile.name} gives this text no usable vector: {fault}"))


class _Model(NamedTuple):
    token_vectors: NDArray[np.float32]
    tokenizer: "Tokenizer"
    words: WordTokens

    def means(self, texts: Sequence[Tokens], dimension: int) -> NDArray[np.float32]:
        """The vectors of texts, shape (n, dimension), each from its tokens.

        They are the first `dimension` components: the model was trained so that each prefix of a vector is one, too.
        """
        table = self.token_vectors[:, :dimension]
        gathered = np.empty((1 + _TOKENS_PER_SUM, dimension), dtype=np.float32)
        means = np.empty((len(texts), dimension), dtype=np.float32)
        for mean, tokens in zip(means, texts, strict=True):
            total = np.zeros(dimension, dtype=np.float32)
            for start in range(0, len(tokens), _TOKENS_PER_SUM):
                part = tokens[start : start + _TOKENS_PER_SUM]
                # The sum so far is the first row, so that the order of summation is that of the tokens.
                gathered[0] = total
                table.take(part, axis=0, out=gathered[1 : 1 + len(part)], mode="clip")
                total = gathered[: 1 + len(part)].sum(axis=0)
            np.divide(total, np.float32(len(tokens)), out=mean)
        return means


_load_lock = Lock()


def load_model() -> _Model:
    """The model, loaded once a process. Raises EmbedderUnavailable if its files cannot be loaded."""
    with _load_lock:
        return _load_model_once()


@cache
def _load_model_once() -> _Model:
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise EmbedderUnavailable("the local embedding model needs the package wordllama, which is not installed")
    package = Path(spec.submodule_search_locations[0])
    root = logging.getLogger()
    # wordllama calls logging.basicConfig at import, which has no effect if the root logger has a handler.
    placeholder = logging.NullHandler()
    root.addHandler(placeholder)
    try:
        from wordllama import WordLlama  # type: ignore[import-untyped]
    finally:
        root.removeHandler(placeholder)
    try:
        # wordllama reads its tokenizer from a download cache; the wheel's own folder has the same layout.
        model = WordLlama.load(cache_dir=package, dim=WORDLLAMA.dimension, disable_download=True)
    except OSError as error:
        raise EmbedderUnavailable(
            f"wordllama's model files are missing or unreadable, install it again: {error}"
        ) from error
    model.tokenizer.no_padding()
    return _Model(model.embedding, model.tokenizer, WordTokens(model.tokenizer))
