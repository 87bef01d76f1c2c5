"""Rows and cases: what stands in the source table before each run, the same for every system."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.entities.text import prepare
from peers.stub import POISON

CHANGED = DELETED = 0.01
LOST = 0.02
"""Shares of the rows, or of their vectors, that the cases touch."""

SHORT_CHARACTERS = 300
"""Of the content of a short row: a note, or a task with two sentences."""

_SENTENCE = (
    "the release note names each setting that a new version reads and says which default it has so that an operator "
    "knows before the upgrade what the service will do with the old file and where to look when a check fails"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source table."""

    entity_type: str
    entity_id: str
    title: str | None
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.entity_type}:{self.entity_id}"


@dataclass(frozen=True, slots=True)
class Piece:
    """One text to embed: piece 0 is that of the row itself, the others are the chunks of a long row."""

    row: Row
    number: int
    text: str

    @property
    def key(self) -> str:
        return f"{self.row.key}#{self.number}"


def short_rows(count: int) -> list[Row]:
    """`count` tasks of some SHORT_CHARACTERS characters, all different."""
    return [
        Row(
            "task",
            f"task-{number:07}",
            f"Task {number}",
            _content(number),
            {"status": ("open", "doing", "done")[number % 3], "tags": [f"tag-{number % 100}"]},
        )
        for number in range(count)
    ]


def _content(number: int) -> str:
    words = _SENTENCE.split()
    # Begin and step differ from row to row, so that no two rows read alike.
    chosen = (words[(number * 7 + place * (1 + number % 5)) % len(words)] for place in range(SHORT_CHARACTERS // 6))
    return f"{number} " + " ".join(chosen)


def pieces(rows: Iterable[Row], spec: ChunkSpec | None) -> Iterator[Piece]:
    """The texts to embed, as our platform prepares them: a row beyond 8,000 characters has chunks too."""
    for row in rows:
        prepared = prepare(row.title, row.content, spec)
        for number, text in enumerate((prepared.text, *(chunk.text for chunk in prepared.chunks))):
            if text:
                yield Piece(row, number, text)


def picked(count: int, share: float, *, first: int = 0) -> range:
    """The places of `share` of `count` rows, at equal distances, at least one."""
    distance = max(1, round(1 / share))
    return range(min(first, count - 1), count, distance)


def changed(rows: Sequence[Row]) -> list[Row]:
    """CHANGED of the rows have a word more."""
    chosen = set(picked(len(rows), CHANGED))
    return [replace(row, content=f"{row.content} again") if place in chosen else row for place, row in enumerate(rows)]


def thinned(rows: Sequence[Row]) -> list[Row]:
    """DELETED of the rows are gone: none of those that `changed` takes, where there are more than a few."""
    chosen = set(picked(len(rows), DELETED, first=round(0.5 / DELETED)))
    return [row for place, row in enumerate(rows) if place not in chosen]


def poisoned(rows: Sequence[Row]) -> list[Row]:
    """`changed`, and a row in the middle that the embedder refuses."""
    middle = rows[len(rows) // 2]
    poison = replace(middle, entity_id=f"{middle.entity_id}-poison", title="Poison", content=POISON)
    more = changed(rows)
    more.insert(len(rows) // 2 + 1, poison)
    return more


def without_poison(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.content != POISON]


def difference(before: Iterable[Row], after: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to write and the rows to remove, so that a table with the rows `before` has those `after`."""
    old = {row.key: row for row in before}
    new = {row.key: row for row in after}
    return [row for key, row in new.items() if old.get(key) != row], [row for key, row in old.items() if key not in new]
