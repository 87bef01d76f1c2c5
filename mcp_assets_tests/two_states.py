"""Two states of one workspace, and everything that the stores hold of it: what tests of kills compare.

Work takes the workspace from one state to the other, and the next work takes it back. So nothing has to be emptied
between two kills, and what work that was not killed has left is what killed work has to come to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedding.input_batch import PROBE
from mcp_assets.entities.points import Key
from mcp_assets.entities.text import collapse
from mcp_assets.platform import Platform
from mcp_assets_tests.observing import COLLECTIONS, points, put, remove, rows, send
from mcp_assets_tests.openai_stub import OpenAIStub

TASKS = 24

SETTINGS: Mapping[str, Any] = {
    "batch_size": 4,
    "embedding_concurrency": 1,
    "shards": 2,
    "drain_linger_s": 0.0,
    "chunk_size": 4_000,
    "chunk_overlap": 60,
    "similarity_threshold": 0.5,
}
"""Small batches, so that a work has many; one at a time is with the embedder, and one is on its way."""

IN_FLIGHT = (SETTINGS["embedding_concurrency"] + 1) * SETTINGS["batch_size"]
"""Entities that may be embedded and not yet written when a work dies."""

_CHUNKS = 6
"""The one long text has fewer."""

EventBorn = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """Source rows by table and id, and the texts of memories that have no row."""

    tables: Mapping[str, Mapping[str, Mapping[str, Any]]]
    event_born: Mapping[str, str]


def _state(name: str) -> State:
    first = name == "first"
    tasks: dict[str, dict[str, Any]] = {
        f"t{n}": {
            "title": f"Task {n} about gate {n % 4} {name if n % 4 else ''}",
            "depends_on": [f"t{n - (1 if first else 2)}"] if n > 2 else [],
            "tags": [f"gate {n % 4 if first else n % 3}"],
            "description": "part of page:p0" if n % 5 == 0 else "[[Gates]]" if n % 5 == 1 else "It is wide.",
        }
        for n in range(TASKS)
    }
    # Its metadata alone is another, its text is refused, it is cut into more or fewer chunks.
    tasks["status"] = {
        "title": "Task whose status changes",
        "description": "Nothing else does.",
        "status": "open" if first else "done",
    }
    tasks["refused"] = {
        "title": "Task that is sound" if first else "Task that says REFUSE-ME",
        "description": "It depends on the state.",
    }
    tasks["long"] = {"title": "Long", "description": " ".join(f"{n} gate" for n in range(1_400 if first else 960))}
    tasks[f"only-{name}"] = {"title": f"Task of the {name} state", "description": "After task:t1."}
    pages: dict[str, dict[str, Any]] = {
        "p0": {"title": "Gates", "content": "How gates are mended.", "slug": "gates", "tags": ["gate 1"]},
        # The smaller id takes the references of the larger: those that use the title are linked anew.
        "p1": {"title": "Gates and fences" if first else "Gates", "content": "Fences.", "slug": "gates/fences"},
        f"p-{name}": {"title": "Notes", "content": f"Notes of the {name} state about gate 2: task:t2"},
    }
    memories: dict[str, dict[str, Any]] = {"m0": {"title": "Gate 3", "content": f"It was seen in the {name} state"}}
    event_born = {"e0": f"Heard of gate 1 in the {name} state", f"e-{name}": "Heard in one state only"}
    return State({"tasks": tasks, "wiki_pages": pages, "memory_nodes": memories}, event_born)


STATES = (_state("first"), _state("second"))

_TITLES = {collapse(row["title"]) for state in STATES for table in state.tables.values() for row in table.values()}

_TYPE_OF = {"tasks": "task", "wiki_pages": "page", "memory_nodes": "memory"}


def begin(platform: Platform) -> None:
    """Empty source tables and a stream."""
    create_source_tables(platform)
    platform.nats.ensure_stream(platform.settings.streams[0])


def write_rows(platform: Platform, old: State, new: State) -> list[tuple[str, str]]:
    """Bring the source tables from `old` to `new`; table and id of the rows that differ."""
    differing = []
    for table, wanted in new.tables.items():
        before = old.tables[table]
        for entity_id, columns in wanted.items():
            if before.get(entity_id) != columns:
                put(platform, table, id=entity_id, **columns)
                differing.append((table, entity_id))
        gone = before.keys() - wanted.keys()
        if gone:
            remove(platform, table, *gone)
            differing += [(table, entity_id) for entity_id in sorted(gone)]
    return differing


def send_events(platform: Platform, differing: list[tuple[str, str]], old: State, new: State) -> None:
    """Publish an event about each row that differs, and about the memories that live by events."""
    looks = [(f"mcp.{_TYPE_OF[table]}.updated", {f"{_TYPE_OF[table]}Id": entity_id}) for table, entity_id in differing]
    carrying = [
        ("mcp.memory.stored", {"memoryId": entity_id, "content": content})
        for entity_id, content in new.event_born.items()
        if old.event_born.get(entity_id) != content
    ]
    ended = [("mcp.memory.deleted", {"memoryId": entity_id}) for entity_id in old.event_born.keys() - new.event_born]
    send(platform, *looks, *carrying, *ended)


def everything(platform: Platform) -> dict[str, dict[Any, Any]]:
    """All that the stores hold, but for times, the order of events, the numbers of rows, and collections of a model
    before: when those were last written depends on when the aliases moved."""
    return {
        "ledger": _by(
            rows(
                platform,
                "SELECT entity_type, entity_id, deleted_at IS NULL, origin, title, content, metadata, source_hash,"
                " text_hash, state_hash, prepared_by, dirty FROM {schema}.entities",
            ),
            2,
        ),
        "embedded": _by(
            rows(
                platform,
                "SELECT entity_type, entity_id, collection, model, text_hash, state_hash, points, vector_checks"
                f" FROM {{schema}}.embedded WHERE model = '{platform.settings.embedding_model}'",
            ),
            3,
        ),
        "points": {
            (collection, identifier): (
                [round(float(number), 4) for number in point.vector],
                {key: value for key, value in point.payload.items() if key != Key.INDEXED_AT},
            )
            for collection in COLLECTIONS.values()
            for identifier, point in points(platform, collection).items()
        },
        "edges": _by(
            rows(
                platform,
                "SELECT source_type, source_id, target_type, target_id, relationship_type,"
                " round(strength::numeric, 4), metadata, origin FROM relationships",
            ),
            5,
        ),
        "reference_uses": _by(
            rows(
                platform,
                "SELECT source_type, source_id, kind, key, relation, reverse, count(*) FROM {schema}.reference_uses"
                " GROUP BY 1, 2, 3, 4, 5, 6",
            ),
            6,
        ),
        "dead letters": _by(
            rows(platform, "SELECT entity_type, entity_id, stage, error_kind FROM {schema}.dead_letters"), 2
        ),
        "waiting": {
            table: rows(platform, f"SELECT count(*) FROM {{schema}}.{table}")[0][0]
            for table in ("inbox", "relink_marks", "unwritten_vectors")
        },
    }


def _by(found: list[tuple[Any, ...]], length: int) -> dict[Any, Any]:
    """Rows by their first `length` columns."""
    by = {row[:length]: row[length:] for row in found}
    assert len(by) == len(found), "two rows with one key"
    return by


NOTHING = State({table: {} for table in STATES[0].tables}, {})

Turn = Callable[[Platform, State, State], None]


class ToAndFro:
    """Takes a workspace to and fro between two states, and knows what is right in each.

    `turn(platform, old, new)` makes the change from state to state, as the outside does, and from NOTHING the first of
    them; `finish(platform)` does the work to its end in this process, however it was left. `platforms`: with the
    settings of the first and of the second state, on the same stores.
    """

    def __init__(
        self,
        platforms: tuple[Platform, Platform],
        stub: OpenAIStub,
        turn: Turn,
        finish: Callable[[Platform], None],
        states: tuple[State, State] = STATES,
    ) -> None:
        self._platforms, self._states, self._stub, self._turn, self._finish = platforms, states, stub, turn, finish
        self._at = 0
        begin(self.platform)
        turn(self.platform, NOTHING, states[0])
        finish(self.platform)
        # Twice, so that what was deleted in a state is a tombstone in both.
        for _ in range(2):
            self.change()
            finish(self.platform)
        self._right: list[dict[str, dict[Any, Any]]] = [{}, {}]
        self._spent = [0, 0]
        for _ in range(2):
            self.change()
            finish(self.platform)
            self._spent[self._at] = self._embedded()
            self._right[self._at] = everything(self.platform)
            assert not any(self._right[self._at]["waiting"].values())

    @property
    def platform(self) -> Platform:
        """The platform with the settings of the state to which the workspace goes."""
        return self._platforms[self._at]

    def change(self) -> None:
        """To the other state; the work is not begun."""
        self._stub.reset_stats()
        old, self._at = self._at, 1 - self._at
        self._turn(self.platform, self._states[old], self._states[self._at])

    def assert_right_after_finishing(self, where: str, *, in_flight: int = IN_FLIGHT + _CHUNKS) -> None:
        """Finish the work: all is as without a kill, and no more was embedded again than what was in flight."""
        self._finish(self.platform)
        found = everything(self.platform)
        for name, right in self._right[self._at].items():
            differing = {
                key: {"found": found[name].get(key), "right": right.get(key)}
                for key in found[name].keys() | right.keys()
                if found[name].get(key) != right.get(key)
            }
            assert not differing, f"{name} after a kill {where}: {dict(islice(differing.items(), 3))}"
        spent = self._embedded() - self._spent[self._at]
        assert spent <= in_flight, f"{spent} texts were embedded again after a kill {where}"

    def _embedded(self) -> int:
        """Texts of entities that were embedded since the last change.

        The probes that a refusal causes are none, and the questions by which models are compared are none: these are
        titles, and no entity consists of its title alone.
        """
        return self._stub.stats()["texts"] - sum(map(self._stub.times_embedded, (PROBE, *_TITLES)))
