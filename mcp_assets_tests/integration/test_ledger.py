"""The ledger (I2): whatever the order of events, row changes and full syncs, it ends at what the truth says."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import LONGEST_TEXT, Prepared, prepare
from mcp_assets.events import Carried, Event, MessageKind, Verb, coalesce
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.source_tables.reader import SourceReader
from mcp_assets.sync.index.full_sync import Stages, full_sync
from mcp_assets.sync.index.ledger import Wanted, apply
from mcp_assets_tests.observing import (
    dead_letters,
    drain_all,
    entity_points,
    ledger,
    put,
    put_tasks,
    remove,
    rows,
    send,
    send_looks,
    sync_all,
)

LEDGER_ONLY = Stages(embeddings=False)

IDS = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from(["one", "two", "three"])


@dataclass(frozen=True)
class WriteRow:
    """A server writes a row; dead: it is archived."""

    id: str
    title: str
    alive: bool


@dataclass(frozen=True)
class RemoveRow:
    id: str


@dataclass(frozen=True)
class Publish:
    """An event is stored in the stream. `title` None: it states nothing; it may be delivered late, often or never."""

    id: str
    verb: Verb
    title: str | None


@dataclass(frozen=True)
class Deliver:
    """Some of the events published so far, in any order and with repetitions, applied as one batch."""

    picks: tuple[int, ...]


class FullSync:
    pass


@dataclass
class Model:
    """What must be true, kept without any look at the product."""

    alive: dict[str, bool] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    had_row: set[str] = field(default_factory=set)
    """A row of the entity was there when somebody looked."""
    known: set[str] = field(default_factory=set)
    """An event stated something of the entity, or its row was seen."""
    events: list[Publish] = field(default_factory=list)

    def look(self, entity_id: str) -> None:
        if entity_id in self.alive:
            self.had_row.add(entity_id)
            self.known.add(entity_id)

    def living(self) -> dict[str, str]:
        """Title of each living entity, once every event was delivered."""
        found = {entity_id: self.titles[entity_id] for entity_id, alive in self.alive.items() if alive}
        newest: dict[str, str | None] = {}
        for event in self.events:
            if event.verb is Verb.DELETE:
                newest[event.id] = None
            elif event.title is not None:
                newest[event.id] = event.title
        by_event = {
            entity_id: title
            for entity_id, title in newest.items()
            if title is not None and entity_id not in self.alive and entity_id not in self.had_row
        }
        return found | by_event


STEPS = st.lists(
    st.one_of(
        st.builds(WriteRow, IDS, TEXTS, st.booleans()),
        st.builds(RemoveRow, IDS),
        st.builds(Publish, IDS, st.just(Verb.LOOK), TEXTS),
        st.builds(Publish, IDS, st.just(Verb.LOOK), st.none()),
        st.builds(Publish, IDS, st.just(Verb.DELETE), st.none()),
        st.builds(Deliver, st.lists(st.integers(0, 30), min_size=1, max_size=6).map(tuple)),
        st.builds(FullSync),
    ),
    min_size=6,
    max_size=20,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, last_batches=st.randoms(use_true_random=False))
@example(
    steps=[Publish("b", Verb.LOOK, "one"), Deliver((0,)), WriteRow("b", "one", False), FullSync(), RemoveRow("b")],
    last_batches=random.Random(1),
)
def test_any_order_of_events_row_changes_and_full_syncs_ends_in_what_the_truth_says(
    platform: Platform, steps: list[Any], last_batches: random.Random
) -> None:
    with platform.postgres.transaction() as connection:
        connection.execute("DELETE FROM mcp_assets.entities")
        connection.execute("DELETE FROM tasks")
    model = Model()
    for step in steps:
        match step:
            case WriteRow(entity_id, title, alive):
                put(platform, "tasks", id=entity_id, title=title, archived_at=None if alive else "2026-01-01")
                model.alive[entity_id], model.titles[entity_id] = alive, title
            case RemoveRow(entity_id):
                remove(platform, "tasks", entity_id)
                model.alive.pop(entity_id, None)
            case Publish():
                model.events.append(step)
            case Deliver(picks) if model.events:
                deliver(platform, model, [pick % len(model.events) for pick in picks])
            case FullSync():
                sync_ledger(platform, model)
    # At rest: everything published was delivered, in batches of any size and order, and somebody looked at every row.
    order = list(range(len(model.events)))
    last_batches.shuffle(order)
    while order:
        size = last_batches.randint(1, 4)
        deliver(platform, model, order[:size])
        order = order[size:]
    for entity_id in ("a", "b"):
        model.look(entity_id)
        apply(platform, "task", [Wanted(entity_id)])
    sync_ledger(platform, model)

    found = ledger(platform)
    assert {entity_id: row["title"] for entity_id, row in found.items() if not row["deleted"]} == model.living()
    assert {entity_id for entity_id, row in found.items() if row["origin"] == "source"} == model.had_row
    assert sync_all(platform, stages=LEDGER_ONLY).deleted == 0


def deliver(platform: Platform, model: Model, picks: list[int]) -> None:
    """Apply the events numbered `picks` as one batch, as a drain does."""
    events = []
    for pick in picks:
        event = model.events[pick]
        model.look(event.id)
        if event.verb is Verb.DELETE or event.title is not None:
            model.known.add(event.id)
        carried = None if event.title is None else Carried(event.title, "", {})
        name = EntityRef("task", event.id)
        events.append(
            (f"{pick:020d}", Event(MessageKind.ENTITY, "mcp.task.updated", name, event.verb, carried, None, None))
        )
    apply(platform, "task", [Wanted(ref.id, folded.stated) for ref, folded in coalesce(events).items()])


def sync_ledger(platform: Platform, model: Model) -> None:
    """A full sync of the ledger: it sees living rows, and those that it knows: nothing of them is embedded yet."""
    for entity_id, alive in model.alive.items():
        if alive or entity_id in model.known:
            model.look(entity_id)
    for _ in full_sync(platform, "task", range(4), stages=LEDGER_ONLY):
        pass


@pytest.mark.parametrize("known", [True, False], ids=["an entity known", "an entity new"])
def test_an_applier_that_read_an_older_truth_does_not_write_it_over_a_newer_one(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    other = make_platform()
    put_tasks(platform, {"a": "oldest"})
    if known:
        apply(platform, "task", [Wanted("a")])
        put_tasks(platform, {"a": "old"})
    real = SourceReader.read
    started: list[threading.Thread] = []

    def overtake() -> None:
        put_tasks(other, {"a": "new"})
        apply(other, "task", [Wanted("a")])

    def read(self: SourceReader, *args: Any) -> Any:
        found = real(self, *args)
        if not started:
            started.append(threading.Thread(target=overtake))
            started[0].start()
            # It may end now, or wait for us to commit: either way, what it writes has to stand.
            started[0].join(0.5)
        return found

    monkeypatch.setattr(SourceReader, "read", read)
    apply(platform, "task", [Wanted("a")])
    started[0].join()

    assert ledger(platform)["a"]["title"] == "new"


def test_of_two_appliers_that_insert_the_same_entity_the_later_one_looks_again(
    platform: Platform, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_platform()
    put_tasks(platform, {"a": "old"})
    real = SourceReader.read
    late_reader = other.source("task")
    assert late_reader is not None
    with platform.postgres.transaction() as connection:
        old_truth = late_reader.read(connection, ["a"])
    put_tasks(platform, {"a": "new"})
    superseded = False

    def read(self: SourceReader, *args: Any) -> Any:
        nonlocal superseded
        if self is late_reader:
            return old_truth
        found = real(self, *args)
        if not superseded:
            superseded = True
            apply(other, "task", [Wanted("a")])
        return found

    monkeypatch.setattr(SourceReader, "read", read)
    apply(platform, "task", [Wanted("a")])

    assert superseded
    assert ledger(platform)["a"]["title"] == "new"


def test_writers_that_look_after_each_write_leave_the_ledger_at_the_last_write_of_all(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    """Each applier reads the truth under the lock of the ledger row: none writes an older truth over a newer one."""
    ids = [f"t{n}" for n in range(6)]
    errors: list[BaseException] = []

    def write_and_look(own: Platform, seed: int) -> None:
        chance = random.Random(seed)
        try:
            for turn in range(30):
                picked = chance.sample(ids, 3)
                for entity_id in picked:
                    if chance.random() < 0.3:
                        remove(own, "tasks", entity_id)
                    else:
                        put(own, "tasks", id=entity_id, title=f"{seed}/{turn}")
                apply(own, "task", [Wanted(entity_id) for entity_id in picked])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write_and_look, args=(make_platform(), seed)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    living = {entity_id: row["title"] for entity_id, row in ledger(platform).items() if not row["deleted"]}
    assert living == dict(rows(platform, "SELECT id, title FROM tasks"))


def test_what_is_unchanged_is_not_written(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate", "b": "Paint it"})
    wanted = [Wanted("a"), Wanted("b")]
    apply(platform, "task", wanted)
    drain_all(platform)
    sync_all(platform)
    versions = "SELECT entity_id, xmin::text, ctid::text FROM {schema}.entities ORDER BY 1"
    before = rows(platform, versions)

    applied = apply(platform, "task", wanted)

    assert applied.unchanged == 2
    assert applied.dirty == []
    assert rows(platform, versions) == before


def test_a_column_that_is_not_mapped_changes_nothing(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Mend the gate", updated_at="2026-01-01")
    sync_all(platform)
    put(platform, "tasks", id="a", title="Mend the gate", updated_at="2026-02-01")

    assert apply(platform, "task", [Wanted("a")]).unchanged == 1


def test_white_space_in_a_row_changes_its_hash_and_nothing_of_what_is_embedded(platform: Platform) -> None:
    put(platform, "tasks", id="a", title="Mend  the gate", description=None)
    sync_all(platform)
    before = ledger(platform)["a"]
    put(platform, "tasks", id="a", title="Mend  the gate", description=" \n ")

    applied = apply(platform, "task", [Wanted("a")])

    assert applied.unchanged == 1
    after = ledger(platform)["a"]
    assert (after["text_hash"], after["state_hash"], after["dirty"]) == (
        before["text_hash"],
        before["state_hash"],
        False,
    )


def test_an_archived_row_is_a_tombstone_and_a_restored_one_lives_again(platform: Platform) -> None:
    put_tasks(platform, {"a": "Mend the gate"})
    sync_all(platform)
    put(platform, "tasks", id="a", title="Mend the gate", archived_at="2026-01-01")
    apply(platform, "task", [Wanted("a")])
    assert ledger(platform)["a"]["deleted"]

    put(platform, "tasks", id="a", title="Mend the gate", archived_at=None)
    apply(platform, "task", [Wanted("a")])
    assert not ledger(platform)["a"]["deleted"]


def test_an_event_that_says_otherwise_than_the_row_changes_nothing(platform: Platform) -> None:
    put_tasks(platform, {"a": "what the row says"})
    send(platform, ("mcp.task.updated", {"taskId": "a", "title": "what the event says"}))
    drain_all(platform)

    assert ledger(platform)["a"]["title"] == "what the row says"
    assert ledger(platform)["a"]["origin"] == "source"


def test_a_delete_event_about_a_living_row_deletes_nothing(platform: Platform) -> None:
    put_tasks(platform, {"a": "still there"})
    send(platform, ("mcp.task.deleted", {"taskId": "a"}))
    drain_all(platform)

    assert set(entity_points(platform)) == {"a"}


def test_a_type_without_a_source_table_lives_by_its_events_in_the_shared_collection(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = make_platform(types={"note": TypeMapping(), "idea": TypeMapping()}, drain_linger_s=0)
    send(
        own,
        ("mcp.note.created", {"noteId": "1", "title": "A note"}),
        ("mcp.idea.created", {"ideaId": "1", "title": "An idea"}),
        ("mcp.note.created", {"noteId": "2", "title": "Another"}),
        ("mcp.note.deleted", {"noteId": "2"}),
        ("mcp.task.created", {"taskId": "1", "title": "not registered here"}),
    )
    drain_all(own)

    assert set(entity_points(own, "note", "cross_references")) == {"1"}
    assert set(entity_points(own, "idea", "cross_references")) == {"1"}
    assert dead_letters(own) == {"5": "unknown_type"}
    assert sync_all(own, "note").scanned == 1


LARGEST_64 = 2**63


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param('{"x": 1e400}', id="a number beyond 64-bit floats"),
        pytest.param('{"x": ' + "9" * 5000 + "}", id="an integer of 5,000 digits"),
        pytest.param('{"x": ' + "[" * 3000 + "]" * 3000 + "}", id="3,000 levels"),
    ],
)
def test_a_row_whose_metadata_no_store_can_hold_is_dead_lettered_and_its_neighbours_are_indexed(
    platform: Platform, metadata: str
) -> None:
    put_tasks(platform, {"good": "Mend the gate", "bad": "Paint it", "fine": "Oil the hinge"})
    with platform.postgres.transaction() as connection:
        connection.execute("UPDATE tasks SET metadata = %s::jsonb WHERE id = 'bad'", (metadata,))
    send_looks(platform, "good", "bad")

    counts = drain_all(platform)

    assert (counts.embedded, counts.failed) == (1, 1)
    assert dead_letters(platform) == {"bad": "unfit_metadata"}
    counts = sync_all(platform)
    assert (counts.embedded, counts.failed) == (1, 1)
    assert set(entity_points(platform)) == {"good", "fine"}

    put(platform, "tasks", id="bad", title="Paint it", metadata={"x": 1})
    sync_all(platform)
    assert dead_letters(platform) == {}
    assert entity_points(platform)["bad"].payload["x"] == 1


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        pytest.param({"x": 1e300}, True, id="a float whose digits are many"),
        pytest.param({"x": LARGEST_64 * 4}, None, id="an integer beyond 64 bits"),
        pytest.param({"": 1, "a.b": 2, "a[0]": 3, "$": 4, 'quo"te': 5, "%s": 6}, True, id="keys of odd letters"),
        pytest.param({"x": "\U0001f600 \u202e \x7f"}, True, id="text of odd letters"),
        pytest.param({"x": {"y": [1, None, {"z": []}]}}, True, id="nested"),
        pytest.param({"mcp_kind": "chunk", "entity_id": "other", "mcp_slot": "x", "title": 5}, True, id="our own keys"),
        pytest.param({"kind": 7, "start": 0, "model": ["m"], "slot": "x"}, True, id="names like our own keys"),
    ],
)
def test_metadata_of_every_shape_reach_the_payload_or_are_dead_lettered_and_harm_no_neighbour(
    platform: Platform, metadata: dict[str, Any], kept: bool | None
) -> None:
    put_tasks(platform, {"good": "Mend the gate"})
    put(platform, "tasks", id="odd", title="Paint it", metadata=metadata)
    send_looks(platform, "good", "odd")

    drain_all(platform)

    stored = entity_points(platform)
    assert "good" in stored
    if kept or not dead_letters(platform):
        assert dead_letters(platform) == {}
        payload = stored["odd"].payload
        assert payload["entity_id"] == "odd"
        own = {"mcp_kind", "entity_id", "mcp_slot", "title"}
        assert {key: payload[key] for key in metadata if key not in own} == {
            key: pytest.approx(value) if isinstance(value, float | int) else value
            for key, value in metadata.items()
            if key not in own
        }
    else:
        assert dead_letters(platform) == {"odd": "point_refused"}
        assert "odd" not in stored


def test_text_that_looks_like_sql_is_text(platform: Platform) -> None:
    name = "x'); DROP TABLE tasks; --"
    put_tasks(platform, {name: name, "100%": "100% sure %s %(x)s", "{}": "{braces} {0}"})
    send_looks(platform, name, "100%", "{}")
    drain_all(platform)

    assert {row["title"] for row in ledger(platform).values()} == {name, "100% sure %s %(x)s", "{braces} {0}"}
    assert set(entity_points(platform)) == {name, "100%", "{}"}


def test_no_row_is_locked_while_a_long_text_is_cut_into_chunks(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tasks(platform, {"short": "Mend the gate"})
    put(platform, "tasks", id="long", title="Long", description="word " * 5_000)
    apply(platform, "task", [Wanted("short"), Wanted("long")])
    put_tasks(platform, {"short": "Mend the fence"})
    put(platform, "tasks", id="long", title="Long", description="漢字" * 150_000)
    free: list[list[tuple[Any, ...]]] = []

    def look(title: str | None, content: str, spec: ChunkSpec | None) -> Prepared:
        if len(content) > 100_000:
            free.append(
                rows(platform, "SELECT entity_id FROM {schema}.entities ORDER BY entity_id FOR UPDATE SKIP LOCKED")
            )
        return prepare(title, content, spec)

    monkeypatch.setattr("mcp_assets.sync.index.ledger.prepare", look)
    applied = apply(platform, "task", [Wanted("short"), Wanted("long")])

    assert free == [[("long",), ("short",)]]
    assert {entity.id for entity in applied.dirty} == {"short", "long"}
    assert ledger(platform)["long"]["content"] == "漢字" * 150_000


def test_a_long_text_that_changes_while_it_is_cut_is_applied_as_it_is_then(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(platform, "tasks", id="a", title="Long", description="漢字" * 150_000)
    cut: list[int] = []

    def change(title: str | None, content: str, spec: ChunkSpec | None) -> Prepared:
        cut.append(len(content))
        if len(cut) == 1:
            put(platform, "tasks", id="a", title="Long", description="仮名" * 140_000)
        return prepare(title, content, spec)

    monkeypatch.setattr("mcp_assets.sync.index.ledger.prepare", change)
    (dirty,) = apply(platform, "task", [Wanted("a")]).dirty

    assert cut == [300_000, 280_000]
    assert dirty.prepared == prepare("Long", "仮名" * 140_000, platform.settings.chunks)


def test_a_text_above_the_longest_is_not_cut_and_is_dead_lettered_beside_its_neighbours(platform: Platform) -> None:
    put_tasks(platform, {"good": "Mend the gate"})
    put(platform, "tasks", id="long", title="Long", description="漢" * (LONGEST_TEXT + 1))
    send_looks(platform, "good", "long")

    drain_all(platform)

    assert dead_letters(platform) == {"long": "text_too_long"}
    assert set(entity_points(platform)) == {"good"}
    assert ledger(platform)["long"]["chunk_bound"] == 0
