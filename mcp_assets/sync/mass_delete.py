"""Mass deletion: a bulk path that would remove much of a partition stops, and a person is asked.

A source table that was emptied by mistake, a mapping that leads to another table: to the platform both look as if
everything had been deleted. Events are not asked about: each names what it deletes.
"""

from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.platform import Platform

ALWAYS_ALLOWED = 20
"""So few of a partition are removed without asking, whatever their share is."""

_ROWS_AT_ONCE = 500


class MassDeletion(Exception):
    """So much of a partition would be removed that a person is asked first; nothing of it was."""


def is_mass(platform: Platform, going: int, total: int) -> bool:
    """Whether removing `going` of the `total` of a partition has to be allowed by a person."""
    return going > ALWAYS_ALLOWED and going > platform.settings.mass_delete_share * total


def sentence(platform: Platform, what: str, place: str, going: int, total: int) -> str:
    """The refusal, for a person."""
    share = platform.settings.mass_delete_share
    return (
        f"{going} of {total} {what} of {place} would be removed, more than {share:.0%} "
        "(MCP_ASSETS_MASS_DELETE_SHARE): if the source table is as it should be, run it again with "
        "--allow-mass-delete (in the UI, allow_mass_delete: true)"
    )


def refuse_vanished(platform: Platform, session: Connection, entity_type: str) -> None:
    """Look through the temporary table `differing` of a full sync for a mass deletion.

    Raises:
        MassDeletion: too many entities of a shard have no living source row any more.
    """
    shards = platform.settings.shards
    query = platform.postgres.query
    counts = session.execute(query("differing_living"), {"entity_type": entity_type, "shards": shards}).fetchall()
    for shard, going, living in counts:
        if is_mass(platform, going, living):
            # Only now is it worth reading which of them changed and which are gone.
            gone = _count_gone(platform, session, entity_type, shard)
            if is_mass(platform, gone, living):
                raise MassDeletion(sentence(platform, "entities", f"{entity_type}, shard {shard}", gone, living))


def _count_gone(platform: Platform, session: Connection, entity_type: str, shard: int) -> int:
    reader = platform.source(entity_type)
    gone = last = 0
    place = {"entity_type": entity_type, "shards": platform.settings.shards, "shard": shard}
    while page := session.execute(
        platform.postgres.query("differing_living_ids"), {**place, "after": last, "limit": _ROWS_AT_ONCE}
    ).fetchall():
        last = page[-1][0]
        rows = reader.read(session, [row[1] for row in page]) if reader is not None else {}
        gone += len(page) - sum(row.alive for row in rows.values())
    return gone
