"""Collections: which one serves each alias, which is built beside it for another model, and the move of the aliases.

A change of model is journalled in `collection_changes`, for all aliases together:

- *building*: the full sync that finds another model in the settings begins it. The old collections serve, and are
  written to as long as their model is still configured; the new ones are filled beside them.
- *moving*: the new ones hold everything. Whoever finds the journal here goes on with it: a collection that bears the
  plain name is deleted, then all aliases are moved in one call.
- *moved*: everything is marked to be linked anew. The old collections are kept for a day, for a change of mind.

Writers and the linker hold a shared lock while they write, and look whether the journal still says what they read
when they chose their collections; each change of the journal holds the same lock alone.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal
from uuid import UUID

from mcp_assets.embedding.profiles import WORDLLAMA, ModelProfile, profile_for
from mcp_assets.embedding.protocol import Embedder
from mcp_assets.entities.points import FORMER_KEYS, INDEXED_KEYS, Key, chunk_id, is_own_id, point_id
from mcp_assets.entities.refs import SLOTS, EntityRef
from mcp_assets.entities.text import NO_TEXT_HASH
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, CollectionNotOurs
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant import Collection, MadeFor, physical_name
from mcp_assets.sync.collections.adoption import adopted, check_ours, holds_others, is_named_by_us, why_not_replaceable
from mcp_assets.sync.collections.payload_keys import rename_payload_keys

logger = logging.getLogger(__name__)

REFUSED_SHARE = 0.01
"""Of the living entities, those that a new model may refuse: with more of them the aliases do not move."""

_REFUSED_FEW = 10

_POINTS_A_WINDOW = 20_000
"""Points compared at once with the ledger."""

_WRONG_AT_ONCE = 1_000
"""Entities found wrong that are looked at once more; with more of them the rest is left for the next look."""

_PAYLOAD_KEYS = (Key.ENTITY_TYPE, Key.ENTITY_ID, Key.KIND, Key.TEXT_HASH, Key.STATE_HASH, Key.MODEL)


@dataclass(frozen=True, slots=True)
class Change:
    """One alias in the journal of a change of model."""

    alias: str
    old: str | None
    new: str
    model: str
    dimension: int
    state: Literal["building", "moving", "moved"]
    kept_long_enough: bool | None
    """Moved so long ago that the old collection is not needed any more."""

    @property
    def seen(self) -> tuple[str, ...]:
        """What a writer relies on."""
        return (self.alias, self.new, self.state)


Journal = tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A physical collection and the model that it was made for. `embedder`: None if that is not configured."""

    collection: Collection
    profile: ModelProfile
    embedder: Embedder | None


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the points of one alias go."""

    journal: Journal
    """What it said when the targets were chosen."""
    serving: Target | None
    building: Target | None

    @property
    def writable(self) -> list[tuple[Target, Embedder]]:
        """The collections whose model is configured; the serving one first."""
        both = (self.serving, self.building)
        return [(one, one.embedder) for one in both if one is not None and one.embedder is not None]

    @property
    def settle(self) -> bool:
        """What is written to all that are writable is done. A serving one that is frozen is about to go."""
        return self.building is None or self.building.embedder is not None


# What serves.


def serving(platform: Platform) -> dict[str, Target]:
    """The collection behind each alias of the registry that has one, whatever model it was made for.

    Collections of others are left out, so that they stop nothing but what would write to them.

    Raises:
        CollectionMismatch: one measures another distance than its model needs.
    """
    found, others = serving_and_others(platform)
    for error in others.values():
        logger.warning("%s", error)
    return found


def serving_and_others(platform: Platform) -> tuple[dict[str, Target], dict[str, CollectionNotOurs]]:
    """As `serving`, and why the collections that bear other names of ours are not this platform's, by alias."""
    _settled_journal(platform)
    aliases = platform.qdrant.aliases()
    found: dict[str, Target] = {}
    others: dict[str, CollectionNotOurs] = {}
    for alias in platform.settings.entity_types.collections():
        try:
            target = _serving(platform, alias, aliases)
        except CollectionNotOurs as error:
            others[alias] = error
            continue
        if target is not None:
            found[alias] = target
    return found, others


