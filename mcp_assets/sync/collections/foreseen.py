"""Foreseen targets: the collections that a full sync would write to now. Nothing is made, changed or journalled.

The same decisions as those of `model_change.prepare_model_change` and `serving.write_targets`, which act on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionNotOurs
from mcp_assets.sync.collections.adoption import adopted
from mcp_assets.sync.collections.gates import is_abandoned
from mcp_assets.sync.collections.journal import Journal, stored_journal
from mcp_assets.sync.collections.model_collections import physical_name
from mcp_assets.sync.collections.serving import WriteTarget, is_same_model, recognise


@dataclass(frozen=True, slots=True)
class ForeseenTarget:
    """One collection that a full sync would write to."""

    name: str
    profile: ModelProfile
    is_new: bool = False
    """The full sync would make it: what the ledger records of a collection of this name does not count."""


@dataclass(frozen=True, slots=True)
class ForeseenTargets:
    """The collections that would receive the points of one alias, in the order in which they are written."""

    targets: tuple[ForeseenTarget, ...]
    building: bool
    """The last one is built for another model than the one in service."""
    lacking_in: ForeseenTarget | None
    """Entities that this collection lacks are processed, although nothing else differs; None: no collection is."""
    serving: WriteTarget | None = None
    """The collection in service now."""


def foresee_targets(platform: Platform, profile: ModelProfile) -> dict[str, ForeseenTargets]:
    """By alias, where a full sync with the model of `profile` would write.

    Raises:
        CollectionNotOurs: another program's collection bears the name of an alias, and nobody handed it over.
        CollectionMismatch: a collection measures another distance than its model needs.
        StoreUnavailable.
    """
    with platform.postgres.transaction() as connection:
        journal = stored_journal(platform, connection)
    physical = set(platform.qdrant.collections())
    served, foreign = _recognised(platform, journal)
    names = platform.settings.entity_types.collections()
    handed_over = adopted(platform)
    building = {change.alias for change in journal if change.state == "building" and change.is_for(profile)}
    abandoned = {change.alias for change in journal if change.state == "building"} - building
    other = {alias for alias, target in served.items() if not is_same_model(target.profile, profile)}
    other |= foreign.keys() & handed_over.keys()
    if is_abandoned(platform, profile):
        abandoned, building, other = abandoned | building, set(), set()
    changes_model = bool(building or other)
    found = {}
    for alias in names:
        serving = served.get(alias)
        own = ForeseenTarget(physical_name(alias, profile), profile)
        if alias in building | other or (serving is None and alias not in foreign and changes_model):
            built = ForeseenTarget(own.name, profile, is_new=own.name not in physical)
            # The one in service receives writes, too, if its model is still configured.
            is_written = serving is not None and serving.embedder is not None
            current = [ForeseenTarget(serving.collection.name, serving.profile)] if serving and is_written else []
            found[alias] = ForeseenTargets((*current, built), building=True, lacking_in=built, serving=serving)
        elif serving is not None:
            target = ForeseenTarget(serving.collection.name, serving.profile)
            lacking_in = target if alias in abandoned else None
            found[alias] = ForeseenTargets((target,), building=False, lacking_in=lacking_in, serving=serving)
        elif alias in foreign:
            raise foreign[alias]
        else:
            made = ForeseenTarget(own.name, profile, is_new=True)
            found[alias] = ForeseenTargets((made,), building=False, lacking_in=made)
    return found


def _recognised(platform: Platform, journal: Journal) -> tuple[dict[str, WriteTarget], Mapping[str, CollectionNotOurs]]:
    """As `serving.serving_and_foreign`, of collections that are only read."""
    aliases = platform.qdrant.aliases()
    # The first process that reads the journal finishes a move that was interrupted.
    aliases |= {change.alias: change.new for change in journal if change.state == "moving"}
    served: dict[str, WriteTarget] = {}
    foreign: dict[str, CollectionNotOurs] = {}
    for alias in platform.settings.entity_types.collections():
        try:
            target = recognise(platform, alias, aliases)
        except CollectionNotOurs as error:
            foreign[alias] = error
            continue
        if target is not None:
            served[alias] = target
    return served, foreign
