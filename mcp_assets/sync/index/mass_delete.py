"""Mass deletion: a bulk path that would remove much of an entity type holds the deletions back, and a person is asked.

If a source table was emptied by mistake, or a mapping leads to another table, every entity of the type seems to be
deleted. New and changed rows are applied; only the deletions wait. Deletions by events never wait, because each event
names its entity.
"""

from collections.abc import Collection
from dataclasses import dataclass

from mcp_assets.entities.refs import SLOTS
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

ALWAYS_ALLOWED = 20
"""Entities of a type that are removed without asking, whatever their share is: a person may well delete so many."""

ALLOWED_IF_NONE_IS_LEFT = 5
"""Entities that are removed without asking although the type has no others: a table that was emptied loses more."""


JUDGED_FOR_S = 600.0
"""Seconds for which a count of the whole type stands for runs that cover a part of it and lose few entities there. The
entities of a part lose their rows like those of the type: if a table is emptied after the count, the part shows it."""


class MassDeletion(Exception):
    """So much of a type would be removed that a person is asked first. New and changed rows were applied, no entity was
    removed. `shards`: those whose deletions a full sync holds back."""

    def __init__(self, message: str, shards: Collection[int] = ()) -> None:
        super().__init__(message)
        self.shards = frozenset(shards)


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Deletions that wait for a person."""

    sentence: str
    shards: frozenset[int]
    """Those of the compared range."""


def is_mass(going: int, total: int, share: float) -> bool:
    """Whether a person has to allow the removal of `going` of the `total` entities of a type.

    `share`: 0..1, the part of a type that may go (MCP_ASSETS_MASS_DELETE_SHARE).
    """
    if going >= total:
        return going > ALLOWED_IF_NONE_IS_LEFT
    return going > ALWAYS_ALLOWED and going > share * total


def may_be_mass(candidates: int, living: int, share: float) -> bool:
    """Whether a type may lose so many entities that `is_mass`, if one part of it may lose `candidates` of its `living`.

    The part has the share of the type, because slots are spread evenly. The bounds in numbers do not count here: they
    are bounds of the type, of which only the part is known.
    """
    return candidates >= living or candidates > share * living


def sentence(what: str, entity_type: str, going: int, total: int, share: float) -> str:
    """The refusal, for a person."""
    return (
        f"{going} of {total} {what} of the type {entity_type} would be removed, more than {share:.0%} "
        "(MCP_ASSETS_MASS_DELETE_SHARE): if the source table is as it should be, run it again with "
        "--allow-mass-delete (in the UI, allow_mass_delete: true)"
    )


def hold_back_vanished(
    platform: Platform, session: Connection, entity_type: str, slots: tuple[int, int], *, records: bool
) -> HeldBack | None:
    """Delete from the temporary table `differing` the entities whose living source row is gone, if they are very many.

    They are counted over the whole type, also if `slots` (half-open, the range of `differing`) is a part of it: each of
    several runs that share a full sync judges alike. `session`: in autocommit. `records`: what was counted is kept, so
    that the other runs need not count. None: nothing is held back.

    Raises:
        StoreUnavailable, StoreRefused: the source table could not be read; `differing` is as it was.
    """
    query = platform.postgres.query
    place = {"entity_type": entity_type, "low": slots[0], "high": slots[1]}
    candidates, living = session.execute(query("differing_living"), place).fetchone() or (0, 0)
    # Most entities that differ have changed and are not gone. The source table is read again only for many.
    share = platform.settings.mass_delete_share
    if slots == (0, SLOTS):
        if not candidates or not is_mass(candidates, living, share):
            return None
    elif not candidates or not _part_has_to_ask(platform, session, entity_type, slots, share):
        return None
    gone, total = _find_vanished(platform, session, entity_type, (0, SLOTS))
    if records:
        session.execute(query("write_deletion_judgement"), {"entity_type": entity_type, "gone": gone, "living": total})
    if not is_mass(gone, total, share):
        return None
    rows = session.execute(query("hold_back_vanished"), {"shards": platform.settings.shards}).fetchall()
    if not rows:
        return None
    shards = frozenset(row[0] for row in rows)
    return HeldBack(sentence("entities", entity_type, gone, total, share), shards)


def _part_has_to_ask(
    platform: Platform, session: Connection, entity_type: str, slots: tuple[int, int], share: float
) -> bool:
    """Whether the whole type has to be counted before entities of a part of it are deleted.

    Not if the part loses none, or loses few while another run has lately counted the whole type and found few.
    """
    gone, living = _find_vanished(platform, session, entity_type, slots)
    if not gone or may_be_mass(gone, living, share):
        return bool(gone)
    judged = session.execute(
        platform.postgres.query("deletion_judgement"), {"entity_type": entity_type, "kept_s": JUDGED_FOR_S}
    ).fetchone()
    return judged is None or is_mass(judged[0], judged[1], share)


def _find_vanished(
    platform: Platform, session: Connection, entity_type: str, slots: tuple[int, int]
) -> tuple[int, int]:
    """Make the temporary table `vanished` of a range of slots. Returns how many are gone, and of how many."""
    query = platform.postgres.query
    place = {"entity_type": entity_type, "low": slots[0], "high": slots[1]}
    reader = platform.source(entity_type)
    session.execute("DROP TABLE IF EXISTS census_source")
    if reader is not None:
        reader.copy_living(session, slots)
    else:
        session.execute('CREATE TEMPORARY TABLE census_source (id text COLLATE "C", slot integer, hash text)')
    session.execute("DROP TABLE IF EXISTS vanished")
    session.execute(query("vanished"), place)
    session.execute("DROP TABLE census_source")
    gone, total = session.execute(query("count_vanished"), place).fetchone() or (0, 0)
    return gone, total