def serving_profile(platform: Platform, targets: Mapping[str, Target] | None = None) -> ModelProfile:
    """The model whose vectors are searched and linked: that of the collections in service, else the settings'."""
    for target in (serving(platform) if targets is None else targets).values():
        return target.profile
    return platform.embedder.profile


def serving_collection(platform: Platform, entity_type: str) -> tuple[Collection | None, ModelProfile]:
    """The collection behind the type's alias, None if there is none yet, and the model whose vectors it holds.

    Raises:
        CollectionMismatch: nobody could write to it.
    """
    targets = serving(platform)
    target = targets.get(platform.settings.entity_types[entity_type].collection_name)
    return (target.collection, target.profile) if target is not None else (None, serving_profile(platform, targets))


def searchable(platform: Platform) -> dict[str, tuple[Target, Embedder]]:
    """The serving collections with what embeds a question to them.

    Raises:
        CollectionMismatch: the model of one is not configured any more.
    """
    found = {}
    for alias, target in serving(platform).items():
        if target.embedder is None:
            raise CollectionMismatch(
                f"the collection {target.collection.name} (alias {alias}) was made for {_model(target.profile)}, which "
                f"the settings no longer name, so that a question to it cannot be embedded: {_keep(target.profile)} "
                "until the change of model is through, or set EMBEDDING_MODEL back"
            )
        found[alias] = (target, target.embedder)
    return found


def targets(platform: Platform, alias: str) -> Targets:
    """Where writes to `alias` go; collections that are absent are made.

    Raises:
        CollectionMismatch: none of them was made for a model that is configured.
    """
    journal = _settled_journal(platform)
    change = next((one for one in journal if one.alias == alias and one.state == "building"), None)
    try:
        found = _serving(platform, alias, platform.qdrant.aliases())
    except CollectionNotOurs:
        if change is None:
            raise
        # It is adopted: what replaces it is being built, and it is not written to.
        found = None
    if change is None:
        if found is None:
            found = _make_serving(platform, alias)
        if found.embedder is None:
            raise CollectionMismatch(mismatch(platform, found))
        return Targets(journal, found, None)
    embedder = _embedder_of(platform, change.model, change.dimension)
    profile = embedder.profile if embedder else profile_for(change.model, dimension=change.dimension)
    building = Target(Collection(alias, change.new), profile, embedder)
    if embedder is None and (found is None or found.embedder is None):
        raise CollectionMismatch(
            f"the collection {change.new} is being built for {_model(profile)}, which the settings do not name: "
            "nothing was written to it. Set EMBEDDING_MODEL to it, or run a full sync, which gives that up"
        )
    if embedder is not None:
        _make(platform, alias, change.new, profile, aliased=False)
    return Targets(journal, found, building)


def hold(platform: Platform, connection: Connection, journal: Journal) -> bool:
    """Keep the collections from being moved until the transaction ends; False if the journal says other than it did.

    To be called before anything else in the transaction.
    """
    connection.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (_lock_name(platform),))
    return _seen(_read(platform, connection)) == _seen(journal)


def read_journal(platform: Platform) -> Journal:
    """The journal, after a move that was broken off has been finished."""
    return _settled_journal(platform)


# A change of model.


