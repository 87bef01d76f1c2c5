"""The gate of a change of model: the aliases move by themselves only to a model that answers no worse."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from mcp_assets.embedding.protocol import Embedder, Vector
from mcp_assets.platform import Platform
from mcp_assets.settings import variable_of
from mcp_assets.sync.collections.gates import Gate, last_gate, record_decision
from mcp_assets.sync.collections.journal import exclusive
from mcp_assets.sync.collections.model_change import (
    NoModelChange,
    abandon_model_change,
    approve_model_change,
    describe_model_change,
)
from mcp_assets.sync.collections.move import read_journal
from mcp_assets.sync.consistency.checks import evaluate
from mcp_assets.sync.consistency.drift import Severity
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.index.model_gate import finish_gated_model_change
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.search.search import search
from mcp_assets_tests.clients import key_in
from mcp_assets_tests.observing import (
    assert_points_are,
    drain_all,
    ledger,
    put,
    put_tasks,
    rows,
    send_looks,
    sync_all,
)
from mcp_assets_tests.openai_stub import OpenAIStub

OLD, NEW = "kanban_tasks__stub_16", "kanban_tasks__other_16"

TASKS = {f"t{n:02}": f"Task {n} about gate {n % 7}" for n in range(60)}
"""Each title is a question, and so many are enough."""

PREVIOUS = {"previous_model": "stub", "previous_dimension": 16}

Make = Callable[..., Platform]


class Forgetful:
    """A model whose vectors of questions have nothing to do with what is asked."""

    def __init__(self, model: Embedder) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_query(self, text: str) -> Vector:
        return self._model.embed_query("nothing in common")

    def close(self) -> None:
        """The platform that made the model closes it."""


def sync_everything(platform: Platform) -> None:
    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)


def begin_building(platform: Platform) -> None:
    """A full sync of one of four partitions: the new collections are there, and far from complete."""
    list(full_sync(platform, "task", [0]))


def gate_of(platform: Platform) -> Gate:
    with platform.postgres.transaction() as connection:
        gate = last_gate(platform, connection)
    assert gate is not None
    return gate


def serving(platform: Platform) -> str | None:
    return platform.qdrant.alias_target("kanban_tasks")


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A platform of the model `stub`: tasks, of which ten depend on another one."""
    put_tasks(platform, TASKS)
    for n in range(10):
        put(platform, "tasks", id=f"t{n:02}", title=TASKS[f"t{n:02}"], depends_on=[f"t{n + 7:02}"])
    sync_everything(platform)
    list(link_until_done(platform))
    return platform


@pytest.fixture
def other(filled: Platform, make_platform: Make, stub: OpenAIStub) -> Platform:
    """The same stores with another model in the settings, as good as the one before, which is configured still."""
    stub.reset_stats()
    return make_platform(embedding_model="other", **PREVIOUS)


@pytest.fixture
def worse(filled: Platform, make_platform: Make, stub: OpenAIStub) -> Platform:
    """The same, with a model that is worse."""
    stub.reset_stats()
    model = make_platform(embedding_model="other").embedder
    return make_platform(embedder=cast(Embedder, Forgetful(model)), embedding_model="other", **PREVIOUS)


def test_a_model_that_is_as_good_serves_by_itself_and_what_was_measured_is_kept(
    other: Platform, stub: OpenAIStub
) -> None:
    sync_everything(other)

    assert serving(other) == NEW
    gate = gate_of(other)
    assert (gate.outcome, gate.ended_as, gate.decision) == ("measured", "moved", None)
    assert gate.figures["old"]["kinds"]["title"]["questions"] == 60
    assert gate.figures["old"]["kinds"]["link"]["questions"] > 0
    assert gate.old == gate.new
    assert gate.new.hit_5 > 0.9
    assert len(gate.samples) == 10
    assert stub.stats()["texts"] == 3 * 60, "each text, and each title as a question to both models"
    assert rows(other, "SELECT sum(texts) FROM {schema}.embedding_costs WHERE model = 'other/16'") == [(120,)]
    outcome = evaluate(other, "model_change_is_decided")
    assert outcome.passed
    assert outcome.figures["new/hit_5"] == gate.new.hit_5
    assert "was to other" in outcome.summary


