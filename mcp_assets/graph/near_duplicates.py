"""possible_duplicate: b is in the semantic list of a, and vectors and words of both are nearly the same.

Vectors alone do not tell a copy from a neighbour, because tasks of one template have almost the vector of a copy. So
pairs whose cosine reaches a threshold are compared by their words, too. The words decide, and the cosine only chooses
what is compared, so that the rule depends little on the embedding model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.words import word_sequence
from mcp_assets.graph.edges import ListedEdge, rounded
from mcp_assets.graph.ranking import Ranking

COMPARED_CHARACTERS = 20_000
"""Characters of a content that are compared: more than the 8,000 that a vector is of, so that two texts with the same
beginning differ, and so few that a text of megabytes costs no more than a page."""

_TITLE_CHARACTERS = 200
"""Characters of a title in which a subject and numbers are looked for. `title_key` holds so many, so that a change of
them is noticed by it."""

_FEWEST_WORDS = 4
"""A shorter text, such as `Meeting notes`, says too little to be the copy of another one."""

_WORDS_FOR_CHANGES = 12
"""A text with fewer words is a copy only of a text with the same words: in a short text, one other word is another
subject."""


class DuplicateRule(NamedTuple):
    """From where on two entities are possible duplicates."""

    similarity: float
    """Cosine of the two vectors, 0..1."""
    shared_words: float
    """Share of shared words, 0..1; see `shared_words`."""


class NearCopy(NamedTuple):
    """A possible duplicate, and how near it is."""

    ref: EntityRef
    shared_words: float
    """0..1, rounded."""
    similarity: float
    """Cosine, 0..1, rounded."""

    @property
    def strength(self) -> float:
        """The smaller of the two: what differs in one of them is no copy."""
        return min(self.shared_words, self.similarity)


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of one entity, as they are compared."""

    subject: frozenset[str]
    """Words of the title that the content has, too; of an entity without a title, none."""
    numbers: frozenset[str]
    """Words of the title with a digit, such as a version or a year."""
    words: frozenset[str]
    """All words of title and content."""
    pairs: frozenset[tuple[str, str]]
    """Words that follow each other in title and content."""


def wording_of(title: str | None, content: str) -> Wording:
    """The wording of an entity with this title and content."""
    of_title = word_sequence(title or "")
    named = frozenset(word_sequence((title or "")[:_TITLE_CHARACTERS]))
    of_content = word_sequence(content[:COMPARED_CHARACTERS])
    everything = of_title + of_content
    return Wording(
        subject=named.intersection(of_content),
        numbers=frozenset(word for word in named if any(character.isdigit() for character in word)),
        words=frozenset(everything),
        pairs=frozenset(pairwise(everything)),
    )


def shared_words(one: Wording, other: Wording) -> float:
    """Share of the pairs of neighbouring words that both texts have, of those that either has: 0..1, rounded.

    0 if the texts are of two subjects: each has a subject that the other does not mention, as tasks of one template
    have, or the titles have different numbers, as the minutes of two years have. 0 also if a text is too short to tell.
    """
    fewest = min(len(one.words), len(other.words))
    if fewest < _FEWEST_WORDS or (fewest < _WORDS_FOR_CHANGES and one.words != other.words):
        return 0.0
    if one.subject - other.words and other.subject - one.words:
        return 0.0
    if one.numbers - other.numbers and other.numbers - one.numbers:
        return 0.0
    both = len(one.pairs & other.pairs)
    return rounded(both / (len(one.pairs) + len(other.pairs) - both))


def near_enough(ranking: Ranking, rule: DuplicateRule) -> Ranking:
    """The neighbours of a list whose words have to be compared: those whose cosine reaches the threshold."""
    return tuple(near for near in ranking if near.score >= rule.similarity)


def near_copies(
    own: Wording, ranking: Ranking, wordings: Mapping[EntityRef, Wording], rule: DuplicateRule
) -> list[NearCopy]:
    """The possible duplicates, among the neighbours of a list, of a text with the wording `own`, in their order.

    `wordings`: those of `near_enough(ranking)`; a neighbour that it lacks is no duplicate.
    """
    return [
        NearCopy(target, words, score)
        for target, score in near_enough(ranking, rule)
        if (other := wordings.get(target)) is not None
        and _most_shared(own, other) >= rule.shared_words
        and (words := shared_words(own, other)) >= rule.shared_words
    ]


def _most_shared(one: Wording, other: Wording) -> float:
    """Upper bound of the share of words, by the lengths alone; it rules out most pairs of long texts at no cost."""
    shorter, longer = sorted((len(one.pairs), len(other.pairs)))
    return rounded(shorter / longer) if longer else 0.0


def duplicate_edges(
    source: EntityRef, ranking: Ranking, wordings: Mapping[EntityRef, Wording], rule: DuplicateRule
) -> list[ListedEdge]:
    """The edges from `source` to its possible duplicates. `ranking`: its semantic list.

    `wordings`: those of `near_enough(ranking)` and of the source; without the latter there is no edge.
    """
    own = wordings.get(source)
    return [
        ListedEdge(
            source,
            copy.ref,
            copy.strength,
            f'{{"rule": "copy", "shared_words": {copy.shared_words}, "similarity_score": {copy.similarity}}}',
        )
        for copy in (near_copies(own, ranking, wordings, rule) if own else ())
    ]