def prepare(platform: Platform) -> None:
    """What a full sync does first: begin a change of model, go on with it, or give it up, as the settings say."""
    profile = platform.embedder.profile
    while True:
        journal = _settled_journal(platform)
        building = [change.alias for change in journal if change.state == "building" and _is_for(change, profile)]
        if any(change.state == "building" and not _is_for(change, profile) for change in journal):
            _give_up(platform, profile)
            continue
        found, others = serving_and_others(platform)
        other = {alias for alias, target in found.items() if not _same_model(target.profile, profile)}
        replaced = others.keys() & adopted(platform).keys()
        if not building and not other and not replaced:
            return
        absent = set(platform.settings.entity_types.collections()) - found.keys() - others.keys()
        wanted = other | replaced | (absent if building or other else set())
        begun = {alias: found.get(alias) for alias in sorted(wanted - set(building))}
        if begun and not _begin(platform, journal, begun, profile):
            continue
        for alias in (*building, *begun):
            # Made before a writer comes, with its indexes, which a killed predecessor may have left out.
            _make(platform, alias, physical_name(alias, profile), profile, aliased=False)
        return


def built_for_settings(platform: Platform) -> dict[str, str]:
    """The physical collections that are being built, by alias, for the model that the settings name."""
    profile = platform.embedder.profile
    journal = _settled_journal(platform)
    return {one.alias: one.new for one in journal if one.state == "building" and _is_for(one, profile)}


def building_collection(platform: Platform, entity_type: str) -> str | None:
    """The physical collection that is being built for the type's alias."""
    alias = platform.settings.entity_types[entity_type].collection_name
    with platform.postgres.transaction() as connection:
        journal = _read(platform, connection)
    return next((one.new for one in journal if one.alias == alias and one.state == "building"), None)


def finish(platform: Platform, since: datetime) -> str | None:
    """Move the aliases if the new collections are complete, once; drop old ones that were kept long enough.

    `since`: entities that changed after it and are not indexed yet do not count; their change is on its way.

    Returns why the aliases were not moved; None if they were, or if nothing is being built.
    """
    with platform.postgres.session() as session:
        # One at a time, and each waits: the last of several runs that end together has to find all complete.
        session.execute(
            "SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"{platform.postgres.schema}/finish-collections",)
        )
        journal = _settled_journal(platform)
        if any(change.state == "moved" and change.kept_long_enough for change in journal):
            _drop_old(platform)
        building = [change for change in journal if change.state == "building"]
        if not building:
            return None
        for reason in (
            *(_lacking(platform, session, change, since) for change in building),
            *(complete(platform, Collection(change.alias, change.new)) for change in building),
        ):
            if reason is not None:
                logger.info("the aliases are not moved yet: %s", reason)
                return reason
        reason = _replaces_others(platform, building)
        if reason is not None:
            logger.error("the aliases are not moved: %s", reason)
            return reason
        with _alone(platform) as alone:
            if _seen(_read(platform, alone)) != _seen(journal):
                return "somebody else changed the collections meanwhile"
            for change in building:
                # While nobody writes: what came in between is not lost, but may be lacking again.
                reason = _lacking(platform, alone, change, since)
                if reason is not None:
                    return reason
            alone.execute(platform.postgres.query("set_collection_changes"), {"state": "moving"})
            _move(platform, alone)
    return None


