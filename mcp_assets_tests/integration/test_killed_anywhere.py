"""Killed around any statement, commit or write to Qdrant, work leaves what the next needs to end as if unkilled."""

from collections.abc import Callable
from typing import Any

import pytest
from qdrant_client import models

from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.census import take_census
from mcp_assets.sync.consistency.repair import repair_drift
from mcp_assets.sync.consistency.stored_censuses import last_censuses
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.inbox.drain import drain
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import pending_links
from mcp_assets.sync.views.pending import pending
from mcp_assets.tuning import InboxTuning, IndexTuning, Tuning
from mcp_assets_tests.hashing import TASKS, points, qdrant, task_point
from mcp_assets_tests.killing import chosen, killed_at, moments
from mcp_assets_tests.observing import inbox, rows, take_in
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.two_states import NOTHING, SETTINGS, STATES, State, ToAndFro, send_events, write_rows
from mcp_assets_tests.waiting import until

# Search words of some batches are cut at once, and of others by the linker.
pytestmark = pytest.mark.tuning(
    Tuning(inbox=InboxTuning(intake_wait_s=0.1), index=IndexTuning(words_cut_at_once=1_000))
)

Make = Callable[..., Platform]


def link(platform: Platform) -> None:
    for _ in link_until_done(platform):
        pass


def drain_every_type(platform: Platform) -> None:
    for entity_type in platform.settings.entity_types:
        for _ in drain(platform, entity_type, "mortal"):
            pass


def sync_every_type(platform: Platform) -> None:
    for entity_type in platform.settings.entity_types:
        for _ in full_sync(platform, entity_type, range(platform.settings.shards), allow_mass_delete=True):
            pass


def write(platform: Platform, old: State, new: State) -> None:
    write_rows(platform, old, new)


def write_and_tell(platform: Platform, old: State, new: State) -> None:
    send_events(platform, write_rows(platform, old, new), old, new)


def write_and_drain(platform: Platform, old: State, new: State) -> None:
    write_and_tell(platform, old, new)
    drain_to_the_end(platform)


def drain_to_the_end(platform: Platform) -> None:
    """Drains, as they are asked for: one that finds the lock of a dead one still held is asked for again."""
    take_in(platform)

    def drained() -> bool:
        drain_every_type(platform)
        return not inbox(platform)

    until(drained, "the inbox is empty")


def link_to_the_end(platform: Platform) -> None:
    def linked() -> bool:
        link(platform)
        return not pending_links(platform, up_to=1)

    until(linked, "no entity is marked")


def drain_and_link(platform: Platform) -> None:
    drain_to_the_end(platform)
    link_to_the_end(platform)


def sync_and_link(platform: Platform) -> None:
    sync_every_type(platform)
    link_to_the_end(platform)


def assert_killed_anywhere_it_ends_alike(world: ToAndFro, work: Callable[[Platform], None], *, at_least: int) -> None:
    """`at_least`: moments that the work has; fewer say that it does not do what it is here for."""
    world.change()
    count = moments(world.platform, work)
    assert count >= at_least
    world.assert_right_after_finishing("that was none", in_flight=0)
    for moment in chosen(count):
        world.change()
        killed_at(world.platform, work, moment)
        world.assert_right_after_finishing(f"at moment {moment} of {count}")


@pytest.mark.parametrize(
    ("work", "turn", "finish", "at_least"),
    [
        (link, write_and_drain, link_to_the_end, 40),
        (drain_every_type, write_and_tell, drain_and_link, 300),
        (sync_every_type, write, sync_and_link, 150),
    ],
    ids=["linker", "drain", "full sync"],
)
def test_work_killed_anywhere_ends_as_if_it_had_not_been_killed(
    make_platform: Make, stub: OpenAIStub, work: Any, turn: Any, finish: Any, at_least: int
) -> None:
    platform = make_platform(**SETTINGS)
    world = ToAndFro((platform, platform), stub, turn, finish)

    assert_killed_anywhere_it_ends_alike(world, work, at_least=at_least)


# Repair.


def repair_what_was_found(platform: Platform) -> None:
    repair_drift(platform, last_censuses(platform))


