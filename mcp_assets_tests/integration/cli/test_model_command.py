"""`mcp-assets model`: both models side by side, and the decision about them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.sync.collections.gates import Measurement, record_measurement
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.observing import drain_all, put_tasks, send_looks, sync_all

_SIDE = {"questions": 80, "hit_1": 0.5, "mrr": 0.6, "kinds": {}}

HELD = Measurement(
    "measured",
    figures={"old": {"model": "stub", "hit_5": 0.9, **_SIDE}, "new": {"model": "other", "hit_5": 0.7, **_SIDE}},
    samples=[
        {
            "kind": "title",
            "question": "who \x1b[31m renews",
            "expected": ["task:a A"],
            "old_rank": 1,
            "new_rank": None,
            "old": ["task:a A"],
            "new": ["task:b B"],
        }
    ],
)


@pytest.fixture
def held(platform: Platform, make_platform: Callable[..., Platform]) -> Platform:
    """A platform whose new model is built in part, and was measured as worse."""
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(40)})
    sync_all(platform)
    own = make_platform(embedding_model="other", previous_model="stub", previous_dimension=16)
    list(full_sync(own, "task", [0]))
    with own.postgres.transaction() as connection:
        record_measurement(own, connection, read_journal(own)[0], HELD, "")
    return own


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    """A folder whose settings lead to the test's stores, and name another model than the one that serves."""
    given = settings.model_copy(update={"embedding_model": "other", "previous_model": "stub", "previous_dimension": 16})
    changed = {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name in Settings.model_fields
        if (value := getattr(given, name)) != Settings.model_fields[name].get_default() and name != "state_dir"
    }
    return Place(tmp_path, bare_environment() | changed)


def test_a_change_that_waits_is_shown_side_by_side_and_in_status_and_doctor_and_can_be_approved(
    place: Place, held: Platform
) -> None:
    shown = place.run("model")
    assert shown.code == 0, shown.stderr
    assert "all\t80\thit_5\t0.900\t0.700" in shown.stdout
    assert "who \\x1b[31m renews\ttask:a A\t1: task:a A\tnone: task:b B" in shown.stdout
    assert "held, because other answers worse" in shown.stdout
    assert place.answer("model", "show")["gate"]["held_because"].startswith("other answers worse")
    assert "held, because other answers worse" in place.run("status").stdout
    doctor = place.run("doctor")
    assert doctor.code == 1
    assert "waits for your decision" in doctor.stdout
    assert "mcp_assets_model_change_held 1.0" in place.run("metrics", "--once").stdout

    approved = place.answer("model", "approve", "--by", "anna")
    assert approved["model"] == "other"
    assert not approved["moved"]
    assert "lacks" in approved["waits_because"]
    assert "approved by anna" in place.run("model").stdout
    assert "mcp_assets_model_change_held 0.0" in place.run("metrics", "--once").stdout


def test_a_change_can_be_abandoned_once(place: Place, held: Platform) -> None:
    assert place.run("model", "abandon").code == 130, "it asks, and nobody answers"
    done = place.run("model", "abandon", "--yes")
    assert done.code == 0, done.stderr
    assert "kanban_tasks__other_16" in done.stdout
    again = place.run("model", "abandon", "--yes")
    assert again.code == 1
    assert "no change of model is under way: there is nothing to decide" in again.stderr
    assert "abandoned by" in place.run("model").stdout


def test_without_a_change_there_is_nothing_to_show(place: Place, platform: Platform) -> None:
    assert place.run("model").stdout == "no change of model is under way\n"
    assert place.answer("model", "show") == {"state": [], "gate": None}


def test_an_approval_moves_the_aliases_at_once_if_the_new_collections_are_complete(
    place: Place, held: Platform
) -> None:
    for shard in (1, 2):
        list(full_sync(held, "task", [shard]))
    send_looks(held, *(f"t{number}" for number in range(40)))
    drain_all(held)
    done = place.run("model", "approve", "--by", "anna")
    assert done.code == 0, done.stderr
    assert "the aliases lead to the collections of other" in done.stdout
    assert held.qdrant.alias_target("kanban_tasks") == "kanban_tasks__other_16"
    assert "approved by anna; its collections serve" in place.run("model").stdout