def complete(platform: Platform, collection: Collection) -> str | None:
    """Why a collection that is being built may not serve yet; None if its points are those that the ledger knows of.

    Streams both sides, a window of slots at a time. What looks wrong is looked at once more, for writers are at work;
    what is wrong then is not trusted any more, so that the next full sync writes it anew.
    """
    types = _sharing(platform, collection.alias)
    points = platform.qdrant.count(collection.name)
    windows = max(1, -(-points // _POINTS_A_WINDOW))
    bounds = [SLOTS * number // windows for number in range(windows + 1)]
    wrong: list[EntityRef] = []
    for low, high in pairwise(bounds):
        held = _Window.of(platform, collection, types, (low, high))
        wrong += held.wrong()
        if len(wrong) >= _WRONG_AT_ONCE:
            break
    wrong = _wrong_still(platform, collection, wrong[:_WRONG_AT_ONCE])
    if not wrong:
        return None
    example = ", ".join(map(str, wrong[:3]))
    return (
        f"{len(wrong)} entities of {collection.name} have other points than were written ({example}): "
        "they are written anew by the next full sync"
    )


def describe(platform: Platform) -> list[str]:
    """What a person should know of a change of model that is under way, from the journal alone."""
    with platform.postgres.transaction() as connection:
        journal = _read(platform, connection)
        lines = []
        for change in journal:
            if change.state == "moved":
                if change.old and change.old != change.alias:
                    lines.append(f"collection {change.alias}: {change.old}, which served before, is kept for a day")
                continue
            name = f"collection {change.alias}: {change.new} for {change.model}"
            if change.state == "moving":
                lines.append(f"{name} is being moved to")
                continue
            row = connection.execute(
                platform.postgres.query("count_lacking"), _parameters(platform, change, datetime.max)
            ).fetchone()
            left, living, _ = row or (0, 0, 0)
            lines.append(f"{name} is being built: {left} of {living} entities to go")
            if change.old is not None:
                held = connection.execute(platform.postgres.query("model_of_embedded"), {"collection": change.old})
                model = held.fetchone()
                if model is not None and not _is_configured(platform, change, model[0]):
                    lines.append(
                        f"collection {change.alias}: {change.old}, which serves, is frozen: its model, {model[0]}, is "
                        "not configured (EMBEDDING_PREVIOUS_MODEL)"
                    )
    return lines


def _begin(platform: Platform, journal: Journal, old: Mapping[str, Target | None], profile: ModelProfile) -> bool:
    """Journal that collections for `profile` are built beside `old`; False if somebody changed the journal first."""
    new = {alias: physical_name(alias, profile) for alias in old}
    query = platform.postgres.query
    present = set(platform.qdrant.collections())
    with _alone(platform) as alone:
        if _seen(_read(platform, alone)) != _seen(journal):
            return False
        for change in journal:
            if change.alias in new and change.state == "moved" and change.old not in (None, new[change.alias]):
                _drop(platform, alone, change)
        with alone.transaction():
            gone = [name for name in new.values() if name not in present]
            alone.execute(query("forget_embedded"), {"collections": gone})
            for alias, name in new.items():
                alone.execute(
                    query("raise_chunk_bounds"), {"collection": name, "entity_types": _sharing(platform, alias)}
                )
            alone.execute(
                query("begin_collection_changes"),
                {
                    "aliases": list(new),
                    "old": [target and target.collection.name for target in old.values()],
                    "new": list(new.values()),
                    "model": profile.name,
                    "dimension": profile.dimension,
                },
            )
    for alias, target in old.items():
        if target is not None:
            frozen = "" if target.embedder else f"; it is frozen meanwhile: {_keep(target.profile)} to keep it current"
            logger.warning("%s is built beside %s, which serves%s", new[alias], target.collection.name, frozen)
    return True


def _give_up(platform: Platform, profile: ModelProfile) -> None:
    """End what is being built for another model than `profile`."""
    with _alone(platform) as alone:
        building = [
            change for change in _read(platform, alone) if change.state == "building" and not _is_for(change, profile)
        ]
        for change in building:
            logger.warning("%s is given up: the settings name another model", change.new)
            platform.qdrant.drop_collection(change.new)
        with alone.transaction():
            alone.execute(
                platform.postgres.query("forget_embedded"), {"collections": [change.new for change in building]}
            )
            for change in building:
                if change.old is not None:
                    # It may have been frozen.
                    _mark_lacking(platform, alone, change.alias, change.old)
            alone.execute(
                platform.postgres.query("end_collection_changes"), {"aliases": [change.alias for change in building]}
            )


def _move(platform: Platform, alone: Connection) -> None:
    """Every step of the move that is left; the journal says `moving`, and the caller is alone."""
    query, qdrant = platform.postgres.query, platform.qdrant
    moving = [change for change in _read(platform, alone) if change.state == "moving"]
    present = set(qdrant.collections())
    vanished = [change.new for change in moving if change.new not in present]
    if vanished:
        logger.error("%s vanished before the aliases were moved: built anew", ", ".join(vanished))
        with alone.transaction():
            alone.execute(query("forget_embedded"), {"collections": vanished})
            alone.execute(query("set_collection_changes"), {"state": "building"})
        return
    reason = _replaces_others(platform, moving)
    if reason is not None:
        logger.error("the aliases are not moved: %s", reason)
        alone.execute(query("set_collection_changes"), {"state": "building"})
        return
    plain = [change.alias for change in moving if change.alias in present]
    for name in plain:
        qdrant.drop_collection(name)
    qdrant.move_aliases({change.alias: change.new for change in moving})
    with alone.transaction():
        alone.execute(query("set_collection_changes"), {"state": "moved"})
        alone.execute(query("end_adoptions"), {"aliases": [change.alias for change in moving]})
        alone.execute(
            query("forget_embedded"), {"collections": [change.old for change in moving if change.old == change.alias]}
        )
        for change in moving:
            _mark_lacking(platform, alone, change.alias, change.new)
        for entity_type in platform.settings.entity_types:
            alone.execute(
                query("mark_range"),
                {"entity_type": entity_type, "low": 0, "high": SLOTS, "linked_by": "", "force": True},
            )
    logger.warning("the aliases are moved: %s serve", ", ".join(change.new for change in moving))


def _replaces_others(platform: Platform, changes: Sequence[Change]) -> str | None:
    """Why an alias may not be moved: a collection of others bears its name."""
    physical, aliases = set(platform.qdrant.collections()), platform.qdrant.aliases()
    reasons = (why_not_replaceable(platform, change.alias, physical, aliases) for change in changes)
    return next((reason for reason in reasons if reason is not None), None)


def _drop_old(platform: Platform) -> None:
    with _alone(platform) as alone:
        for change in _read(platform, alone):
            if change.state == "moved" and change.kept_long_enough:
                _drop(platform, alone, change)


def _drop(platform: Platform, alone: Connection, change: Change) -> None:
    """Delete the collection that served before `change`, and then its journal row; the caller is alone."""
    if change.old is not None and change.old != change.alias:
        if change.old not in platform.qdrant.aliases().values() and platform.qdrant.exists(change.old):
            if not is_named_by_us(change.alias, change.old) or holds_others(platform, change.old):
                logger.warning(
                    "%s served before and is kept, because points of others are in it: delete it by hand", change.old
                )
            else:
                platform.qdrant.drop_collection(change.old)
        alone.execute(platform.postgres.query("forget_embedded"), {"collections": [change.old]})
    alone.execute(platform.postgres.query("end_collection_changes"), {"aliases": [change.alias]})


# The journal.


def _settled_journal(platform: Platform) -> Journal:
    """The journal. A move that was broken off is finished first, for until then there may be no alias."""
    with platform.postgres.transaction() as connection:
        journal = _read(platform, connection)
    if all(change.state != "moving" for change in journal):
        return journal
    with _alone(platform) as alone:
        if any(change.state == "moving" for change in _read(platform, alone)):
            _move(platform, alone)
        return _read(platform, alone)


def _read(platform: Platform, connection: Connection) -> Journal:
    return tuple(Change(*row) for row in connection.execute(platform.postgres.query("collection_changes")))


def _seen(journal: Journal) -> list[tuple[str, ...]]:
    return [change.seen for change in journal]


@contextmanager
def _alone(platform: Platform) -> Iterator[Connection]:
    """A connection of its own, in autocommit, while nobody writes to collections, or edges."""
    with platform.postgres.session() as session:
        session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (_lock_name(platform),))
        yield session


def _lock_name(platform: Platform) -> str:
    return f"{platform.postgres.schema}/collections"


def _sharing(platform: Platform, alias: str) -> list[str]:
    """The entity types whose points the alias holds."""
    types = platform.settings.entity_types
    return [name for name in types if types[name].collection_name == alias]


def _parameters(platform: Platform, change: Change, since: datetime) -> dict[str, object]:
    return {
        "entity_types": _sharing(platform, change.alias),
        "collection": change.new,
        "no_text": NO_TEXT_HASH,
        "since": since,
    }


def _lacking(platform: Platform, connection: Connection, change: Change, since: datetime) -> str | None:
    """Why `change` is not complete by the ledger's own account."""
    parameters = _parameters(platform, change, since)
    row = connection.execute(platform.postgres.query("count_lacking"), parameters).fetchone()
    lacking, living, refused = row or (0, 0, 0)
    if lacking:
        return f"{change.new} lacks {lacking} of {living} entities"
    if refused > max(living * REFUSED_SHARE, min(_REFUSED_FEW, living / 2)):
        return f"{change.model} refuses {refused} of {living} entities of {change.alias}: look at the dead letters"
    return None


def _mark_lacking(
    platform: Platform, connection: Connection, alias: str, collection: str, ids: Sequence[str] | None = None
) -> None:
    connection.execute(
        platform.postgres.query("mark_lacking"),
        {
            "entity_types": _sharing(platform, alias),
            "collection": collection,
            "no_text": NO_TEXT_HASH,
            "ids": ids,
        },
    )


def mark_lacking(platform: Platform, entity_type: str, ids: Sequence[str]) -> None:
    """Mark those of `ids` dirty that the collection lacks which is being built, if one is."""
    name = building_collection(platform, entity_type)
    if name is None:
        return
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("mark_lacking"),
            {"entity_types": [entity_type], "collection": name, "no_text": NO_TEXT_HASH, "ids": list(ids)},
        )


# Collections and models.


def _serving(platform: Platform, alias: str, aliases: Mapping[str, str]) -> Target | None:
    qdrant = platform.qdrant
    name = aliases.get(alias)
    if name is None:
        if not qdrant.exists(alias):
            return None
        # The name may be an alias that was made since.
        name = qdrant.alias_target(alias) or alias
    made = qdrant.made_for(alias, name)
    _ready(platform, made)
    embedder = next(
        (one for one in _configured(platform) if physical_name(alias, one.profile) == name),
        None,
    )
    if embedder is None:
        model = qdrant.model_in(name)
        if model is not None:
            embedder = _embedder_of(platform, model, made.dimension)
        elif platform.embedder.profile.dimension == made.dimension:
            # An empty collection, or one of another hand, that was made to be taken as it is.
            embedder = platform.embedder
        if embedder is None:
            return Target(Collection(alias, name), _profile(model or _model_named(name), made.dimension), None)
    profile = embedder.profile
    if made.dimension != profile.dimension:
        return Target(Collection(alias, name), _profile(profile.name, made.dimension), None)
    if made.distance != profile.distance and _same_model(profile, platform.embedder.profile):
        raise CollectionMismatch(
            f"the collection {name} measures {made.distance}, the model {profile.name} needs {profile.distance}; "
            "nothing was written to it. If no other program uses it, delete it by hand and run a full sync"
        )
    return Target(Collection(alias, name), profile, embedder)


def _make_serving(platform: Platform, alias: str) -> Target:
    """The collection of an alias that has none, for the model that the others were made for."""
    profile = serving_profile(platform)
    embedder = _embedder_of(platform, profile.name, profile.dimension)
    name = physical_name(alias, profile)
    if embedder is not None:
        _make(platform, alias, name, profile, aliased=True)
    return Target(Collection(alias, name), profile, embedder)


def _make(platform: Platform, alias: str, name: str, profile: ModelProfile, *, aliased: bool) -> None:
    """Make a collection. What the ledger says of one that vanished is forgotten first.

    For one that serves (`aliased`), full syncs are asked for, and the alias is made last, so that a process that dies
    in between leaves that to the next. What one that is being built lacks, a full sync finds by itself.
    """
    postgres, qdrant = platform.postgres, platform.qdrant
    if not aliased and qdrant.exists(name):
        _ready(platform, qdrant.made_for(alias, name))
        return
    sharing = _sharing(platform, alias)
    with postgres.session() as session:
        session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"{postgres.schema}/collection/{name}",))
        if not aliased:
            if not qdrant.exists(name):
                session.execute(postgres.query("forget_embedded"), {"collections": [name]})
            qdrant.create_collection(name, profile)
            return
        if qdrant.find_collection(alias, profile) is not None:
            return
        forgotten = session.execute(postgres.query("forget_collection"), {"collection": name, "entity_types": sharing})
        if forgotten.rowcount:
            session.execute(
                postgres.query("want_full_syncs"),
                {"entity_types": sharing, "reason": f"the collection {name} was absent: it is made again"},
            )
        qdrant.ensure_collection(alias, profile)


