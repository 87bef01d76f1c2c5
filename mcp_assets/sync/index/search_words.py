"""Search words: keeps the words of each living entity beside its ledger row.

The words of few texts are written in the transaction that writes the ledger rows, so that an event is found by them at
once. Those of many are left to the linker (`entities.words_pending`), because cutting them makes a full sync a quarter
slower. Words are only ever written while the ledger row is locked, so that they are those of its text.
"""

from collections.abc import Collection, Mapping

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.words import Words, words_of
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

_TEXTS_AT_ONCE = 100
"""Texts in memory at once: a text has up to four million characters."""


def write_words(
    platform: Platform, connection: Connection, entity_type: str, words: Mapping[str, Words | None]
) -> None:
    """Write the words of entities, by id; None: the entity is deleted. Their ledger rows are locked."""
    postgres = platform.postgres
    gone = [entity_id for entity_id, found in words.items() if found is None]
    if gone:
        connection.execute(postgres.query("delete_words"), {"entity_type": entity_type, "ids": gone})
    kept = {entity_id: found for entity_id, found in words.items() if found is not None}
    if kept:
        connection.execute(postgres.query("write_words"), {"entity_type": entity_type, **word_columns(kept)})


def word_columns(words: Mapping[str, Words]) -> dict[str, list[str] | list[int]]:
    """The columns of the search words of entities, as queries take them."""
    return {
        "entity_id": list(words),
        "words": [one.vector for one in words.values()],
        "length": [one.length for one in words.values()],
    }


def write_pending_words(platform: Platform, connection: Connection, refs: Collection[EntityRef]) -> set[EntityRef]:
    """Write the words of those of `refs` whose words are pending; their ledger rows stay locked until the commit.

    Returns the entities whose rows another transaction has locked. It is not waited for, because it may wait for
    something that the caller has locked.
    """
    ordered = sorted(refs)
    names = {"types": [ref.type for ref in ordered], "ids": [ref.id for ref in ordered]}
    query = platform.postgres.query
    while True:
        rows = connection.execute(query("lock_texts_pending_words"), {**names, "limit": _TEXTS_AT_ONCE}).fetchall()
        words: dict[str, dict[str, Words | None]] = {}
        for entity_type, entity_id, title, content in rows:
            words.setdefault(entity_type, {})[entity_id] = words_of(entity_id, title, content)
        for entity_type, of_type in words.items():
            write_words(platform, connection, entity_type, of_type)
            connection.execute(query("words_are_written"), {"entity_type": entity_type, "ids": list(of_type)})
        if len(rows) < _TEXTS_AT_ONCE:
            return {EntityRef(*row) for row in connection.execute(query("pending_words"), names).fetchall()}
