"""Model change: a full sync begins it, goes on with it, gives it up, and ends it by the move of the aliases.

Before the aliases move, a gate compares both models (see `gates`); a person may approve or abandon the change.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, hold, lock_name
from mcp_assets.sync.collections.adoption import adopted, holds_others, is_named_by_us
from mcp_assets.sync.collections.gates import (
    HOW_TO_DECIDE,
    describe_gate,
    end_gates_of_others,
    is_abandoned,
    record_decision,
    why_held,
)
from mcp_assets.sync.collections.journal import (
    Change,
    Journal,
    exclusive,
    is_same_choice,
    stored_journal,
    types_of_alias,
)
from mcp_assets.sync.collections.model_collections import physical_name
from mcp_assets.sync.collections.move import move_aliases, read_journal, why_not_movable
from mcp_assets.sync.collections.serving import (
    WriteTarget,
    configured_embedders,
    how_to_keep,
    is_same_model,
    make_building_collection,
    serving_and_foreign,
)
from mcp_assets.sync.collections.verify import count_lacking, mark_lacking_of_alias, why_incomplete, why_points_differ

logger = logging.getLogger(__name__)

notices = logging.getLogger("mcp_assets.notices")
"""Lines for a person who watches a run: dagster.yaml has them shown in the UI."""


class NoModelChange(Exception):
    """There is no change of model to decide about, or it is too late to. The message says what is the case."""


def prepare_model_change(platform: Platform) -> None:
    """The first step of a full sync: begin a change of model, go on with it, or give it up, as the settings imply.

    A change that a person has abandoned is not begun again.
    """
    profile = platform.embedder.profile
    end_gates_of_others(platform, profile)
    while True:
        journal = read_journal(platform)
        building = [change.alias for change in journal if change.state == "building" and change.is_for(profile)]
        if any(change.state == "building" and not change.is_for(profile) for change in journal):
            _give_up(platform, lambda change: not change.is_for(profile), "the settings name another model")
            continue
        abandoned = is_abandoned(platform, profile)
        if abandoned and building:
            # The process that abandoned it was killed.
            _give_up(platform, lambda change: change.is_for(profile), "a person has abandoned it")
            continue
        found, foreign = serving_and_foreign(platform)
        other = {alias for alias, target in found.items() if not is_same_model(target.profile, profile)}
        replaced = foreign.keys() & adopted(platform).keys()
        if not building and not other and not replaced:
            return
        if abandoned:
            notices.warning(
                "no collection is built for %s, because a person has abandoned the change to it: set EMBEDDING_MODEL "
                "back to the model that serves",
                profile.name,
            )
            return
        absent = set(platform.settings.entity_types.collections()) - found.keys() - foreign.keys()
        wanted = other | replaced | (absent if building or other else set())
        begun = {alias: found.get(alias) for alias in sorted(wanted - set(building))}
        if begun and not _begin(platform, journal, begun, profile):
            continue
        for alias in (*building, *begun):
            # Before the first writer. A process that was killed may have made the collection without its indexes.
            make_building_collection(platform, alias, physical_name(alias, profile), profile)
        return


def built_for_settings(platform: Platform) -> dict[str, str]:
    """The physical collections that are being built, by alias, for the model that the settings name."""
    profile = platform.embedder.profile
    journal = read_journal(platform)
    return {one.alias: one.new for one in journal if one.state == "building" and one.is_for(profile)}


def finish_model_change(platform: Platform, since: datetime, measure: Callable[[Sequence[Change]], None]) -> str | None:
    """Move the aliases if the new collections are complete and pass the gate; drop old ones that were kept long enough.

    `since`: an entity that changed after it and is not indexed yet does not count as lacking; it soon will be indexed.
    `measure`: compares both models for the gate, unless it is done; it is called once the new collections are complete.

    Returns why the aliases were not moved; None if they were, or if nothing is being built.
    """
    with platform.postgres.session() as session:
        # One process at a time, and the others wait: of several runs that end together, the last finds all complete.
        hold(session, lock_name(platform.postgres, Lock.FINISH_COLLECTIONS))
        journal = read_journal(platform)
        if any(change.state == "moved" and change.kept_long_enough for change in journal):
            _drop_old(platform)
        building = [change for change in journal if change.state == "building"]
        if not building:
            return None
        for reason in (
            *(why_incomplete(platform, session, change, since) for change in building),
            *(why_points_differ(platform, change) for change in building),
        ):
            if reason is not None:
                logger.info("the aliases are not moved yet: %s", reason)
                return reason
        reason = why_not_movable(platform, building)
        if reason is not None:
            logger.error("the aliases are not moved: %s", reason)
            return reason
        measure(building)
        reason = why_held(platform, session, building)
        if reason is not None:
            notices.warning("the aliases are not moved: %s. %s", reason, HOW_TO_DECIDE)
            return reason
        with exclusive(platform) as alone:
            if not is_same_choice(stored_journal(platform, alone), journal):
                return "another process changed the collections meanwhile"
            for reason in (
                # Both once more, now that no process writes: a person may have abandoned it, an entity have changed.
                why_held(platform, alone, building),
                *(why_incomplete(platform, alone, change, since) for change in building),
            ):
                if reason is not None:
                    return reason
            alone.execute(platform.postgres.query("set_collection_changes"), {"state": "moving"})
            move_aliases(platform, alone)
    return None


def describe_model_change(platform: Platform) -> list[str]:
    """How far a change of model is, in sentences for a person; read from the journal and the ledger alone."""
    with platform.postgres.transaction() as connection:
        journal = stored_journal(platform, connection)
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
            counts = count_lacking(platform, connection, change, datetime.max)
            lines.append(f"{name} is being built: {counts.lacking} of {counts.living} entities to go")
            if change.old is not None:
                held = connection.execute(platform.postgres.query("model_of_embedded"), {"collection": change.old})
                model = held.fetchone()
                if model is not None and not _is_configured(platform, change, model[0]):
                    lines.append(
                        f"collection {change.alias}: {change.old}, which serves, is frozen: its model, {model[0]}, is "
                        "not configured (EMBEDDING_PREVIOUS_MODEL)"
                    )
        lines += describe_gate(platform, connection)
    return lines


def approve_model_change(platform: Platform, by: str) -> str:
    """Let the new model pass the gate, whatever was or will be measured. Returns its name.

    The aliases move at the next call of `finish_model_change` that finds the new collections complete.

    Raises:
        NoModelChange: nothing is being built, or it is built for another model than the settings name.
    """
    profile = platform.embedder.profile
    with exclusive(platform) as alone, alone.transaction():
        change = _being_built(platform, alone)[0]
        if not change.is_for(profile):
            raise NoModelChange(
                f"collections are being built for {change.model}, and the settings of this process name "
                f"{profile.name}: call it with the settings of the platform's other processes"
            )
        record_decision(platform, alone, change, "approved", by)
    logger.warning("the change to %s is approved by %s", change.model, by)
    return change.model


def abandon_model_change(platform: Platform, by: str) -> list[str]:
    """Delete the collections that are being built; those that serve go on to serve. Returns the names of the deleted.

    No full sync begins the change again until the settings have named another model.

    Raises:
        NoModelChange: nothing is being built, or the model that serves is not configured, so that events would reach
            no collection.
    """
    frozen = [
        target for target in serving_and_foreign(platform)[0].values() if target.embedder is None
    ]  # fmt: skip
    if frozen:
        raise NoModelChange(
            f"{frozen[0].collection.name} serves, and its model {frozen[0].profile.name} is not configured, so that "
            "events would reach no collection: set EMBEDDING_MODEL back to it, and run a full sync, which gives the "
            "new model up"
        )
    with exclusive(platform) as alone:
        building = _being_built(platform, alone)
        # First: a full sync finishes what a kill leaves undone.
        with alone.transaction():
            record_decision(platform, alone, building[0], "abandoned", by)
        _drop_building(platform, alone, building, f"{by} has abandoned it")
    return [change.new for change in building]


def collections_being_built(platform: Platform) -> list[str]:
    """The collections that a person may decide about.

    Raises:
        NoModelChange: there are none.
    """
    with platform.postgres.transaction() as connection:
        return [change.new for change in _being_built(platform, connection)]


def _being_built(platform: Platform, connection: Connection) -> list[Change]:
    journal = stored_journal(platform, connection)
    building = [change for change in journal if change.state == "building"]
    if not building:
        if any(change.state == "moving" for change in journal):
            raise NoModelChange("the aliases are being moved to the new collections: it is too late to decide")
        raise NoModelChange("no change of model is under way: there is nothing to decide")
    return building


def _begin(platform: Platform, journal: Journal, old: Mapping[str, WriteTarget | None], profile: ModelProfile) -> bool:
    """Journal that collections for `profile` are built beside `old`; False if another process changed the journal."""
    new = {alias: physical_name(alias, profile) for alias in old}
    query = platform.postgres.query
    present = set(platform.qdrant.collections())
    with exclusive(platform) as alone:
        if not is_same_choice(stored_journal(platform, alone), journal):
            return False
        for change in journal:
            if change.alias in new and change.state == "moved" and change.old not in (None, new[change.alias]):
                _drop(platform, alone, change)
        with alone.transaction():
            absent = [name for name in new.values() if name not in present]
            alone.execute(query("forget_embedded"), {"collections": absent})
            for alias, name in new.items():
                alone.execute(
                    query("raise_chunk_bounds"), {"collection": name, "entity_types": types_of_alias(platform, alias)}
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
            frozen = (
                "" if target.embedder else f"; it is frozen meanwhile: {how_to_keep(target.profile)} to keep it current"
            )
            logger.warning("%s is built beside %s, which serves%s", new[alias], target.collection.name, frozen)
    return True


def _give_up(platform: Platform, which: Callable[[Change], bool], why: str) -> None:
    """Drop the collections that are being built by the changes `which`, and their rows in the journal."""
    with exclusive(platform) as alone:
        building = [
            change for change in stored_journal(platform, alone) if change.state == "building" and which(change)
        ]
        _drop_building(platform, alone, building, why)


def _drop_building(platform: Platform, alone: Connection, building: Sequence[Change], why: str) -> None:
    """The same of `building`; `alone` comes from `exclusive`. Safe to repeat."""
    for change in building:
        logger.warning("%s is given up: %s", change.new, why)
        platform.qdrant.drop_collection(change.new)
    with alone.transaction():
        alone.execute(platform.postgres.query("forget_embedded"), {"collections": [change.new for change in building]})
        for change in building:
            if change.old is not None:
                # While its model was not configured, it received no writes.
                mark_lacking_of_alias(platform, alone, change.alias, change.old)
        alone.execute(
            platform.postgres.query("end_collection_changes"), {"aliases": [change.alias for change in building]}
        )


def _drop_old(platform: Platform) -> None:
    with exclusive(platform) as alone:
        for change in stored_journal(platform, alone):
            if change.state == "moved" and change.kept_long_enough:
                _drop(platform, alone, change)


def _drop(platform: Platform, alone: Connection, change: Change) -> None:
    """Delete the collection that served before `change`, then its journal row; `alone` comes from `exclusive`."""
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


def _is_configured(platform: Platform, change: Change, model: str) -> bool:
    """The old collection of `change`, filled by `model`, can be written to."""
    profiles = [one.profile for one in configured_embedders(platform)]
    if change.old == change.alias:
        return any(profile.name == model for profile in profiles)
    return any(physical_name(change.alias, profile) == change.old for profile in profiles)