def _ready(platform: Platform, made: MadeFor) -> None:
    """Have what is filtered by indexed, and the points bear the payload keys of now; others wait until it is done.

    The index that is made last is the mark that this is through. So it is asked for no more than once a look.
    """
    if made.is_prepared:
        return
    check_ours(platform, made, {one.profile.dimension for one in _configured(platform)})
    qdrant = platform.qdrant
    with _alone(platform):
        indexes = qdrant.made_for(made.alias, made.name).indexes
        if indexes >= INDEXED_KEYS.keys():
            return
        rename_payload_keys(platform, made.name)
        qdrant.drop_indexes(made.name, sorted(indexes & FORMER_KEYS.keys()))
        qdrant.create_indexes(made.name)


def _configured(platform: Platform) -> list[Embedder]:
    return [one for one in (platform.embedder, platform.previous_embedder) if one is not None]


def _is_configured(platform: Platform, change: Change, model: str) -> bool:
    """The old collection of `change`, filled by `model`, can be written to."""
    profiles = [one.profile for one in _configured(platform)]
    if change.old == change.alias:
        return any(profile.name == model for profile in profiles)
    return any(physical_name(change.alias, profile) == change.old for profile in profiles)


def _embedder_of(platform: Platform, model: str, dimension: int) -> Embedder | None:
    return next(
        (one for one in _configured(platform) if (one.profile.name, one.profile.dimension) == (model, dimension)), None
    )


