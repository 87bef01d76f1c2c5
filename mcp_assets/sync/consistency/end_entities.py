"""End entities: deletes entities that live by events alone, as an event that deletes them would, if none ever came."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.index.indexer import Indexer, index_until_current
from mcp_assets.sync.index.ledger import Wanted
from mcp_assets.sync.index.search_words import write_words
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import Reason, mark
from mcp_assets.sync.resolve_ids import IDS_AT_ONCE, by_type, pages


@dataclass(slots=True)
class Ended:
    """`refs`: entities that are deleted now; `left`: entities that were not living, or have a source row."""

    refs: list[EntityRef] = field(default_factory=list)
    left: list[EntityRef] = field(default_factory=list)


def end_entities(platform: Platform, refs: Sequence[EntityRef]) -> Ended:
    """Delete the entities of `refs` that live by events alone: ledger row, points, edges.

    A newer event of the entity, or a source row, makes it live again; an older event that is delivered again does not.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: entities whose ledger row is deleted stay deleted; a full
            sync or a repair removes their points and edges.
    """
    ended: set[EntityRef] = set()
    for entity_type, named in by_type(dict.fromkeys(refs)).items():
        reader = platform.source(entity_type)
        for ids in pages(named, IDS_AT_ONCE):
            with platform.postgres.transaction() as connection:
                sources = reader.read(connection, ids) if reader is not None else {}
                rows = connection.execute(
                    platform.postgres.query("end_entities"),
                    {"entity_type": entity_type, "ids": [one for one in ids if one not in sources]},
                ).fetchall()
                gone = [row[0] for row in rows]
                write_words(platform, connection, entity_type, dict.fromkeys(gone))
                mark(platform, connection, [EntityRef(entity_type, one) for one in gone], Reason.CHANGED)
            for part in pages(gone, platform.settings.batch_size):
                wanted = [Wanted(one) for one in part]
                index_until_current(platform, Indexer(platform, entity_type), wanted, force=False, embed=True)
            ended |= {EntityRef(entity_type, one) for one in gone}
    for _ in link_until_done(platform):
        pass
    return Ended([ref for ref in refs if ref in ended], [ref for ref in refs if ref not in ended])
