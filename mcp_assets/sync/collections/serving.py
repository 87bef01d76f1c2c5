"""Serving: which physical collection each alias serves searches from, and which collections receive writes.

An *alias* is the name that the registry gives to the collection of an entity type; the *physical* collection behind it
bears a name with the model and its dimension. While a change of model is under way, an alias has two: the one that
serves, and the one that is being built (see `journal`).
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from mcp_assets.embedding.profiles import WORDLLAMA, ModelProfile, profile_for
from mcp_assets.embedding.protocol import Embedder
from mcp_assets.entities.points import FORMER_KEYS, INDEXED_KEYS
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, CollectionNotOurs
from mcp_assets.stores.postgres.locks import Lock, hold, lock_name
from mcp_assets.stores.qdrant_collections import Collection, MadeFor
from mcp_assets.sync.collections.adoption import check_ours
from mcp_assets.sync.collections.gates import is_abandoned
from mcp_assets.sync.collections.journal import Journal, exclusive, types_of_alias
from mcp_assets.sync.collections.lookup import Lookup
from mcp_assets.sync.collections.model_collections import (
    check_distance,
    ensure_collection,
    find_collection,
    physical_name,
)
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.collections.payload_keys import rename_payload_keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """A physical collection and the model that it was made for. `embedder`: None if that model is not configured."""

    collection: Collection
    profile: ModelProfile
    embedder: Embedder | None


@dataclass(frozen=True, slots=True)
class WriteTargets:
    """The collections that the points of one alias are written to."""

    journal: Journal
    """By which the targets were chosen; `hold_collections` compares it before each write."""
    serving: WriteTarget | None
    building: WriteTarget | None

    @property
    def writable(self) -> list[tuple[WriteTarget, Embedder]]:
        """The collections whose model is configured; the serving one first."""
        both = (self.serving, self.building)
        return [(one, one.embedder) for one in both if one is not None and one.embedder is not None]

    @property
    def complete(self) -> bool:
        """An entity that is written to all writable collections is up to date.

        A serving collection whose model is not configured does not count, because the one that is being built replaces
        it. A collection that is being built does count.
        """
        return self.building is None or self.building.embedder is not None


def serving_collections(platform: Platform) -> dict[str, WriteTarget]:
    """By alias of the registry, the collection behind it, whatever model that was made for.

    Aliases without a collection are left out. So are those whose name a collection of another program bears, with a
    warning: such a collection stops only what would write to it.

    Raises:
        CollectionMismatch: a collection measures another distance than its model needs.
    """
    found, foreign = serving_and_foreign(platform)
    for error in foreign.values():
        logger.warning("%s", error)
    return found


def serving_and_foreign(platform: Platform) -> tuple[dict[str, WriteTarget], dict[str, CollectionNotOurs]]:
    """By alias, the collections in service, and the reasons why those under other aliases are not this platform's.

    Raises:
        CollectionMismatch: as `serving_collections`.
    """
    read_at = time.monotonic()
    journal = read_journal(platform)
    lookup: Lookup[tuple[dict[str, WriteTarget], dict[str, CollectionNotOurs]]] = platform.companion(Lookup)
    known = lookup.recall(journal)
    if known is not None:
        return known
    aliases = platform.qdrant.aliases()
    found: dict[str, WriteTarget] = {}
    foreign: dict[str, CollectionNotOurs] = {}
    for alias in platform.settings.entity_types.collections():
        try:
            target = _serving_target(platform, alias, aliases)
        except CollectionNotOurs as error:
            foreign[alias] = error
            continue
        if target is not None:
            found[alias] = target
    if len(found) + len(foreign) == len(platform.settings.entity_types.collections()):
        # A collection that is absent is asked for each time, because another process may make it at any moment.
        lookup.keep(journal, (found, foreign), read_at=read_at)
    return found, foreign


def serving_profile(platform: Platform, served: Mapping[str, WriteTarget] | None = None) -> ModelProfile:
    """The model whose vectors are searched and linked: that of the collections in service, otherwise the settings'.

    `served`: what `serving_collections` returned; read if it is not given.
    """
    for target in (serving_collections(platform) if served is None else served).values():
        return target.profile
    return platform.embedder.profile


def serving_collection(platform: Platform, entity_type: str) -> tuple[Collection | None, ModelProfile]:
    """The collection behind the type's alias, None if there is none yet, and the model whose vectors it holds.

    Raises:
        CollectionMismatch: the collection cannot be written to.
    """
    served = serving_collections(platform)
    target = served.get(platform.settings.entity_types[entity_type].collection_name)
    return (target.collection, target.profile) if target is not None else (None, serving_profile(platform, served))


def searchable_collections(platform: Platform) -> dict[str, tuple[WriteTarget, Embedder]]:
    """By alias, the collections in service, each with the embedder for questions to it.

    Raises:
        CollectionMismatch: the model of one is not configured any more.
    """
    found = {}
    for alias, target in serving_collections(platform).items():
        if target.embedder is None:
            raise CollectionMismatch(
                f"the collection {target.collection.name} (alias {alias}) was made for {_model(target.profile)}, which "
                f"the settings no longer name, so that a question to it cannot be embedded: "
                f"{how_to_keep(target.profile)} until the change of model is through, or set EMBEDDING_MODEL back"
            )
        found[alias] = (target, target.embedder)
    return found


def write_targets(platform: Platform, alias: str) -> WriteTargets:
    """The collections that receive the points of `alias`; those that are absent are made.

    Raises:
        CollectionMismatch: none of them was made for a model that is configured.
        CollectionNotOurs: another program's collection bears the name, and nothing is being built beside it.
    """
    journal = read_journal(platform)
    change = next((one for one in journal if one.alias == alias and one.state == "building"), None)
    try:
        found = _serving_target(platform, alias, platform.qdrant.aliases())
    except CollectionNotOurs:
        if change is None:
            raise
        # The collection is adopted: its replacement is being built, and the collection itself receives no writes.
        found = None
    if change is None:
        if found is None:
            found = _make_serving_collection(platform, alias)
        if found.embedder is None:
            raise CollectionMismatch(mismatch(platform, found))
        return WriteTargets(journal, found, None)
    embedder = _embedder_of(platform, change.model, change.dimension)
    profile = embedder.profile if embedder else profile_for(change.model, dimension=change.dimension)
    building = WriteTarget(Collection(alias, change.new), profile, embedder)
    if embedder is None and (found is None or found.embedder is None):
        raise CollectionMismatch(
            f"the collection {change.new} is being built for {_model(profile)}, which the settings do not name: "
            "nothing was written to it. Set EMBEDDING_MODEL to it, or run a full sync, which abandons that collection"
        )
    if embedder is not None:
        make_building_collection(platform, alias, change.new, profile)
    return WriteTargets(journal, found, building)


def make_building_collection(platform: Platform, alias: str, name: str, profile: ModelProfile) -> None:
    """Make the collection `name` for `profile`, and its indexes, unless it is there; `alias` does not point to it yet.

    If it vanished, the ledger forgets what it held, and a full sync finds by itself what it lacks.
    """
    postgres, qdrant = platform.postgres, platform.qdrant
    if qdrant.exists(name):
        _ensure_prepared(platform, qdrant.made_for(alias, name))
        return
    with postgres.session() as session:
        hold(session, lock_name(postgres, Lock.COLLECTION, name))
        if not qdrant.exists(name):
            session.execute(postgres.query("forget_embedded"), {"collections": [name]})
        qdrant.create_collection(name, dimension=profile.dimension, distance=profile.distance)
    _index_metadata(platform, qdrant.made_for(alias, name))


def _make_serving_collection(platform: Platform, alias: str) -> WriteTarget:
    """The collection of an alias that has none, for the model that the other collections were made for.

    If the collection vanished, the ledger forgets what it held, and full syncs are asked for. The alias is made last:
    if the process dies before, the next one finds no alias and repeats all of it.
    """
    postgres, qdrant = platform.postgres, platform.qdrant
    profile = serving_profile(platform)
    embedder = _embedder_of(platform, profile.name, profile.dimension)
    name = physical_name(alias, profile)
    target = WriteTarget(Collection(alias, name), profile, embedder)
    if embedder is None:
        return target
    types = types_of_alias(platform, alias)
    with postgres.session() as session:
        hold(session, lock_name(postgres, Lock.COLLECTION, name))
        if find_collection(qdrant, alias, profile) is not None:
            return target
        forgotten = session.execute(postgres.query("forget_collection"), {"collection": name, "entity_types": types})
        if forgotten.rowcount:
            session.execute(
                postgres.query("want_full_syncs"),
                {"entity_types": types, "reason": f"the collection {name} was absent: it is made again"},
            )
        ensure_collection(qdrant, alias, profile)
    _index_metadata(platform, qdrant.made_for(alias, name))
    return target


def recognise(platform: Platform, alias: str, aliases: Mapping[str, str]) -> WriteTarget | None:
    """The collection behind `alias`, or of that plain name; None if there is none. It is only read.

    `aliases`: where all aliases lead.

    Raises:
        CollectionNotOurs: another program's collection bears the name.
        CollectionMismatch: as `serving_collections`.
    """
    made = _made_for(platform, alias, aliases)
    if made is None:
        return None
    check_ours(platform, made, _dimensions(platform))
    return _target_of(platform, made)


def _serving_target(platform: Platform, alias: str, aliases: Mapping[str, str]) -> WriteTarget | None:
    """As `recognise`; the collection is prepared for this version, if it is not yet."""
    made = _made_for(platform, alias, aliases)
    if made is None:
        return None
    _ensure_prepared(platform, made)
    _index_metadata(platform, made)
    return _target_of(platform, made)


def _made_for(platform: Platform, alias: str, aliases: Mapping[str, str]) -> MadeFor | None:
    qdrant = platform.qdrant
    name = aliases.get(alias)
    if name is None:
        if not qdrant.exists(alias):
            return None
        # The name may be an alias that was made after `aliases` was read.
        name = qdrant.alias_target(alias) or alias
    return qdrant.made_for(alias, name)


def _target_of(platform: Platform, made: MadeFor) -> WriteTarget:
    """The collection with the model that it was made for."""
    qdrant, alias, name = platform.qdrant, made.alias, made.name
    embedder = next(
        (one for one in configured_embedders(platform) if physical_name(alias, one.profile) == name),
        None,
    )
    if embedder is None:
        model = qdrant.model_in(name)
        if model is not None:
            embedder = _embedder_of(platform, model, made.dimension)
        elif platform.embedder.profile.dimension == made.dimension:
            # The collection is empty, or a person made it to be taken as it is.
            embedder = platform.embedder
        if embedder is None:
            return WriteTarget(Collection(alias, name), _profile(model or _model_named(name), made.dimension), None)
    profile = embedder.profile
    if made.dimension != profile.dimension:
        return WriteTarget(Collection(alias, name), _profile(profile.name, made.dimension), None)
    if is_same_model(profile, platform.embedder.profile):
        check_distance(made, profile)
    return WriteTarget(Collection(alias, name), profile, embedder)


def _ensure_prepared(platform: Platform, made: MadeFor) -> None:
    """Make the indexes of a collection, and rename the payload keys of older versions; other processes wait meanwhile.

    The index that is made last shows that all of it is done, so that a prepared collection costs no request here.
    """
    if made.is_prepared:
        return
    check_ours(platform, made, _dimensions(platform))
    qdrant = platform.qdrant
    with exclusive(platform):
        indexes = qdrant.made_for(made.alias, made.name).indexes
        if indexes >= INDEXED_KEYS.keys():
            return
        rename_payload_keys(platform, made.name)
        qdrant.drop_indexes(made.name, sorted(indexes & FORMER_KEYS.keys()))
        qdrant.create_indexes(made.name)


def _index_metadata(platform: Platform, made: MadeFor) -> None:
    """Make the indexes of metadata that the settings name and the collection lacks, or has of another kind."""
    wanted = platform.settings.metadata_indexes(made.alias)
    lacking = {key: kind for key, kind in wanted.items() if made.index_kinds.get(key) != kind}
    if lacking:
        platform.qdrant.drop_indexes(made.name, sorted(lacking.keys() & made.indexes))
        platform.qdrant.create_indexes(made.name, lacking)


def _dimensions(platform: Platform) -> set[int]:
    return {one.profile.dimension for one in configured_embedders(platform)}


def configured_embedders(platform: Platform) -> list[Embedder]:
    """The model of the settings, and the previous one if they name it."""
    return [one for one in (platform.embedder, platform.previous_embedder) if one is not None]


def _embedder_of(platform: Platform, model: str, dimension: int) -> Embedder | None:
    return next(
        (
            one
            for one in configured_embedders(platform)
            if (one.profile.name, one.profile.dimension) == (model, dimension)
        ),
        None,
    )


def _profile(model: str, dimension: int) -> ModelProfile:
    """The profile of a model that is not configured."""
    try:
        return profile_for(model, dimension=dimension)
    except ValueError:
        # The model that is known here by that name cannot have this dimension, so that this is another model.
        return profile_for(f"{model}-{dimension}", dimension=dimension)


def _model_named(collection: str) -> str:
    """The model in the name of a physical collection without a point that names it."""
    return collection.partition("__")[2].rpartition("_")[0] or "another-model"


def is_same_model(one: ModelProfile, other: ModelProfile) -> bool:
    """Vectors of both are comparable."""
    return (one.name, one.dimension) == (other.name, other.dimension)


def _model(profile: ModelProfile) -> str:
    return f"{profile.name} with {profile.dimension} dimensions"


def how_to_keep(profile: ModelProfile) -> str:
    """The setting that keeps `profile` configured, as a sentence in the imperative."""
    if (profile.name, profile.dimension) == (WORDLLAMA.name, WORDLLAMA.dimension):
        return "leave EMBEDDING_PREVIOUS_MODEL unset"
    return f"set EMBEDDING_PREVIOUS_MODEL={profile.name} EMBEDDING_PREVIOUS_DIMENSION={profile.dimension}"


def mismatch(platform: Platform, target: WriteTarget) -> str:
    """A sentence: the collection in service was made for another model than the settings name, and how to go on."""
    wanted = platform.embedder.profile
    collection = target.collection
    if is_abandoned(platform, wanted):
        return (
            f"the collection {collection.name} (alias {collection.alias}) was made for {_model(target.profile)}, and "
            f"the change to {_model(wanted)}, which the settings name, was abandoned: set EMBEDDING_MODEL (and "
            "EMBEDDING_PROVIDER) back"
        )
    return (
        f"the collection {collection.name} (alias {collection.alias}) was made for {_model(target.profile)}, the "
        f"settings ask for {wanted.name} with {wanted.dimension}; nothing was written to it. A full sync builds a "
        f"collection for {wanted.name} beside it and moves to it; until then {how_to_keep(target.profile)} for events "
        "to reach it, or set EMBEDDING_MODEL (and EMBEDDING_PROVIDER) back"
    )
