"""Pending: counts what waits in streams, inbox and ledger, and dead letters; names the stores that do not answer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import no_writes
from mcp_assets.sync.collections.model_change import describe_model_change
from mcp_assets.sync.inbox.outbox import count_waiting
from mcp_assets.sync.inbox.stream_limits import stream_backlog
from mcp_assets.sync.inbox.table_counts import dead_letter_counts, inbox_counts, ledger_counts, wanted_full_syncs
from mcp_assets.sync.index.embedding_costs import spent_budget
from mcp_assets.sync.index.provider_outage import provider_outages
from mcp_assets.sync.index.store_outage import QdrantProbe
from mcp_assets.sync.index.sweep import SweepPass, as_dict, last_passes


@dataclass(slots=True)
class Pending:
    """The numbers of messages and entities that wait. None: unknown, because the store does not answer."""

    unread: dict[str, int | None] = field(default_factory=dict)
    """Messages of each stream that intake has not read."""
    inbox: dict[str, int] = field(default_factory=dict)
    """Messages in the inbox, by kind and entity type."""
    entities: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By entity type: living entities, and dirty ones, whose present state is not in Qdrant yet."""
    dead_letters: dict[str, int] = field(default_factory=dict)
    unlinked: int = 0
    """Entities that are marked to be linked."""
    rechecks: int = 0
    """Entities that are compared again, because an event may come before its commit. They do not count as pending."""
    sweeps: list[SweepPass] = field(default_factory=list)
    """The last comparison of each source table with the ledger."""
    sweeping: bool = True
    """The sweep is on in the settings."""
    wanted_full_syncs: dict[str, str] = field(default_factory=dict)
    collections: list[str] = field(default_factory=list)
    """Sentences about a change of model that is under way."""
    answers: int = 0
    """Results in the outbox: NATS has not confirmed them yet."""
    provider: list[str] = field(default_factory=list)
    """Sentences about outages of the embedding provider: reason, begin, next try."""
    budget: str | None = None
    """That the embedding budget of today is spent, so that full syncs pause; None: it is not."""
    unavailable: list[str] = field(default_factory=list)
    oldest_at: datetime | None = None
    """When JetStream stored the oldest message that is not applied; None: all are applied, or it is not known."""

    @property
    def behind_s(self) -> float | None:
        """For how many seconds the oldest message waits. 0: all are applied. None: a store does not answer."""
        if self.unavailable:
            return None
        return max(0.0, (datetime.now(UTC) - self.oldest_at).total_seconds()) if self.oldest_at else 0.0

    @property
    def idle(self) -> bool:
        """Everything that was published has been applied."""
        return (
            not self.unavailable
            and all(count == 0 for count in self.unread.values())
            and not self.inbox
            and not self.unlinked
            and not any(dirty for _, dirty in self.entities.values())
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "idle": self.idle,
            "behind_s": self.behind_s,
            "unread": self.unread,
            "inbox": self.inbox,
            "entities": {name: {"living": living, "dirty": dirty} for name, (living, dirty) in self.entities.items()},
            "unlinked": self.unlinked,
            "rechecks": self.rechecks,
            "dead_letters": self.dead_letters,
            "sweep": {swept.entity_type: as_dict(swept) for swept in self.sweeps} if self.sweeping else None,
            "wanted_full_syncs": self.wanted_full_syncs,
            "collections": self.collections,
            "answers": self.answers,
            "provider": self.provider,
            "budget": self.budget,
            "unavailable": self.unavailable,
        }

    def lines(self) -> list[str]:
        """What waits, a sentence each. Entities are in a table of their own, and so is what does not answer."""
        lines = [
            f"stream {name}: {'unknown' if n is None else f'{n} messages unread'}" for name, n in self.unread.items()
        ]
        lines += [f"inbox: {count} {name} messages not applied" for name, count in self.inbox.items()]
        lines += [f"relationships: {self.unlinked} entities to re-link"] if self.unlinked else []
        lines += (
            [f"rechecks: {self.rechecks} entities are compared again, in case their rows are committed late"]
            if self.rechecks
            else []
        )
        lines += self._sweep_lines()
        lines += [f"dead letters: {count} × {name}" for name, count in self.dead_letters.items()]
        lines += [f"full sync of {name} wanted: {why}" for name, why in self.wanted_full_syncs.items()]
        lines += [f"answers: {self.answers} wait in the outbox until NATS takes them"] if self.answers else []
        lines += self.collections
        return lines + self.provider + ([self.budget] if self.budget else [])

    def _sweep_lines(self) -> list[str]:
        if not self.sweeping:
            return ["sweep: off (MCP_ASSETS_SWEEP): a change without any event waits for the nightly full sync"]
        lines = [
            f"sweep of {swept.entity_type}: {swept.counts.rows} rows compared {swept.age_s:.0f} s ago; a change "
            f"without any event is indexed within {swept.within_s} s, a deletion within {swept.deleted_within_s} s"
            + ("; it stands still: do the Dagster daemon and the sensors run?" if swept.stands_still else "")
            for swept in self.sweeps
        ]
        return lines + [f"sweep of {swept.entity_type}: {left}" for swept in self.sweeps for left in swept.left]


