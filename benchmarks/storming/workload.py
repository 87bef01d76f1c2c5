"""Workload: a seeded list of steps, and the truth that follows from them. Pure: nothing here touches a store."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from mcp_assets.entities.refs import EntityRef
from mcp_assets_tests.openai_stub import REFUSE_MARKER

TYPES = ("task", "page", "memory")

EventAt = Literal["after", "before", "never"]
"""When the event of a changed row is published: after its commit, before it, or not at all."""

_WORDS = [f"{stem}{ending}" for stem in ("bal", "cor", "dun", "fel", "gar", "hov", "jul", "kem") for ending in "aeioux"]
_TAGS = ["invoice", "release", "customs", "harvest", "storage", "billing"]
_MOODS = ["open", "doing", "done"]

LONG_SENTENCES = 700
"""Sentences of a long text: some 20,000 characters, well over what one point embeds."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the source row of an entity says."""

    title: str
    content: str
    tags: tuple[str, ...] = ()
    mood: str = "open"
    """A key of the free metadata."""


@dataclass(frozen=True, slots=True)
class Write:
    """A source row is written."""

    ref: EntityRef
    row: Row
    event: EventAt
    delay_s: float = 0.0
    """Seconds between an event published before its commit, and the commit."""


@dataclass(frozen=True, slots=True)
class Delete:
    """A source row is deleted."""

    ref: EntityRef
    event: EventAt


@dataclass(frozen=True, slots=True)
class Repeat:
    """An event that says nothing new."""

    ref: EntityRef


@dataclass(frozen=True, slots=True)
class State:
    """An event that is all there is of its entity: no source row has ever existed."""

    ref: EntityRef
    row: Row | None
    """None: the event deletes the entity."""


@dataclass(frozen=True, slots=True)
class Junk:
    """A message that is no event."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has to be answered. `subject` without its `.request`."""

    subject: str
    message_id: str
    sync_type: str | None = None
    ref: EntityRef | None = None


Step = Write | Delete | Repeat | State | Junk | Request


@dataclass(slots=True)
class Truth:
    """What the stores should hold once everything is applied."""

    rows: dict[EntityRef, Row] = field(default_factory=dict)
    stated: dict[EntityRef, Row] = field(default_factory=dict)
    """Entities that live by their events alone."""
    junk: int = 0
    requests: set[str] = field(default_factory=set)
    """Message ids that have to be answered."""
    late: int = 0
    """Changes whose event came before the commit."""
    silent: int = 0
    """Changes without any event."""

    @property
    def living(self) -> dict[EntityRef, Row]:
        return self.rows | self.stated

    def add(self, step: Step) -> None:
        """Follow one step."""
        match step:
            case Write():
                self.rows[step.ref] = step.row
                self._count(step.event)
            case Delete():
                del self.rows[step.ref]
                self._count(step.event)
            case State(row=None):
                self.stated.pop(step.ref, None)
            case State(row=row) if row is not None:
                self.stated[step.ref] = row
            case Junk():
                self.junk += 1
            case Request():
                self.requests.add(step.message_id)
            case _:
                pass

    def _count(self, event: EventAt) -> None:
        self.late += event == "before"
        self.silent += event == "never"


def is_refused(row: Row) -> bool:
    """The provider refuses the text: the entity has a dead letter and no point."""
    return REFUSE_MARKER in row.content


def prepared_text(row: Row) -> str:
    """The text that the entity's own point embeds, by the words of the documentation and not by the code."""
    return " ".join(f"{row.title}\n\n{row.content}".split())[:8_000].rstrip()


_SHARES: dict[str, float] = {
    "change": 50,
    "metadata": 10,
    "delete": 6,
    "repeat": 7,
    "silent": 4,
    "early": 4,
    "long": 1.5,
    "state": 9,
    "unstate": 1.5,
    "junk": 2,
    "refused": 1,
    "request": 4,
}
"""How often each kind of step comes, in parts of their sum."""