def repair_to_the_end(platform: Platform) -> None:
    """Until a census finds nothing that began when nothing waited: it leaves out what waiting work may mend."""

    def repaired() -> bool:
        waits = not pending(platform).idle
        report = validate(platform, entity_types=list(platform.settings.entity_types), repair=True, deep=True)
        return not waits and not report.found.keys() - {"dangling_reference"}

    until(repaired, "nothing is left to repair")


def fill_or_damage(platform: Platform, old: State, new: State) -> None:
    """Fill the workspace; later, damage what the stores hold of it, and find it."""
    if old == NOTHING:
        write(platform, old, new)
        sync_and_link(platform)
        return
    damage_points(platform)
    damage_rows(platform)
    for entity_type in platform.settings.entity_types:
        take_census(platform, entity_type, 0, deep=True)


def damage_points(platform: Platform) -> None:
    with qdrant(platform) as client:
        one, other = points(client, 6, 7)
        one.vector, other.vector = other.vector, one.vector
        orphan = points(client, 8)[0]
        orphan.id = str(point_id(EntityRef("task", "never")))
        orphan.payload = {**(orphan.payload or {}), Key.ENTITY_ID: "never", Key.SLOT: EntityRef("task", "never").slot}
        client.upsert(TASKS, [one, other, orphan], wait=True)
        client.delete(TASKS, models.PointIdsList(points=[task_point(n) for n in range(10, 16)]), wait=True)
        client.set_payload(TASKS, {Key.TEXT_HASH: "0" * 32}, points=[task_point(16)], wait=True)
        client.set_payload(TASKS, {"status": "invented"}, points=[task_point(17)], wait=True)
        client.set_payload(TASKS, {Key.MODEL: "other"}, points=[task_point(18)], wait=True)


def damage_rows(platform: Platform) -> None:
    for statement in (
        "UPDATE mcp_assets.embedded SET text_hash = 'lie' WHERE entity_id = 't19'",
        "DELETE FROM mcp_assets.embedded WHERE entity_id = 't20'",
        "UPDATE mcp_assets.entities SET text_hash = 'lie', state_hash = 'lie' WHERE entity_id = 't21'",
        "UPDATE mcp_assets.entities SET content = 'lie' WHERE entity_id = 't22'",
        "DELETE FROM mcp_assets.entities WHERE entity_id = 't23'",
        "UPDATE relationships SET strength = 0.1 WHERE source_id = 't11'",
        "DELETE FROM relationships WHERE source_id IN ('t12', 'long')",
        "INSERT INTO relationships"
        " (source_type, source_id, target_type, target_id, relationship_type, strength, origin) VALUES"
        " ('task', 't13', 'page', 'nowhere', 'cross_reference', 1, 'mcp_assets'),"
        " ('task', 't14', 'task', 't20', 'cross_reference', 1, 'mcp_assets')",
    ):
        assert rows(platform, f"{statement} RETURNING 1"), statement


def test_a_repair_killed_anywhere_ends_as_if_it_had_not_been_killed(make_platform: Make, stub: OpenAIStub) -> None:
    platform = make_platform(**{**SETTINGS, "shards": 1})
    world = ToAndFro((platform, platform), stub, fill_or_damage, repair_to_the_end, (STATES[0], STATES[0]))

    assert_killed_anywhere_it_ends_alike(world, repair_what_was_found, at_least=150)


# A change of model.


def test_a_change_of_model_killed_anywhere_ends_as_if_it_had_not_been_killed(
    make_platform: Make, stub: OpenAIStub
) -> None:
    """Each change of state is one of the model too, so that the aliases move to and fro between its collections."""
    settings = {**SETTINGS, "shards": 1}
    dimension = make_platform(**settings).settings.embedding_dimension
    to_stub, to_other = (
        make_platform(**settings, embedding_model=model, previous_model=previous, previous_dimension=dimension)
        for model, previous in (("stub", "other"), ("other", "stub"))
    )
    world = ToAndFro((to_stub, to_other), stub, write, sync_and_link)

    assert_killed_anywhere_it_ends_alike(world, sync_every_type, at_least=150)