def test_a_worse_model_waits_for_a_decision_and_is_measured_once(worse: Platform, stub: OpenAIStub) -> None:
    sync_everything(worse)

    assert serving(worse) == OLD
    gate = gate_of(worse)
    assert gate.old.hit_5 - gate.new.hit_5 > 0.3
    (held,) = [line for line in describe_model_change(worse) if "held" in line]
    assert "other answers worse" in held
    assert "mcp-assets model approve" in held
    outcome = evaluate(worse, "model_change_is_decided")
    assert (outcome.passed, outcome.severity) == (False, Severity.WARNING)
    assert len(outcome.rows) == 10
    assert outcome.rows[0].keys() == {"question", "expected", "old rank", "new rank", "old", "new"}
    assert search(worse, TASKS["t07"], by="meaning").results[0].ref.id == "t07", "the old model answers"

    stub.reset_stats()
    sync_everything(worse)
    assert stub.stats()["texts"] == 0
    assert serving(worse) == OLD


def test_while_it_waits_events_reach_both_and_an_approval_moves_the_aliases_without_embedding(
    worse: Platform, stub: OpenAIStub
) -> None:
    sync_everything(worse)
    put_tasks(worse, {"t01": "Changed meanwhile"})
    send_looks(worse, "t01")
    stub.reset_stats()
    drain_all(worse)
    assert stub.stats()["texts"] == 2
    stub.reset_stats()

    assert approve_model_change(worse, "anna") == "other"
    assert any("approved by anna" in line for line in describe_model_change(worse))
    assert finish_gated_model_change(worse, datetime.now(UTC)) is None

    assert serving(worse) == NEW
    assert stub.stats()["texts"] == 0
    assert_points_are(worse, TASKS | {"t01": "Changed meanwhile"})
    gate = gate_of(worse)
    assert (gate.decision, gate.decided_by, gate.ended_as) == ("approved", "anna", "moved")
    assert evaluate(worse, "model_change_is_decided").passed
    with pytest.raises(NoModelChange, match="nothing to decide"):
        approve_model_change(worse, "anna")


def test_an_approval_before_anything_is_measured_costs_no_question(worse: Platform, stub: OpenAIStub) -> None:
    begin_building(worse)
    approve_model_change(worse, "anna")
    sync_everything(worse)
    assert serving(worse) == NEW
    assert stub.stats()["texts"] == 60


def test_an_abandoned_model_is_not_built_again_until_the_settings_have_named_another(
    worse: Platform, filled: Platform, other: Platform, stub: OpenAIStub
) -> None:
    sync_everything(worse)
    assert NEW in abandon_model_change(worse, "anna")
    assert NEW not in worse.qdrant.collections()
    put_tasks(worse, {"t01": "Changed meanwhile"})
    send_looks(worse, "t01")
    stub.reset_stats()
    drain_all(worse)
    sync_everything(worse)

    assert stub.stats()["texts"] == 1
    assert serving(worse) == OLD
    assert NEW not in worse.qdrant.collections()
    assert_points_are(worse, TASKS | {"t01": "Changed meanwhile"})
    assert not any(row["dirty"] for row in ledger(worse).values())
    assert any("abandoned by anna: set EMBEDDING_MODEL back" in line for line in describe_model_change(worse))
    assert "was abandoned: set EMBEDDING_MODEL" in str(evaluate(worse, "collections_match_model").rows)

    sync_everything(filled)
    assert describe_model_change(filled) == []
    sync_everything(other)
    assert serving(other) == NEW


def test_a_process_that_died_while_it_abandoned_leaves_the_rest_to_the_next_full_sync(worse: Platform) -> None:
    sync_everything(worse)
    with exclusive(worse) as alone, alone.transaction():
        record_decision(worse, alone, read_journal(worse)[0], "abandoned", "anna")

    finished = finish_gated_model_change(worse, datetime.now(UTC))
    assert finished == "the change to other was abandoned by anna"
    sync_everything(worse)

    assert serving(worse) == OLD
    assert NEW not in worse.qdrant.collections()


