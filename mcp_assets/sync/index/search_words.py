"""Search words: keeps the words of each living entity beside its ledger row, in the same transaction."""

from collections.abc import Mapping

from mcp_assets.entities.words import Words
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


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