def _profile(model: str, dimension: int) -> ModelProfile:
    """The profile of a model that is not configured."""
    try:
        return profile_for(model, dimension=dimension)
    except ValueError:
        # Not as the model of that name is known here: somebody gave it another meaning.
        return profile_for(f"{model}-{dimension}", dimension=dimension)


def _model_named(collection: str) -> str:
    """The model in the name of a physical collection that holds no point to tell it."""
    return collection.partition("__")[2].rpartition("_")[0] or "another-model"


def _is_for(change: Change, profile: ModelProfile) -> bool:
    return (change.model, change.dimension) == (profile.name, profile.dimension)


def _same_model(one: ModelProfile, other: ModelProfile) -> bool:
    return (one.name, one.dimension) == (other.name, other.dimension)


def _model(profile: ModelProfile) -> str:
    return f"{profile.name} with {profile.dimension} dimensions"


def _keep(profile: ModelProfile) -> str:
    """What to set so that `profile` stays configured."""
    if profile.name == WORDLLAMA.name:
        return "leave EMBEDDING_PREVIOUS_MODEL unset"
    return f"set EMBEDDING_PREVIOUS_MODEL={profile.name} EMBEDDING_PREVIOUS_DIMENSION={profile.dimension}"


def mismatch(platform: Platform, target: Target) -> str:
    """That a collection serves which was made for another model than the settings name, and what to do."""
    wanted = platform.embedder.profile
    collection = target.collection
    return (
        f"the collection {collection.name} (alias {collection.alias}) was made for {_model(target.profile)}, the "
        f"settings ask for {wanted.name} with {wanted.dimension}; nothing was written to it. A full sync builds a "
        f"collection for {wanted.name} beside it and moves to it; until then {_keep(target.profile)} for events to "
        "reach it, or set EMBEDDING_MODEL (and EMBEDDING_PROVIDER) back"
    )


