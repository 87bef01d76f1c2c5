"""Checks: the asset checks, about drift, dead letters, intake and provider; a store that does not answer fails a check.

A check about drift reads the last census of each partition. If there is none that is recent and of the collection in
use, the check takes one first. Its summary names the age of the oldest census.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused, StoreUnavailable
from mcp_assets.sync.collections.gates import HOW_TO_DECIDE, awaited_decision, last_gate
from mcp_assets.sync.collections.journal import types_of_alias
from mcp_assets.sync.collections.model_change import built_for_settings
from mcp_assets.sync.collections.serving import mismatch, serving_and_foreign
from mcp_assets.sync.consistency.check_outcome import CheckOutcome
from mcp_assets.sync.consistency.drift import OF_LINKS, DriftKind, Severity
from mcp_assets.sync.consistency.recall_check import recall_suffices
from mcp_assets.sync.consistency.recent_censuses import recent_censuses
from mcp_assets.sync.consistency.removed_types import removed_types
from mcp_assets.sync.consistency.stored_censuses import EXAMPLES, drift_counts, drift_examples
from mcp_assets.sync.inbox.stream_limits import stream_backlog
from mcp_assets.sync.inbox.table_counts import dead_letter_counts, inbox_counts, ledger_counts, wanted_full_syncs
from mcp_assets.sync.index.mass_delete import is_mass, sentence
from mcp_assets.sync.index.provider_outage import provider_outages
from mcp_assets.sync.index.sweep import last_passes

INTAKE_LAG_S = 300.0
"""Seconds that a message may wait in stream or inbox: a run takes seconds to start, so that minutes mean a fault."""

_ERROR_SHOWN = 300
"""Characters of an error that a check shows: `mcp-assets dlq show` shows all of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check by name."""

    description: str
    evaluate: Callable[[Platform], CheckOutcome]


def evaluate(platform: Platform, name: str) -> CheckOutcome:
    """Run the check `name`. A store that cannot be read fails it, with the reason."""
    try:
        return retrying(platform.settings)(CHECKS[name].evaluate, platform)
    except (StoreUnavailable, StoreRefused, CollectionMismatch) as error:
        return CheckOutcome(
            False,
            f"it could not be checked: {error}",
            advice="Remove the cause that the reason names, and check again.",
        )


def _drift(*kinds: DriftKind) -> Callable[[Platform], CheckOutcome]:
    def evaluate_drift(platform: Platform) -> CheckOutcome:
        censuses = recent_censuses(platform)
        ids = [last.id for last in censuses]
        counts = drift_counts(platform, ids)
        by_kind = {kind: sum(found[kind] for found in counts.values()) for kind in kinds}
        count = sum(by_kind.values())
        rows = [
            {
                "kind": drift.kind.value,
                "entity": str(drift.ref) if drift.ref else "",
                "subject": drift.subject,
                "detail": drift.detail,
            }
            for drift in (drift_examples(platform, ids, kinds, EXAMPLES) if count else ())
        ]
        oldest = max(last.age_s for last in censuses)
        depth = "all of them deep" if all(last.deep for last in censuses) else "texts and edges by a sample"
        counted = ", ".join(f"{number} {kind.value}" for kind, number in by_kind.items() if number) or "nothing found"
        advice = " ".join(kind.advice for kind, number in by_kind.items() if number)
        return CheckOutcome(
            passed=count == 0,
            summary=f"{counted}; by censuses of which the oldest is {oldest:.0f} s old, {depth}",
            count=count,
            severity=_worst([kind for kind in kinds if by_kind[kind]] or kinds),
            rows=rows,
            advice=advice,
            figures={
                "checked": sum(last.checked for last in censuses),
                "census_age_s": round(oldest, 1),
                **{kind.value: number for kind, number in by_kind.items()},
            },
        )

    return evaluate_drift


def _worst(kinds: Sequence[DriftKind]) -> Severity:
    return Severity.ERROR if any(kind.severity is Severity.ERROR for kind in kinds) else Severity.WARNING


def _ledger(platform: Platform) -> CheckOutcome:
    with platform.postgres.transaction() as connection:
        for entity_type in platform.settings.entity_types:
            reader = platform.source(entity_type)
            if reader is not None:
                # If the source table is absent now, the check has to fail, however recent the census is.
                reader.read(connection, ["0"])
    kinds = (
        DriftKind.LEDGER_BEHIND,
        DriftKind.VANISHED_ROW,
        DriftKind.UNUSABLE_ROW,
        DriftKind.LYING_LEDGER,
        DriftKind.DAMAGED_ROW,
    )
    finding = _drift(*kinds)(platform)
    censuses = recent_censuses(platform)
    counts = drift_counts(platform, [last.id for last in censuses])
    gone: Counter[str] = Counter()
    checked: Counter[str] = Counter()
    for last in censuses:
        gone[last.entity_type] += counts[last.id][DriftKind.VANISHED_ROW]
        checked[last.entity_type] += last.checked
    share = platform.settings.mass_delete_share
    refusals = [
        sentence("entities", entity_type, going, checked[entity_type], share)
        for entity_type, going in gone.items()
        if is_mass(going, checked[entity_type], share)
    ]
    if platform.settings.sweep:
        left = [f"the sweep of {swept.entity_type}: {line}" for swept in last_passes(platform) for line in swept.left]
        finding.summary = "; ".join([*left, finding.summary])
    if refusals:
        finding.summary = f"{refusals[0]}; {finding.summary}"
    return finding


def _collections(platform: Platform) -> CheckOutcome:
    with platform.postgres.transaction() as connection:
        living = {row.entity_type: row.living for row in ledger_counts(platform, connection)}
    types = platform.settings.entity_types
    profile = platform.embedder.profile
    building = built_for_settings(platform)
    wrong: list[dict[str, str]] = []
    try:
        serving, foreign = serving_and_foreign(platform)
    except CollectionMismatch as error:
        return CheckOutcome(passed=False, summary=str(error), count=1)
    for alias in types.collections():
        sharing = types_of_alias(platform, alias)
        target = serving.get(alias)
        # Its replacement is being built: advice to delete the collection that serves would be wrong.
        if alias in building:
            continue
        if alias in foreign:
            wrong.append({"collection": alias, "detail": str(foreign[alias])})
        elif target is None:
            if any(living.get(name) for name in sharing):
                wrong.append({"collection": alias, "detail": "it is absent, and there are entities: run a full sync"})
        elif (target.profile.name, target.profile.dimension) != (profile.name, profile.dimension):
            wrong.append({"collection": alias, "detail": mismatch(platform, target)})
    summary = f"all are of {profile.name}, {profile.dimension} dimensions"
    if wrong:
        summary = f"{len(wrong)} collections do not hold vectors of {profile.name}, {profile.dimension} dimensions"
    elif building:
        summary = f"{', '.join(sorted(building.values()))} are being built; the collections before them serve meanwhile"
    return CheckOutcome(
        passed=not wrong,
        summary=summary,
        count=len(wrong),
        rows=wrong[:EXAMPLES],
        advice="A full sync makes a collection that is absent, and builds one for a new model." if wrong else "",
    )


@dataclass(frozen=True, slots=True)
class _LetterExample:
    """A dead letter as the check shows it; `entity`: the entity, or else the subject of the message."""

    id: int
    entity: str | None
    stage: str
    error_kind: str
    error: str


_OF_MESSAGES = frozenset({"intake", "request"})
"""Stages of dead letters that are messages: they are not known to leave an entity out of date."""


def _dead_letters(platform: Platform) -> CheckOutcome:
    with platform.postgres.transaction() as connection:
        counts = dead_letter_counts(platform, connection)
        examples = platform.postgres.rows(connection, "dead_letter_examples", _LetterExample, {"limit": EXAMPLES})
    count = sum(row.letters for row in counts)
    return CheckOutcome(
        passed=count == 0,
        # An unreadable message is for its publisher to mend. The newest state of an entity is missing in searches.
        severity=Severity.WARNING if all(row.stage in _OF_MESSAGES for row in counts) else Severity.ERROR,
        summary=", ".join(f"{row.letters} {row.name}" for row in counts) or "none",
        count=count,
        rows=[
            {
                "id": str(letter.id),
                "entity": letter.entity or "",
                "stage": letter.stage,
                "kind": letter.error_kind,
                "error": letter.error[:_ERROR_SHOWN],
            }
            for letter in examples
        ],
        advice="Each has its reason: remove the cause and replay it." if count else "",
    )


def _provider(platform: Platform) -> CheckOutcome:
    outages = provider_outages(platform)
    return CheckOutcome(
        passed=not outages,
        summary="; ".join(outage.sentence for outage in outages)
        or "the last texts that were sent to it were embedded, or refused one by one",
        count=len(outages),
        rows=[
            {"model": outage.model, "since": outage.since.isoformat(), "reason": outage.reason} for outage in outages
        ],
        advice="Remove the cause that the reason names; a run started by hand, or `mcp-assets sync`, tries it at once."
        if outages
        else "",
    )


def _model_change(platform: Platform) -> CheckOutcome:
    with platform.postgres.transaction() as connection:
        awaited = awaited_decision(platform, connection)
        last = last_gate(platform, connection)
    if awaited is None:
        summary = "no change of model waits for a decision" + (f"; {last.result}" if last is not None else "")
        return CheckOutcome(True, summary, figures=last.plotted if last is not None else {})
    gate, held = awaited
    return CheckOutcome(
        False, held, 1, Severity.WARNING, rows=gate.sample_rows, advice=HOW_TO_DECIDE, figures=gate.plotted
    )


def _intake(platform: Platform) -> CheckOutcome:
    now = datetime.now(UTC)
    with platform.postgres.transaction() as connection:
        inbox = inbox_counts(platform, connection)
        wanted = [
            row for row in wanted_full_syncs(platform, connection) if row.entity_type in platform.settings.entity_types
        ]
    removed = [one for one in removed_types(platform) if one.messages]
    lag_s = max(((now - row.oldest_at).total_seconds() for row in inbox), default=0.0)
    rows: list[dict[str, str]] = [
        {
            "what": f"{row.kind} {row.entity_type} in the inbox",
            "messages": str(row.messages),
            "since": row.oldest_at.isoformat(),
        }
        for row in inbox
    ]
    streams = [stream_backlog(platform, name) for name in platform.settings.streams]
    unread = 0
    for stream in streams:
        unread += stream.unread or 0
        if stream.oldest_unread_at is not None:
            lag_s = max(lag_s, (now - stream.oldest_unread_at).total_seconds())
            rows.append(
                {
                    "what": f"unread in stream {stream.name}",
                    "messages": str(stream.unread),
                    "since": stream.oldest_unread_at.isoformat(),
                }
            )
    waiting = sum(row.messages for row in inbox)
    lost = "; ".join(f"events of {row.entity_type} were lost ({row.reason})" for row in wanted)
    absent = [stream.absent for stream in streams if stream.absent is not None]
    blind = [f"stream {stream.name}: {reason}" for stream in streams for reason in stream.blind]
    late = lag_s > INTAKE_LAG_S
    broken = bool(late or wanted or absent)
    return CheckOutcome(
        passed=not broken and not blind,
        # If a loss could not be noticed, it need not have happened: a person decides whether to change the stream.
        severity=Severity.ERROR if broken else Severity.WARNING,
        summary=f"{unread} messages unread, {waiting} not applied, the oldest for {lag_s:.0f} s"
        + (f"; {lost}, and a full sync is not through" if wanted else "")
        + "".join(f"; {one.sentence}" for one in removed)
        + "".join(f"; {reason}" for reason in absent)
        + "".join(f"; a loss of messages may go unnoticed on {reason}" for reason in blind),
        count=unread + waiting,
        rows=rows[:EXAMPLES],
        advice=_advice_about_intake(late=late, removed=bool(removed), streams=bool(blind or absent)),
        figures={"unread": unread, "not_applied": waiting, "lag_s": round(max(lag_s, 0.0), 1)},
    )


def _advice_about_intake(*, late: bool, removed: bool, streams: bool) -> str:
    if removed:
        return DriftKind.REMOVED_TYPE.advice
    if late:
        return "Is the Dagster daemon running, and its sensors on? `mcp-assets status` lists what waits."
    return "`mcp-assets doctor` says what each stream's configuration means." if streams else ""


CHECKS: Mapping[str, Check] = {
    "no_missing_vectors": Check("Every living entity has its points.", _drift(DriftKind.MISSING_VECTOR)),
    "no_stale_vectors": Check(
        "Every point is of its entity's newest text, state and model.",
        _drift(DriftKind.STALE_VECTOR, DriftKind.STALE_PAYLOAD, DriftKind.WRONG_MODEL),
    ),
    "no_orphan_vectors": Check(
        "No point is of an entity or a chunk that is not there.",
        _drift(DriftKind.ORPHAN_VECTOR, DriftKind.SURPLUS_CHUNK),
    ),
    "no_duplicate_points": Check("No entity has a second point.", _drift(DriftKind.DUPLICATE_POINT)),
    "vectors_are_valid": Check(
        "Dimension, finite numbers, length 1, and the vector that was written with the payload.",
        _drift(DriftKind.INVALID_VECTOR, DriftKind.SWAPPED_VECTOR),
    ),
    "no_foreign_points": Check("No point was written by another program.", _drift(DriftKind.FOREIGN_POINT)),
    "search_words_match_ledger": Check(
        "Every living entity has the search words of its text; they are cut again for a sample, or by a deep census "
        "for all.",
        _drift(DriftKind.WRONG_WORDS),
    ),
    "collections_match_model": Check("Every collection is made for the embedding model in use.", _collections),
    "model_change_is_decided": Check("No change of model waits for a person to decide.", _model_change),
    "no_orphaned_relationships": Check(
        "Both ends of every edge are living entities; of edges that other programs wrote, a warning.",
        _drift(DriftKind.ORPHANED_EDGE, DriftKind.FOREIGN_EDGE),
    ),
    "no_dangling_references": Check("The entities that a text names exist.", _drift(DriftKind.DANGLING_REFERENCE)),
    "edges_match_rules": Check(
        "The edges of a sample of entities, or by a deep census of all, are those that the rules make.",
        _drift(*sorted(OF_LINKS), DriftKind.UNUSABLE_TABLE, DriftKind.REMOVED_TYPE),
    ),
    "similarity_recall_suffices": Check(
        "Where a collection holds more points than MCP_ASSETS_EXACT_UP_TO, the similarity edges of a sample hold at "
        "least MCP_ASSETS_LEAST_RECALL of the exact neighbours.",
        recall_suffices,
    ),
    "no_dead_letters": Check("No entity was given up; of messages that were, a warning.", _dead_letters),
    "intake_is_current": Check(
        f"No message waits longer than {INTAKE_LAG_S:.0f} s, none was lost, and a loss would be noticed.", _intake
    ),
    "provider_answers": Check("The embedding provider embeds what it is sent.", _provider),
    "ledger_matches_source": Check("The ledger says what the source tables say.", _ledger),
}
"""By name, in the order in which they are shown."""