def test_without_the_old_model_nothing_can_be_compared_and_nothing_can_be_abandoned(
    filled: Platform, make_platform: Make
) -> None:
    own = make_platform(embedding_model="other")
    begin_building(own)
    with pytest.raises(NoModelChange, match="set EMBEDDING_MODEL back"):
        abandon_model_change(own, "anna")
    sync_everything(own)
    assert serving(own) == NEW
    assert "stub, is not configured" in gate_of(own).reason


def test_fewer_than_fifty_questions_pass_and_say_so(platform: Platform, make_platform: Make) -> None:
    put_tasks(platform, {name: TASKS[name] for name in list(TASKS)[:49]})
    sync_everything(platform)
    own = make_platform(embedding_model="other", **PREVIOUS)
    sync_everything(own)
    assert serving(own) == NEW
    gate = gate_of(own)
    assert (gate.outcome, gate.reason) == (
        "not_measured",
        "there are 49 questions, and fewer than 50 say nothing",
    )


def test_a_golden_file_decides_and_is_asked_anew_when_it_has_changed(
    filled: Platform, make_platform: Make, tmp_path: Path
) -> None:
    golden = tmp_path / "golden.jsonl"
    lines = [json.dumps({"query": title, "expected": f"task:{name}"}) for name, title in TASKS.items()]
    golden.write_text("\n".join([*lines, "not JSON"]))
    own = make_platform(embedding_model="other", golden_file=golden, **PREVIOUS)
    sync_everything(own)
    assert serving(own) == OLD
    assert f"{golden}, line 61" in gate_of(own).reason
    assert any("could not be compared" in line for line in describe_model_change(own))

    golden.write_text("\n".join(lines))
    sync_all(own)
    assert serving(own) == NEW
    assert gate_of(own).figures["new"]["kinds"].keys() == {"golden"}


def test_a_provider_that_does_not_answer_holds_the_aliases_until_it_does(other: Platform, stub: OpenAIStub) -> None:
    # The texts of the tasks are embedded first, and then the same texts as questions, one by one.
    begin_building(other)
    for shard in (1, 2):
        list(full_sync(other, "task", [shard]))
    assert read_journal(other)[0].state == "building"
    send_looks(other, *TASKS)
    drain_all(other)
    stub.add_fault("unauthorized", times=None)
    sync_all(other, "memory")
    assert serving(other) == OLD
    assert gate_of(other).outcome == "failed"
    stub.clear_faults()
    sync_all(other, "memory")
    assert serving(other) == NEW


_DIES = """
import os, signal
from mcp_assets.settings import load_settings
from mcp_assets.sync.collections import model_change
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.platform import Platform

model_change.why_held = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
platform = Platform(load_settings())
for entity_type in platform.settings.entity_types:
    for _ in full_sync(platform, entity_type, range(platform.settings.shards)):
        pass
"""


def test_a_process_that_was_killed_after_it_measured_leaves_the_move_to_the_next_which_asks_nothing_again(
    other: Platform, stub: OpenAIStub
) -> None:
    killed = subprocess.run([sys.executable, "-c", _DIES], env=environment(other), capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert serving(other) == OLD
    assert gate_of(other).outcome == "measured"
    stub.reset_stats()

    sync_all(other)

    assert serving(other) == NEW
    assert stub.stats()["texts"] == 0


def environment(platform: Platform) -> dict[str, str]:
    """The platform's settings, for a process of its own."""
    settings = platform.settings
    given = {
        "database_url": settings.require_database_url(),
        "nats_url": settings.require_nats_url(),
        "qdrant_url": settings.require_qdrant_url(),
        "qdrant_api_key": key_in(settings),
        "openai_base_url": settings.openai_base_url or "",
        **{name: str(getattr(settings, name)) for name in ("embedding_model", "embedding_dimension", *PREVIOUS)},
    }
    return {**os.environ, **{variable_of(name): value for name, value in given.items()}}