# Points against the ledger.


@dataclass(frozen=True, slots=True)
class _Held:
    """What the ledger says that a collection holds of an entity."""

    text_hash: str
    state_hash: str
    points: int


@dataclass(frozen=True, slots=True)
class _Window:
    """Both sides of some slots, or some entities: hashes and the number of points of each entity."""

    known: Mapping[EntityRef, _Held]
    found: Mapping[EntityRef, Mapping[tuple[str, str], int]]
    """Of each entity the points, counted by their hashes."""

    @classmethod
    def of(cls, platform: Platform, collection: Collection, types: Sequence[str], slots: tuple[int, int]) -> "_Window":
        with platform.postgres.transaction() as connection:
            rows = connection.execute(
                platform.postgres.query("embedded_of_slots"),
                {"collection": collection.name, "entity_types": list(types), "low": slots[0], "high": slots[1]},
            )
            known = {EntityRef(row[0], row[1]): _Held(*row[2:]) for row in rows}
        found: dict[EntityRef, dict[tuple[str, str], int]] = {}
        for identifier, payload in platform.qdrant.payloads_of_slots(collection.name, slots, _PAYLOAD_KEYS):
            if is_own_id(identifier) and Key.ENTITY_ID in payload and payload.get(Key.ENTITY_TYPE) in types:
                ref = EntityRef(payload[Key.ENTITY_TYPE], payload[Key.ENTITY_ID])
                hashes = (str(payload.get(Key.TEXT_HASH)), str(payload.get(Key.STATE_HASH)))
                counts = found.setdefault(ref, {})
                counts[hashes] = counts.get(hashes, 0) + 1
        return cls(known, found)

    def wrong(self) -> list[EntityRef]:
        return [
            ref
            for ref in (*self.known, *(ref for ref in self.found if ref not in self.known))
            if self.found.get(ref, {}) != self._expected(ref)
        ]

    def _expected(self, ref: EntityRef) -> dict[tuple[str, str], int]:
        held = self.known.get(ref)
        return {(held.text_hash, held.state_hash): held.points} if held else {}


