"""Adoption: a collection of another program bears a name that the settings give to one of ours; a person hands it over.

Such a collection is neither written to nor replaced. To *adopt* it is to allow its replacement: the next full sync
builds a collection beside it, as in a change of model, and when that is complete the alias takes over the name. Unless
the person wants no copy, the points are first copied into a collection that is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mcp_assets.entities.points import Key, bears_former_keys, is_own_id, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionNotOurs, StoreRefused
from mcp_assets.stores.qdrant_collections import MadeFor

_POINTS_SAMPLED = 1_000
"""Points read to find out whether a collection is ours: one request. A collection of ours has ours among the first."""

BACKUP_SUFFIX = "-before-mcp-assets"
"""Of the default name of the copy: the alias with this suffix."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A collection that a person allowed to be replaced. `backup`: the collection with its copy; None: no copy."""

    alias: str
    backup: str | None
    points: int
    """In the collection when it was adopted."""


def is_named_by_us(alias: str, name: str) -> bool:
    """The name of the physical collection is one that only this platform gives: the alias and a model."""
    return name.startswith(f"{alias}__")


def adopted(platform: Platform) -> dict[str, Adopted]:
    """The collections that were adopted and are not replaced yet, by alias."""
    with platform.postgres.transaction() as connection:
        rows = platform.postgres.rows(connection, "adopted_collections", Adopted)
    return {row.alias: row for row in rows}


def check_ours(platform: Platform, made: MadeFor, dimensions: set[int]) -> None:
    """Raise CollectionNotOurs if a collection that this platform has not prepared is not its own.

    An empty collection counts as ours if its vectors have one of `dimensions`, those of the configured models: a person
    made it for us.
    """
    if made.is_prepared or is_named_by_us(made.alias, made.name):
        return
    page = next(platform.qdrant.payload_pages(made.name, limit=_POINTS_SAMPLED), [])
    if any(is_own_id(point.id) and (Key.KIND in point.payload or bears_former_keys(point.payload)) for point in page):
        return
    if (made.dimension in dimensions) if not page else _holds_points_of_ledger(platform, made.name):
        return
    raise not_ours(platform, made)


def not_ours(platform: Platform, made: MadeFor) -> CollectionNotOurs:
    """The error about a collection of another program: why it is not written to, and the next step."""
    count = platform.qdrant.count(made.name)
    text = (
        f"the collection {made.name}, of {count} points with {made.dimension} dimensions, was not filled by this "
        "platform: nothing was written to it. "
    )
    if made.alias in adopted(platform):
        return CollectionNotOurs(f"{text}It is adopted: run a full sync, which builds the one that replaces it")
    return CollectionNotOurs(
        f"{text}Give the entity type another collection (MCP_ASSETS_TYPES), or hand this one over: `mcp-assets "
        f"collections adopt {made.alias}` (docs/how-to/take-over-collections.md)"
    )


def why_not_replaceable(platform: Platform, alias: str, physical: set[str], aliases: Mapping[str, str]) -> str | None:
    """Why the alias may not be moved away from the collection that it names now; None if it may.

    A collection that bears the plain name of the alias has to be deleted for the move. So all its points have to be
    ours, or it has to be adopted, with as many points in its copy as it holds now.
    """
    name = alias if alias in physical else aliases.get(alias)
    if name is None or is_named_by_us(alias, name):
        return None
    qdrant = platform.qdrant
    given = adopted(platform).get(alias)
    points = qdrant.count(name)
    if given is not None:
        kept = points if given.backup is None else qdrant.count(given.backup) if given.backup in physical else 0
        if name == alias and (points > given.points or kept < points):
            return (
                f"{name} holds {points} points, and held {given.points} when it was adopted: stop what writes to it "
                f"and run `mcp-assets collections adopt {alias}` again"
            )
        return None
    try:
        made = qdrant.made_for(alias, name)
    except CollectionNotOurs as error:
        return str(error)
    if not made.is_prepared:
        return str(not_ours(platform, made))
    others = points - qdrant.count_ours(name)
    if others > 0 and name == alias:
        return (
            f"{others} of {points} points of {name} are not of this platform, and it would have to be deleted: `mcp-"
            f"assets validate` lists them, `validate --repair --foreign` removes them, `mcp-assets collections adopt "
            f"{alias}` keeps a copy"
        )
    return None


def holds_others(platform: Platform, name: str) -> bool:
    """Some points of a collection of ours were written by another program."""
    qdrant = platform.qdrant
    return qdrant.made_for(name, name).is_prepared and qdrant.count(name) > qdrant.count_ours(name)


def adopt(
    platform: Platform, alias: str, *, backup: str | None, on_progress: Callable[[int, int], None] = lambda *_: None
) -> Adopted:
    """Allow the collection that bears a name of ours to be replaced; `backup`: the collection to copy it to.

    Safe to repeat: points that the copy has already are kept, so that an interrupted copy is continued. `on_progress`
    receives the number of points copied and the number of all.

    Raises:
        StoreRefused: there is no such collection, or it needs no adoption.
    """
    name = replaceable(platform, alias)
    points = platform.qdrant.count(name)
    # The name is another program's alias: only the alias will be moved, the collection behind it stays.
    if name != alias:
        backup = None
    if backup is not None:
        platform.qdrant.copy_collection(name, backup, lambda done: on_progress(done, points))
    given = Adopted(alias, backup, points)
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("adopt_collection"), {"alias": alias, "backup": backup, "points": points}
        )
    return given


def replaceable(platform: Platform, alias: str) -> str:
    """The physical collection under the name `alias` that a person may hand over.

    Raises:
        StoreRefused: there is no such collection, or it is ours.
    """
    if alias not in platform.settings.entity_types.collections():
        names = ", ".join(platform.settings.entity_types.collections())
        raise StoreRefused(f"no entity type has the collection {alias}: {names} are the collections of this platform")
    aliases = platform.qdrant.aliases()
    physical = set(platform.qdrant.collections())
    name = alias if alias in physical else aliases.get(alias)
    if name is None:
        raise StoreRefused(f"there is no collection {alias}: a full sync makes it, and nothing has to be handed over")
    if alias not in adopted(platform) and why_not_replaceable(platform, alias, physical, aliases) is None:
        raise StoreRefused(f"the collection {alias} ({name}) is this platform's own: nothing has to be handed over")
    return name


def _holds_points_of_ledger(platform: Platform, name: str) -> bool:
    """Some of the points that the ledger records for the collection exist in it."""
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            platform.postgres.query("some_embedded"), {"collection": name, "limit": _POINTS_SAMPLED}
        ).fetchall()
    return bool(platform.qdrant.existing(name, [str(point_id(EntityRef(*row))) for row in rows]))
