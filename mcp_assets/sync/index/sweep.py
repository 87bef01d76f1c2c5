"""Sweep: compares source tables with the ledger all the time, so that changes without an event are found, too.

A slice of a table, a range of slots, is compared by one statement; then the sweep rests so long that it costs at most
1 % of a core. A pass is one comparison of a whole table. If a pass finds few differences, the sweep puts a look into
the inbox (see `event_rechecks`) for each new or changed row, and for each row that two passes in a row have missed. If
it finds many, or rows that were prepared by another mapping or text builder, it only reports them: a full sync is asked
for by a person or a schedule.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mcp_assets.entities.refs import SLOTS, slot_of
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.postgres.locks import Lock, lock_name, try_to_hold
from mcp_assets.stores.postgres.rows import by_id
from mcp_assets.stores.source_tables.slot_comparison import Comparison
from mcp_assets.sync.index.event_rechecks import LAST_LOOK, Look, insert_looks
from mcp_assets.sync.index.mass_delete import is_mass
from mcp_assets.sync.sums import add_fields

logger = logging.getLogger(__name__)

SHARE_OF_A_CORE = 0.01
"""Of the source database and of this process together, by measured cost: too little for a person to notice."""

_UNKNOWN_WIDTH = SLOTS // 16
"""Slots of the first slice of a table whose size no pass has measured."""

_KEPT_S = 60.0
"""How long the sweeper goes on after `keep`: a sensor calls it at each tick, and ticks are less than a minute apart."""

_AFTER_AN_ERROR_S = 60.0
"""How long the sweep rests after a store did not answer: an outage lasts, and each try costs a time-out."""

REACTION_S = 10.0
"""From a look in the inbox to the entity indexed: the gap between two ticks, the start of a run, a small batch."""


@dataclass(slots=True)
class PassCounts:
    """What a pass over one source table has found so far."""

    rows: int = 0
    living: int = 0
    behind: int = 0
    """New or changed rows."""
    vanished: int = 0
    otherwise_prepared: int = 0
    asked: int = 0
    """Looks that it put into the inbox."""
    cost_s: float = 0.0
    seconds: float = 0.0
    """How long the pass takes, with its pauses."""

    def add(self, compared: Comparison) -> None:
        add_fields(self, compared, (field.name for field in fields(compared) if field.name != "found"))


@dataclass(frozen=True, slots=True)
class SweepPass:
    """The last whole pass over the source table of a type."""

    entity_type: str
    counts: PassCounts
    age_s: float

    limit: int
    """If more rows differ, they are left to a full sync."""
    mass: bool
    """So many of the rows are gone that a person has to allow their removal."""

    @property
    def left(self) -> list[str]:
        """Differences that the pass found and that wait for a full sync, in sentences."""
        counts = self.counts
        many = counts.behind + counts.vanished > self.limit
        said = []
        if many and counts.behind:
            said.append(f"{counts.behind} rows are new or changed, more than MCP_ASSETS_SWEEP_ROWS: run a full sync")
        if counts.vanished and (many or self.mass):
            said.append(
                f"{counts.vanished} of {counts.living} rows are gone, too many to be removed unasked: check the source "
                "table, then run a full sync"
            )
        if counts.otherwise_prepared:
            said.append(
                f"{counts.otherwise_prepared} entities were prepared by another mapping or text builder: a full sync "
                "prepares them again, and embeds those whose texts differ"
            )
        return said

    @property
    def within_s(self) -> int:
        """Seconds within which a change without an event is indexed."""
        return math.ceil(self.counts.seconds + REACTION_S)

    @property
    def deleted_within_s(self) -> int:
        """Seconds within which a deletion without an event is indexed: two passes have to miss the row."""
        return math.ceil(2 * self.counts.seconds + REACTION_S)

    @property
    def stands_still(self) -> bool:
        return self.age_s > 3 * self.counts.seconds + _KEPT_S


def pause_s(cost_s: float, pass_costs_s: Mapping[str, float], entity_type: str, *, least_s: float) -> float:
    """How long the sweep of a type rests after a slice that took `cost_s`; at least `least_s`.

    `pass_costs_s`: what a pass over the table of each type costs. Each type has a part of the share of a core in
    proportion to the square root of its cost, so that neither small nor large tables wait long for the others.
    """
    roots = {name: math.sqrt(max(cost, 1e-6)) for name, cost in pass_costs_s.items()}
    part = roots[entity_type] / sum(roots.values())
    return max(least_s, cost_s / (SHARE_OF_A_CORE * part))


def width_of_slice(next_slot: int, counts: PassCounts, last: PassCounts | None, *, rows_a_slice: int) -> int:
    """How many slots the next slice takes, so that it has about `rows_a_slice` rows.

    The rows are estimated by the last pass, or else by this pass so far.
    """
    if last is not None:
        rows = last.rows
    elif next_slot:
        rows = counts.rows * SLOTS // next_slot
    else:
        return _UNKNOWN_WIDTH
    slices = max(1, -(-rows // rows_a_slice))
    return -(-SLOTS // slices)


def last_passes(platform: Platform) -> list[SweepPass]:
    """The last whole pass over each source table that has had one."""
    with platform.postgres.transaction() as connection:
        rows = platform.postgres.rows(connection, "read_sweeps", _LastPass)
    found = []
    for row in rows:
        if row.entity_type in platform.settings.entity_types:
            counts = PassCounts(**row.last_counts)
            mass = is_mass(counts.vanished, counts.living, platform.settings.mass_delete_share)
            found.append(SweepPass(row.entity_type, counts, row.age_s, platform.settings.sweep_rows, mass))
    return found


@dataclass(frozen=True, slots=True)
class _LastPass:
    """The last whole pass over the source table of a type, as table `sweeps` keeps it."""

    entity_type: str
    last_counts: Mapping[str, Any]
    age_s: float


@dataclass(frozen=True, slots=True)
class _PassState:
    """The pass under way over the source table of a type, as table `sweeps` keeps it, and the last whole one."""

    next_slot: int
    number: int
    counts: Mapping[str, Any]
    last_counts: Mapping[str, Any] | None


def sweep_slice(platform: Platform, session: Connection, entity_type: str) -> bool:
    """Compare the next slice of the source table of a type, and put looks into the inbox.

    `session`: in autocommit. Returns whether this was the last slice of the pass.

    Raises:
        StoreUnavailable, StoreRefused: the slice was not compared, or its result is lost; it is still the next one.
    """
    reader = platform.source(entity_type)
    assert reader is not None  # noqa: S101  (only types with a source table are swept)
    query, names, tuning = platform.postgres.query, {"entity_type": entity_type}, platform.tuning.index
    began = time.monotonic()
    session.execute(query("begin_sweep"), names)
    state = platform.postgres.row(session, "lock_sweep", _PassState, names)
    assert state is not None  # noqa: S101  (the statement before makes the row)
    counts = PassCounts(**state.counts)
    last = PassCounts(**state.last_counts) if state.last_counts is not None else None
    width = width_of_slice(state.next_slot, counts, last, rows_a_slice=tuning.sweep_rows_a_slice)
    slots = (state.next_slot, min(state.next_slot + width, SLOTS))
    limit = platform.settings.sweep_rows
    with session.transaction():
        compared = reader.compare(session, entity_type, slots, platform.prepared_by(entity_type), limit=limit + 1)
    counts.add(compared)
    # A slice does not show whether the whole table has few differences; only the pass before does.
    whole = slots == (0, SLOTS)
    if not whole and (last is None or last.behind + last.vanished > limit):
        compared.found = {}
    ends: bool = slots[1] == SLOTS
    with session.transaction():
        counts.asked += _act(platform, session, entity_type, slots, state.number, counts, compared)
        cost_s = time.monotonic() - began
        counts.cost_s += cost_s
        costs = _pass_costs(session, platform, entity_type, counts)
        counts.seconds += cost_s + pause_s(cost_s, costs, entity_type, least_s=tuning.sweep_least_pause_s)
        parameters = {**names, "counts": json.dumps(asdict(counts)), "next_slot": slots[1]}
        session.execute(query("end_sweep_pass" if ends else "move_sweep"), parameters)
    return ends


def _pass_costs(session: Connection, platform: Platform, entity_type: str, counts: PassCounts) -> dict[str, float]:
    passes = platform.postgres.rows(session, "read_sweeps", _LastPass)
    known = {one.entity_type: float(one.last_counts["cost_s"]) for one in passes}
    types = platform.settings.entity_types
    costs = {name: known.get(name, 0.0) for name in types if types[name].source is not None}
    return {**costs, entity_type: max(costs[entity_type], counts.cost_s)}


@dataclass(frozen=True, slots=True)
class _KnownFinding:
    """What earlier passes found of a row that differs from the ledger."""

    source_hash: str | None
    first_pass: int
    has_look: bool
    """A look at it was put into the inbox."""
    changed_since: bool
    """The ledger row changed after its look."""


@dataclass(slots=True)
class _SweptRow:
    """A row that differs from the ledger, as table `sweep_findings` keeps it; `asks`: it gets a look now."""

    entity_id: str
    source_hash: str | None
    first_pass: int
    asks: bool


def _act(
    platform: Platform,
    session: Connection,
    entity_type: str,
    slots: tuple[int, int],
    number: int,
    counts: PassCounts,
    compared: Comparison,
) -> int:
    """Put looks into the inbox for rows that differ, if they are few, and remember them. Returns how many looks."""
    query, names = platform.postgres.query, {"entity_type": entity_type}
    limit = platform.settings.sweep_rows
    few = counts.behind + counts.vanished <= limit
    few_vanished = few and not is_mass(counts.vanished, counts.living, platform.settings.mass_delete_share)
    found = compared.found if few else {}
    findings: list[_SweptRow] = []
    if found:
        ids = {**names, "ids": list(found)}
        known = dict(platform.postgres.rows(session, "sweep_findings", by_id(_KnownFinding), ids))
        waiting = {row[0] for row in session.execute(query("waiting_in_inbox"), ids)}
        for entity_id, source_hash in found.items():
            before = known.get(entity_id)
            if before is not None and before.source_hash != source_hash:
                before = None
            first_pass = before.first_pass if before is not None else number
            has_look = before is not None and before.has_look and not before.changed_since
            certain = source_hash is not None or (few_vanished and first_pass < number)
            findings.append(
                _SweptRow(entity_id, source_hash, first_pass, certain and not has_look and entity_id not in waiting)
            )
    asking = [finding.entity_id for finding in findings if finding.asks]
    insert_looks(
        platform,
        session,
        entity_type,
        [Look(entity_id, attempts=LAST_LOOK) for entity_id in asking],
    )
    if findings:
        session.execute(
            query("keep_sweep_findings"),
            {
                **names,
                "pass": number,
                "entity_id": [finding.entity_id for finding in findings],
                "slot": [slot_of(finding.entity_id) for finding in findings],
                "source_hash": [finding.source_hash for finding in findings],
                "first_pass": [finding.first_pass for finding in findings],
                "asks": [finding.asks for finding in findings],
            },
        )
    session.execute(query("forget_sweep_findings"), {**names, "low": slots[0], "high": slots[1], "pass": number})
    return len(asking)


@dataclass
class Sweeper:
    """Sweeps in a thread while `keep` is called again and again; an advisory lock lets one process sweep at a time."""

    platform: Platform
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _thread: threading.Thread | None = None
    _until: float = 0.0
    _closed: bool = False

    def keep(self) -> None:
        """Sweep for another minute, unless the settings turn the sweep off."""
        if not self.platform.settings.sweep:
            return
        with self._changed:
            self._until = time.monotonic() + _KEPT_S
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End after the present slice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_AFTER_AN_ERROR_S)

    def _kept(self) -> bool:
        return not self._closed and time.monotonic() < self._until

    def _rest(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=seconds)

    def _run(self) -> None:
        postgres, locked_s = self.platform.postgres, self.platform.tuning.index.sweep_locked_s
        lock = lock_name(postgres, Lock.SWEEP)
        while self._kept():
            try:
                with postgres.session() as session:
                    if try_to_hold(session, lock):
                        self._sweep(session)
            except StoreUnavailable as error:
                logger.warning("the sweep rests for %.0f s: %s", _AFTER_AN_ERROR_S, error)
                self._rest(_AFTER_AN_ERROR_S)
            else:
                self._rest(min(locked_s, max(0.0, self._until - time.monotonic())))

    def _sweep(self, session: Connection) -> None:
        types, tuning = self.platform.settings.entity_types, self.platform.tuning.index
        due = {name: 0.0 for name in types if types[name].source is not None}
        while due and self._kept():
            entity_type = min(due, key=lambda name: due[name])
            wait_s = due[entity_type] - time.monotonic()
            if wait_s > 0:
                self._rest(min(wait_s, tuning.sweep_locked_s))
                continue
            began = time.monotonic()
            try:
                sweep_slice(self.platform, session, entity_type)
                cost_s = time.monotonic() - began
                costs = _pass_costs(session, self.platform, entity_type, PassCounts(cost_s=cost_s))
                due[entity_type] = time.monotonic() + pause_s(
                    cost_s, costs, entity_type, least_s=tuning.sweep_least_pause_s
                )
            except (StoreUnavailable, StoreRefused) as error:
                if session.broken:
                    raise
                logger.warning("the sweep of %s rests for %.0f s: %s", entity_type, _AFTER_AN_ERROR_S, error)
                due[entity_type] = time.monotonic() + _AFTER_AN_ERROR_S


def as_dict(swept: SweepPass) -> dict[str, Any]:
    """A pass as the JSON of `status` has it."""
    return {
        **asdict(swept.counts),
        "age_s": round(swept.age_s, 1),
        "indexed_within_s": swept.within_s,
        "deleted_within_s": swept.deleted_within_s,
    }