def _wrong_still(platform: Platform, collection: Collection, refs: Sequence[EntityRef]) -> list[EntityRef]:
    """Those of `refs` whose points are not what was written, while nobody writes them; they are dirty from then on."""
    if not refs:
        return []
    query = platform.postgres.query
    wrong: list[EntityRef] = []
    names = {"types": [ref.type for ref in refs], "ids": [ref.id for ref in refs]}
    with platform.postgres.transaction() as connection:
        in_ledger = {EntityRef(*row) for row in connection.execute(query("lock_entities_of"), names)}
        rows = connection.execute(query("embedded_of_entities"), {**names, "collection": collection.name})
        known = {EntityRef(row[0], row[1]): _Held(*row[2:]) for row in rows}
        ours: dict[str, EntityRef] = {}
        for ref in refs:
            own = point_id(ref)
            ours[str(own)] = ref
            ours |= {str(chunk_id(own, number)): ref for number in range(known[ref].points - 1 if ref in known else 0)}
        found: dict[EntityRef, list[tuple[str, str]]] = {}
        for identifier, payload in platform.qdrant.payloads_of(collection.name, list(ours), _PAYLOAD_KEYS):
            hashes = (str(payload.get(Key.TEXT_HASH)), str(payload.get(Key.STATE_HASH)))
            found.setdefault(ours[identifier], []).append(hashes)
        for ref in refs:
            held = known.get(ref)
            expected = [(held.text_hash, held.state_hash)] * held.points if held else []
            if found.get(ref, []) != expected:
                wrong.append(ref)
        strangers = [identifier for identifier, ref in ours.items() if ref in found and ref not in in_ledger]
        platform.qdrant.write(collection.name, delete=[UUID(identifier) for identifier in strangers])
        if wrong:
            connection.execute(
                query("distrust_embedded"),
                {
                    "types": [ref.type for ref in wrong],
                    "ids": [ref.id for ref in wrong],
                    "collection": collection.name,
                },
            )
    return wrong
