"""Sensors: wait on the stream inside the tick, and ask for a drain of each entity type that has pending work."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from dagster_warm_launcher import PROMPT_TAG
from mcp_assets.defs.backfills import follow_full_syncs
from mcp_assets.defs.jobs import RequestKind, RequestsConfig
from mcp_assets.defs.keys import (
    DRAIN_TAG,
    EDGES,
    EMBEDDINGS,
    ENTITIES,
    FULL_SYNC_TAG,
    INDEX_JOB,
    REASON_TAG,
    RELATE_JOB,
    REQUESTS_JOB,
    REQUESTS_TAG,
)
from mcp_assets.defs.partitions import whole_type
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.events import MessageKind
from mcp_assets.platform import Platform
from mcp_assets.retrying import retrying
from mcp_assets.settings import Settings
from mcp_assets.sync.feed.publisher import publish_changes
from mcp_assets.sync.inbox.announce import answer_relinked
from mcp_assets.sync.inbox.drain_lock import heartbeats
from mcp_assets.sync.inbox.drain_requests import (
    DRAIN_FAILURES_COUNTED,
    FAILURES_COUNTED,
    DrainRun,
    EndedRun,
    drain_due,
    full_sync_due,
    overdue,
    pending_types,
    undrained,
    wanted_full_syncs,
)
from mcp_assets.sync.inbox.intake import IntakeReport, intake
from mcp_assets.sync.index.embedding_costs import spent_budget
from mcp_assets.sync.index.event_rechecks import Rechecks
from mcp_assets.sync.index.provider_outage import let_through
from mcp_assets.sync.index.store_outage import QdrantProbe
from mcp_assets.sync.index.sweep import Sweeper
from mcp_assets.sync.link.marks import oldest_link_s
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.dead_letters import announce_dead_letters
from mcp_assets.sync.requests.sync_requests import drain_name, pending_requests

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

# How long one wait for messages may take before the inbox is read again, for work that came another way.
_LOOK_EVERY_S = 2.0

# How long a tick waits for one more message of a burst: much longer than messages of a burst lie apart.
_STRAGGLERS_S = 0.05

# Bounds the time of gathering, because otherwise an endless sequence of events would delay their run for ever.
_GATHERING_S = 0.5

# No run still works on marks this old, even if Dagster shows one as unfinished.
_FORGOTTEN_S = 300.0


def waits_in_its_tick(settings: Settings) -> str:
    """Why a tick of these sensors is so long."""
    return (
        f"A tick lasts up to {settings.sensor_tick_s:g} s (MCP_ASSETS_SENSOR_TICK_S), because it waits for messages: "
        "what comes is taken in at once, and not at the next tick. So a long tick means that there was nothing to do. "
        "What a tick took in and asked for stands in its cursor, and why a run was asked for in the tags of the run."
    )


def build_vector_index_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that takes in events and asks for runs that index them. It is on by default."""

    @dg.sensor(
        name="vector_index_sensor",
        job_name=INDEX_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in messages from NATS. Asks for a drain of each entity type with waiting events, and for a "
        f"full sync of each type that lost events. {waits_in_its_tick(settings)}",
    )
    def vector_index_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
        return tick(platform.get(), context.instance, _requests)

    return vector_index_sensor


