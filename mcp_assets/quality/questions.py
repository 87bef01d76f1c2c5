"""Questions: what is asked, and the entities of which one at least answers it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a search. `kind`: where it comes from, such as `golden`."""

    kind: str
    text: str
    answers: frozenset[EntityRef]


def sampled(questions: Sequence[Question], limit: int) -> list[Question]:
    """At most `limit` of the questions, the same ones each time, whatever their order is.

    They are drawn by a hash of their texts, so that a question that is added displaces at most one other: figures of
    two samples stay comparable.
    """
    return sorted(questions, key=_draw)[:limit]


def _draw(question: Question) -> tuple[bytes, str]:
    return hashlib.md5(question.text.encode(errors="surrogatepass"), usedforsecurity=False).digest(), question.kind
