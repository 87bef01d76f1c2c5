"""The Embedder protocol: texts in, one outcome per text out, in the order of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_assets.embedding.profiles import ModelProfile

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one text cannot be embedded, while others can.

    `error_kind` is one of `empty_text`, `invalid_text`, `input_refused`, `input_too_long`, `embedding_failed`,
    `bad_answer`, `wrong_dimension`, `not_finite`, `zero_vector`; `sentence` says it to a person.
    """

    error_kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class EmbeddingOutcome:
    """The outcome for one text: a vector or a refusal, never both and never neither.

    `vector` has shape (dimension,) and passed `vectors.fault_of`; it is as the model gave it, not scaled to length 1.
    `embedded_characters` is set where the provider found the text too long and only its start was embedded.
    """

    vector: Vector | None
    refusal: Refusal | None
    embedded_characters: int | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """One outcome per text, in the order of the texts; `tokens` is what the provider counted, if it says."""

    outcomes: list[EmbeddingOutcome]
    tokens: int | None


class EmbedderUnavailable(Exception):
    """The provider embeds nothing now: an outage, a used-up quota, a wrong key or a wrong model. No text is at fault.

    The message says what happened and what to do next. It never contains the API key.
    """


class EmbedderClosed(EmbedderUnavailable):
    """The embedder, or the caller's wait for it, was ended. The provider may be well."""


class TextRefused(Exception):
    """The one text of a query cannot be embedded; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


class Embedder(Protocol):
    """Embeds texts. Thread-safe and blocking."""

    @property
    def profile(self) -> ModelProfile: ...

    @property
    def concurrency(self) -> int:
        """Calls of `embed` worth having in flight at once."""
        ...

    def embed(
        self, texts: Sequence[str], *, stopping: Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        """One outcome per text. `background`: texts of a full sync, which let those of events go first.

        Raises:
            EmbedderUnavailable: no text is at fault.
            EmbedderClosed: `stopping` was set before the provider had answered, which may take minutes.
        """
        ...

    def embed_query(self, text: str) -> Vector:
        """The vector of a search query. Raises TextRefused, EmbedderUnavailable."""
        ...

    def stop(self) -> None:
        """Sends no further request, and does not wait for requests in flight."""
        ...

    def close(self) -> None:
        """Ends retries and waits for requests in flight. The embedder cannot be used afterwards."""
        ...


def refusal_before_sending(text: str) -> Refusal | None:
    """The refusal of a text that no provider takes: blank, or not encodable as UTF-8."""
    if not text or text.isspace():
        return Refusal("empty_text", "the text is empty or white space only: there is nothing to embed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Refusal(
            "invalid_text",
            f"the text holds a lone surrogate at character {error.start} and cannot be encoded as UTF-8: mend the text",
        )
    return None


def only_vector(result: EmbeddingResult) -> Vector:
    """The vector of a result of one text. Raises TextRefused if the text was refused."""
    (outcome,) = result.outcomes
    if outcome.refusal is not None:
        raise TextRefused(outcome.refusal)
    assert outcome.vector is not None  # noqa: S101  (EmbeddingOutcome holds one of the two)
    return outcome.vector