def build_relationship_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks for runs that re-link entities, on request or because a linker left marks behind."""

    @dg.sensor(
        name="relationship_sensor",
        job_name=RELATE_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in messages from NATS. Asks for a run where requests to link entities again wait, or where "
        f"entities are left unlinked by a run that died. {waits_in_its_tick(settings)}",
    )
    def relationship_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
        return tick(platform.get(), context.instance, _relate_requests)

    return relationship_sensor


def tick(
    platform: Platform,
    instance: dg.DagsterInstance,
    look: Callable[[Platform, dg.DagsterInstance], list[dg.RunRequest]],
) -> dg.SensorResult:
    """Take in messages, and the rechecks that are due, until `look` finds runs to ask for, or the tick is over."""
    settings = platform.settings
    deadline = time.monotonic() + settings.sensor_tick_s
    rechecks, sweeper = platform.companion(Rechecks), platform.companion(Sweeper)
    taken = IntakeReport()
    while True:
        sweeper.keep()
        retrying(settings)(rechecks.take_due)
        requests = look(platform, instance)
        if requests:
            # Beside runs, Dagster shows no text of a tick but its cursor, of which it shows few words in a list.
            return dg.SensorResult(run_requests=requests, cursor=f"{_taken(taken)}; runs: {_asked(requests)}")
        left = deadline - time.monotonic()
        if left <= 0:
            return dg.SensorResult(skip_reason=_skip_reason(platform, taken), cursor=_taken(taken))
        wait_s = min(_LOOK_EVERY_S, left)
        gathered_at = None
        while True:
            news = retrying(settings)(intake, platform, wait_s=wait_s)
            # A stream that could not be read for a moment, and is read again, is not worth a word.
            taken = replace(taken, unread=()) + news
            now = time.monotonic()
            gathered_at = gathered_at or now + _GATHERING_S
            if news.more and news.accepted:
                # There are more messages than one read returns. The drains take in the rest, and need not wait for it.
                break
            if now >= deadline or not (news.more or (news.accepted and now < gathered_at)):
                break
            # Events come in bursts, so the messages that follow at once are taken in before a drain is asked for.
            wait_s = _STRAGGLERS_S


def _taken(report: IntakeReport) -> str:
    """What a tick has taken in, in words."""
    messages = report.accepted + report.rejected
    if not messages:
        return "no message taken in"
    words = f"{messages} message{'s' if messages > 1 else ''} taken in"
    if report.rejected:
        words += f", {report.rejected} of them unreadable (see `mcp-assets dlq list`)"
    return f"{words}; {report.gap}" if report.gap else words


def _asked(requests: Sequence[dg.RunRequest]) -> str:
    """For which types, or kinds of requests, runs are asked for."""
    kinds = {DRAIN_TAG: "{}", FULL_SYNC_TAG: "full sync of {}", REQUESTS_TAG: "{} requests"}
    return ", ".join(
        words.format(request.tags[tag]) for request in requests for tag, words in kinds.items() if tag in request.tags
    )


def _skip_reason(platform: Platform, taken: IntakeReport) -> str:
    silence = platform.companion(QdrantProbe).silence()
    spent = spent_budget(platform)
    waits = f"no run is asked for until Qdrant answers: {silence}" if silence else "nothing waits for a run"
    budget = [spent.sentence] if spent is not None else []
    return "; ".join([_taken(taken), waits, *budget, *(f"not read: stream {reason}" for reason in taken.unread)])


def _relate_requests(platform: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """A drain of each type whose requests no run drains, and one drain for marks that no run has processed in time."""
    waiting = pending_types(platform, MessageKind.RELATE)
    what = "requests to link entities of {} again wait"
    if not waiting:
        age_s = oldest_link_s(platform) or 0.0
        if age_s > _FORGOTTEN_S or (age_s > platform.tuning.defs.marks_left_s and not _linking(platform, instance)):
            waiting = dict.fromkeys(list(platform.settings.entity_types)[:1], age_s)
            what = "changed entities of any type are left unlinked"
    return [
        _request(
            platform.settings,
            entity_type,
            {DRAIN_TAG: entity_type},
            f"{what.format(entity_type)}, the oldest for {waiting[entity_type]:.1f} s",
        )
        for entity_type in _undrained(platform, instance, waiting)
    ]


def _requests(platform: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """A full sync of each type that lost events, a drain of each type with waiting events.

    Both of one type may run at once, so that the type's events do not wait for a full sync that fails again and again.
    """
    # Drains first: while the provider refuses, one run is let through as a try. A full sync may fail before it asks.
    waiting = pending_types(platform, MessageKind.ENTITY)
    drained = _undrained(platform, instance, waiting)
    settings = platform.settings
    lost = wanted_full_syncs(platform)
    if settings.partitions_a_run and lost:
        _ask_for_lost(platform, lost)
        lost = {}
    synced = _due_full_syncs(platform, instance, lost)
    return [
        *(
            _request(settings, name, {FULL_SYNC_TAG: name}, f"events of {name} were lost: {lost[name]}")
            for name in synced
        ),
        *(
            _request(settings, name, {DRAIN_TAG: name}, f"events of {name} wait, the oldest for {waiting[name]:.1f} s")
            for name in drained
        ),
    ]


def _ask_for_lost(platform: Platform, lost: Collection[str]) -> None:
    """Ask for a full sync of each type of `lost`, for several runs: `sync_sensor` starts and follows it."""
    under_way = {name for sync in full_sync_requests.unfinished(platform) for name in sync.entity_types}
    due = [
        name
        for name in lost
        if name not in under_way
        and full_sync_due(
            full_sync_requests.ended(platform, full_sync_requests.LOST_EVENTS, name, FAILURES_COUNTED),
            platform.tuning.inbox,
        )
    ]
    for name in _allowed(platform, due):
        full_sync_requests.ask_unless_under_way(platform, [name], full_sync_requests.LOST_EVENTS)


def _due_full_syncs(platform: Platform, instance: dg.DagsterInstance, lost: Collection[str]) -> list[str]:
    """Those of `lost` that have no full sync under way, except those whose last full syncs have just failed."""
    if not lost or spent_budget(platform) is not None:
        # A full sync that is under way pauses, so that another one would do no more.
        return []
    syncing = {run.entity_type for run in unfinished_runs(instance, FULL_SYNC_TAG)}
    left = [entity_type for entity_type in lost if entity_type not in syncing]
    return _allowed(
        platform,
        [
            name
            for name in left
            if full_sync_due(_ended(instance, FULL_SYNC_TAG, name, FAILURES_COUNTED), platform.tuning.inbox)
        ],
    )


def _ended(instance: dg.DagsterInstance, tag: str, entity_type: str, limit: int) -> list[EndedRun]:
    """The last `limit` finished runs that were asked for with `tag` for the type, the newest first."""
    now = datetime.now(UTC)
    records = instance.get_run_records(dg.RunsFilter(tags={tag: entity_type}, statuses=FINISHED_STATUSES), limit=limit)
    return [
        EndedRun(
            record.dagster_run.status is not DagsterRunStatus.SUCCESS,
            (now - record.update_timestamp.replace(tzinfo=UTC)).total_seconds(),
        )
        for record in records
    ]


def _allowed(platform: Platform, entity_types: Sequence[str]) -> list[str]:
    """Those of `entity_types` that a run may be asked for now: none while Qdrant is silent, one if the provider was."""
    if not entity_types or platform.companion(QdrantProbe).silence() is not None:
        return []
    return let_through(platform, entity_types)


def _undrained(platform: Platform, instance: dg.DagsterInstance, waiting: Mapping[str, float]) -> list[str]:
    """Those of `waiting` (type -> seconds) that need a run, because no run drains them or is about to."""
    if not waiting:
        return []
    seen, tuning = heartbeats(platform), platform.tuning.inbox
    left = overdue(waiting, seen, platform.settings.entity_types, tuning)
    free = undrained(left, unfinished_runs(instance, DRAIN_TAG), seen, tuning) if left else []
    return _allowed(
        platform,
        [name for name in free if drain_due(_ended(instance, DRAIN_TAG, name, DRAIN_FAILURES_COUNTED), tuning)],
    )


def _linking(platform: Platform, instance: dg.DagsterInstance) -> bool:
    """Whether there is an unfinished run that links or will link after it has embedded, or a full sync that ends so."""
    if any(sync.started for sync in full_sync_requests.unfinished(platform)):
        return True
    runs = instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED))
    return any(EDGES in (run.asset_selection or ()) for run in runs)


def unfinished_runs(instance: dg.DagsterInstance, tag: str) -> Sequence[DrainRun]:
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
    now = datetime.now(UTC)
    return [
        DrainRun(
            entity_type=record.dagster_run.tags[tag],
            run_id=record.dagster_run.run_id,
            queued=record.dagster_run.status is DagsterRunStatus.QUEUED,
            changed_s_ago=(now - record.update_timestamp.replace(tzinfo=UTC)).total_seconds(),
        )
        for record in records
        if tag in record.dagster_run.tags
    ]


def _request(settings: Settings, entity_type: str, tags: Mapping[str, str], reason: str) -> dg.RunRequest:
    first, last = whole_type(settings, entity_type)
    return dg.RunRequest(
        tags={
            **tags,
            REASON_TAG: reason,
            PROMPT_TAG: "true",
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        },
        asset_selection=[ENTITIES, EMBEDDINGS, EDGES],
        asset_check_keys=[],
    )


def build_sync_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that asks for runs that answer sync and validate requests. It is on by default."""

    @dg.sensor(
        name="sync_sensor",
        job_name=REQUESTS_JOB,
        minimum_interval_seconds=1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes in messages from NATS. Asks for runs that answer sync and validate requests, and starts and "
        f"follows full syncs. {waits_in_its_tick(settings)}",
    )
    def sync_sensor(context: dg.SensorEvaluationContext, platform: PlatformResource) -> dg.SensorResult:
        repository = context.repository_def
        if repository is None:
            raise dg.DagsterInvariantViolationError("sync_sensor needs the repository that contains it")
        graph = repository.asset_graph

        followed: list[str] = []

        def look(opened: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
            full_sync_requests.sensor_lives(opened)
            followed.extend(follow_full_syncs(opened, instance, graph))
            answer_relinked(opened)
            announce_dead_letters(opened)
            publish_changes(opened)
            return _request_runs(opened, instance)

        done = tick(platform.get(), context.instance, look)
        if not followed:
            return done
        words = "; ".join(followed)
        return dg.SensorResult(
            run_requests=done.run_requests,
            skip_reason=f"{words}; {done.skip_reason.skip_message}" if done.skip_reason is not None else None,
            cursor=f"{words}; {done.cursor}",
        )

    return sync_sensor


def _request_runs(platform: Platform, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """One run for each kind of request that is due and that no run answers."""
    kinds = {drain_name(kind): kind for kind in pending_requests(platform)}
    if not kinds:
        return []
    free = undrained(kinds, unfinished_runs(instance, REQUESTS_TAG), heartbeats(platform), platform.tuning.inbox)
    return [
        dg.RunRequest(
            run_config=dg.RunConfig(ops={"answer": RequestsConfig(kind=RequestKind(kinds[name]))}),
            tags={REQUESTS_TAG: name, REASON_TAG: f"{kinds[name].value} requests wait", PROMPT_TAG: "true"},
        )
        for name in free
    ]