def pending(platform: Platform, *, within_s: float = 30.0) -> Pending:
    """Read what waits from PostgreSQL and NATS, and try whether Qdrant answers.

    If PostgreSQL has not answered all queries after `within_s` seconds, it counts as unavailable.
    """
    try:
        found = _answer(partial(_ask_postgres, platform), within_s)
    except StoreUnavailable as error:
        # Without PostgreSQL there are no cursors of streams, and no marks by which the other stores are recognised.
        return Pending(
            unread=dict.fromkeys(platform.settings.streams),
            unavailable=[str(error), *platform.silent_without_postgres().values()],
        )
    silence = platform.companion(QdrantProbe).silence()
    if silence is not None:
        found.unavailable.append(f"{silence}; no run that needs it is asked for meanwhile")
    for name in platform.settings.streams:
        try:
            look = stream_backlog(platform, name)
        except StoreUnavailable as error:
            # NATS does not answer: each further stream would cost another timeout.
            found.unread |= {other: None for other in platform.settings.streams if other not in found.unread}
            found.unavailable.append(str(error))
            break
        except StoreRefused as error:
            found.unread[name] = None
            found.unavailable.append(str(error))
            continue
        found.unread[name] = look.unread if look.absent is None else None
        if look.oldest_unread_at is not None:
            found.oldest_at = min(look.oldest_unread_at, found.oldest_at or look.oldest_unread_at)
        found.unavailable += [look.absent] if look.absent is not None else []
    return found


def _ask_postgres(platform: Platform) -> Pending:
    found = Pending()
    postgres = platform.postgres
    with postgres.transaction() as connection:
        if (reason := no_writes(connection)) is not None:
            found.unavailable.append(reason)
        waiting = inbox_counts(platform, connection)
        found.inbox = {row.name: row.messages for row in waiting}
        found.oldest_at = min((row.oldest_at for row in waiting), default=None)
        found.entities = {row.entity_type: (row.living, row.dirty) for row in ledger_counts(platform, connection)}
        row = connection.execute(postgres.query("count_marked")).fetchone()
        found.unlinked = row[0] if row else 0
        row = connection.execute(postgres.query("count_rechecks")).fetchone()
        found.rechecks = row[0] if row else 0
        found.dead_letters = {row.name: row.letters for row in dead_letter_counts(platform, connection)}
        found.wanted_full_syncs = {row.entity_type: row.reason for row in wanted_full_syncs(platform, connection)}
    found.sweeping = platform.settings.sweep
    found.sweeps = last_passes(platform)
    found.collections += describe_model_change(platform)
    found.answers = count_waiting(platform)
    spent = spent_budget(platform)
    found.budget = spent.sentence if spent is not None else None
    found.provider += [outage.sentence for outage in provider_outages(platform)]
    return found


def _answer(ask: Callable[[], Pending], within_s: float) -> Pending:
    """What `ask` returns or raises; StoreUnavailable if it takes longer. Its thread is a daemon, and is left then."""
    answer: Future[Pending] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001  (raised again by `result`)
            answer.set_exception(error)

    threading.Thread(target=run, name="pending", daemon=True).start()
    try:
        return answer.result(within_s)
    except FutureTimeoutError as error:
        raise StoreUnavailable(
            f"PostgreSQL has not answered within {within_s:.0f} s: it is slow, or a query waits for a lock; look "
            "at its load, its disk and pg_stat_activity"
        ) from error
