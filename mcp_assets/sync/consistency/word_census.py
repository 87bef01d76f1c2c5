"""Word census: the search words of one partition, compared with the ledger, and their repair.

Words are written while their ledger row is locked, which says whether they are pending, so that one snapshot of
PostgreSQL shows both: what differs in it is drift, whatever is under way. Pending words of an entity that is marked to
be linked are none, because the linker writes them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare
from mcp_assets.entities.words import Words, words_of
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.rows import by_id, keyset_pages
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.vector_census import SLOTS_A_SAMPLE
from mcp_assets.sync.index.search_words import word_columns, write_words
from mcp_assets.sync.resolve_ids import pages

_TEXTS_AT_ONCE = 200
"""Texts in memory at once: a text has up to four million characters."""


_IDS_AT_ONCE = 5_000
"""Entities in memory at once whose words are missing or left over: if the table was emptied, all of them are."""


@dataclass(frozen=True, slots=True)
class _Text:
    """Title and content of a living ledger row."""

    title: str | None
    content: str
    text_hash: str | None

    def lies(self, platform: Platform) -> bool:
        """The row's hash was not made of its own text: another program wrote one of the two."""
        return prepare(self.title, self.content, platform.settings.chunks).text_hash != self.text_hash


def drift_of_words(
    platform: Platform, session: Connection, entity_type: str, slots: tuple[int, int], *, deep: bool, seed: int
) -> Iterator[Drift]:
    """The entities of a range of slots whose search words are missing, left over or of another text.

    Words are cut again for one slot in SLOTS_A_SAMPLE, which `seed` decides, or for all if `deep`. Rows that were not
    prepared by the rules of now are left out, because a full sync makes their words.

    Raises:
        StoreUnavailable, StoreRefused.
    """
    with session.transaction():
        # Not READ ONLY, because the caller writes drift meanwhile, by the same session.
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield from _drift(platform, session, entity_type, _Sample(slots, 1 if deep else SLOTS_A_SAMPLE, seed))


def drift_of_words_of(platform: Platform, entity_type: str, ids: Sequence[str]) -> list[Drift]:
    """The entities among `ids` whose search words are wrong.

    Raises:
        StoreUnavailable, StoreRefused.
    """
    found: list[Drift] = []
    for part in pages(ids, _TEXTS_AT_ONCE):
        with platform.postgres.session() as session, session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            wanted = {"entity_type": entity_type, "ids": list(part), **_prepared_by(platform, entity_type)}
            rows = session.execute(platform.postgres.query("entities_without_right_words"), wanted).fetchall()
            found += (_told(entity_type, *row) for row in rows)
            texts = dict(platform.postgres.rows(session, "texts_with_words", by_id(_Text), wanted))
            found += _differing(platform, session, entity_type, texts)
    return found


def rewrite_words(platform: Platform, entity_type: str, ids: Sequence[str]) -> None:
    """Write the search words of entities again, from their ledger rows; a row that lies keeps its words.

    Raises:
        StoreUnavailable, StoreRefused.
    """
    for part in pages(sorted(ids), _TEXTS_AT_ONCE):
        with platform.postgres.transaction() as connection:
            texts = dict(
                platform.postgres.rows(
                    connection, "lock_texts", by_id(_Text), {"entity_type": entity_type, "ids": list(part)}
                )
            )
            words: dict[str, Words | None] = dict.fromkeys(part)
            for entity_id, text in texts.items():
                if text.lies(platform):
                    del words[entity_id]
                else:
                    words[entity_id] = words_of(entity_id, text.title, text.content)
            write_words(platform, connection, entity_type, words)
            connection.execute(
                platform.postgres.query("words_are_written"), {"entity_type": entity_type, "ids": list(words)}
            )


@dataclass(frozen=True, slots=True)
class _Sample:
    """A range of slots, of which one in `every` is sampled."""

    slots: tuple[int, int]
    every: int
    seed: int


def _drift(platform: Platform, session: Connection, entity_type: str, sample: _Sample) -> Iterator[Drift]:
    query = platform.postgres.query
    low, high = sample.slots
    partition = {"entity_type": entity_type, "low": low, "high": high, **_prepared_by(platform, entity_type)}

    def read_absent(after: str) -> list[tuple[str, str]]:
        parameters = partition | {"after": after, "limit": _IDS_AT_ONCE}
        return session.execute(query("words_missing_or_left_over"), parameters).fetchall()

    for absent in keyset_pages(read_absent, _entity_id, ""):
        for row in absent:
            yield _told(entity_type, *row)
    sampled = partition | {"every": sample.every, "rest": sample.seed % sample.every, "limit": _TEXTS_AT_ONCE}

    def read(after: str) -> list[tuple[str, _Text]]:
        return platform.postgres.rows(session, "sample_of_texts_with_words", by_id(_Text), sampled | {"after": after})

    for page in keyset_pages(read, _entity_id, ""):
        yield from _differing(platform, session, entity_type, dict(page))


def _entity_id(row: tuple[str, object]) -> str:
    return row[0]


def _prepared_by(platform: Platform, entity_type: str) -> dict[str, str]:
    return {"prepared_by": platform.prepared_by(entity_type)}


def _differing(platform: Platform, session: Connection, entity_type: str, texts: dict[str, _Text]) -> Iterator[Drift]:
    """The entities whose search words are not those of `texts`."""
    words = {
        entity_id: words_of(entity_id, text.title, text.content)
        for entity_id, text in texts.items()
        # The ledger row is drift of its own; its words may be right.
        if not text.lies(platform)
    }
    parameters = {"entity_type": entity_type, **word_columns(words)}
    for (entity_id,) in session.execute(platform.postgres.query("differing_words"), parameters).fetchall():
        yield _told(entity_type, entity_id, "are not those of its title and text")


def _told(entity_type: str, entity_id: str, what: str) -> Drift:
    return Drift(DriftKind.WRONG_WORDS, EntityRef(entity_type, entity_id), f"its search words {what}")