class Workload:
    """Steps by a seed, each chosen in view of what exists by then. `entities`: how many ids there are to write."""

    def __init__(self, seed: int, entities: int) -> None:
        self._random = Random(seed)
        self._entities = entities
        self._versions: Counter[EntityRef] = Counter()
        self._made = 0
        self.truth = Truth()

    def steps(self, count: int) -> Iterator[Step]:
        """The next `count` steps; `truth` follows each as it is taken."""
        kinds, weights = list(_SHARES), list(_SHARES.values())
        for _ in range(count):
            step = self._step(self._random.choices(kinds, weights)[0])
            self.truth.add(step)
            yield step

    def _step(self, kind: str) -> Step:
        existing = self._existing()
        match kind:
            case "state":
                return self._stated()
            case "unstate" if self.truth.stated:
                return State(self._random.choice(sorted(self.truth.stated)), None)
            case "junk":
                return Junk(self._junk())
            case "refused":
                ref = self._new_ref("refused")
                return Write(ref, Row(f"Refused {ref.id}", f"{REFUSE_MARKER} {ref.id}"), "after")
            case "request" if existing is not None:
                return self._request(existing)
            case "repeat" if existing is not None:
                return Repeat(existing)
            case "metadata" if existing is not None:
                row = self.truth.rows[existing]
                mood = self._random.choice([mood for mood in _MOODS if mood != row.mood])
                return Write(existing, Row(row.title, row.content, self._tags(), mood), "after")
            case "delete" if existing is not None:
                return Delete(existing, self._random.choice(["after", "after", "after", "never"]))
            case _:
                ref = self._any_ref()
                event: EventAt = "never" if kind == "silent" else "before" if kind == "early" else "after"
                delay_s = self._random.choice([0.3, 1.0, 4.0, 12.0]) if kind == "early" else 0.0
                return Write(ref, self._row(ref, long=kind == "long"), event, delay_s)

    def _existing(self) -> EntityRef | None:
        ref = self._any_ref()
        return ref if ref in self.truth.rows else None

    def _any_ref(self) -> EntityRef:
        # Some entities change far more often than others, so that changes of one meet in a batch.
        number = int(self._entities * self._random.random() ** 2)
        return EntityRef(TYPES[number % len(TYPES)], f"n{number}")

    def _new_ref(self, prefix: str) -> EntityRef:
        self._made += 1
        return EntityRef(self._random.choice(TYPES), f"{prefix}{self._made}")

    def _row(self, ref: EntityRef, *, long: bool = False) -> Row:
        self._versions[ref] += 1
        version = self._versions[ref]
        title = f"Note {ref.id}" if self._random.random() < 0.8 else f"Note {ref.id} again"
        words = " ".join(self._random.choices(_WORDS, k=8))
        sentences = [f"{ref} says {version} of {words}."]
        if self._random.random() < 0.4:
            other = self._any_ref()
            sentences.append(
                self._random.choice([f"Depends on {other}.", f"Part of {other}.", f"See [[Note {other.id}]]."])
            )
        if long:
            # Each sentence is this version's own, so that each chunk is a text never embedded before.
            sentences += [f"Line {number} of {ref} in {version}." for number in range(LONG_SENTENCES)]
        return Row(title, " ".join(sentences), self._tags(), self._random.choice(_MOODS))

    def _stated(self) -> State:
        if self.truth.stated and self._random.random() < 0.5:
            ref = self._random.choice(sorted(self.truth.stated))
        else:
            ref = self._new_ref("event-born-")
        return State(ref, self._row(ref))

    def _tags(self) -> tuple[str, ...]:
        return tuple(sorted(self._random.sample(_TAGS, self._random.randrange(3))))

    def _junk(self) -> bytes:
        self._made += 1
        return (
            self._random.choice([b"not json %d", b"\xff\xfe binary %d", b'{"task_id": {"no": %d}}', b"[%d]"])
            % self._made
        )

    def _request(self, ref: EntityRef) -> Request:
        self._made += 1
        message_id = f"request-{self._made}"
        kind = self._random.choices(["index", "relate", "incremental_sync", "full_sync"], [4, 3, 4, 0.2])[0]
        match kind:
            case "index":
                return Request("vector.index", message_id, None, ref)
            case "relate":
                return Request("relationship.analyze", message_id, None, ref)
            case "full_sync":
                return Request("data.sync", message_id, kind)
            case _:
                return Request("data.sync", message_id, kind, ref)
