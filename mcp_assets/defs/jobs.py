"""Jobs: what can be launched by name. Each job with one op is made by `_job_of`."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from enum import Enum

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from pydantic import Field

from mcp_assets.defs.asset_checks import every_check
from mcp_assets.defs.keys import (
    CENSUS,
    CENSUS_JOB,
    CHECKS_JOB,
    CLEAN_UP_JOB,
    DEAD_LETTERS_JOB,
    EDGES,
    EMBEDDINGS,
    ENTITIES,
    INDEX_JOB,
    RECONCILE_JOB,
    RELATE_JOB,
    REPAIR_JOB,
    REQUESTS_JOB,
    TAG_WEIGHTS_JOB,
    key_of,
)
from mcp_assets.defs.metadata import drift_table
from mcp_assets.defs.old_runs import delete_observations, delete_runs
from mcp_assets.defs.progress_lines import ProgressLines
from mcp_assets.defs.request_report import RequestReport, answer_line
from mcp_assets.defs.resources import PlatformResource, embedding_until_interrupted
from mcp_assets.events import MessageKind
from mcp_assets.settings import Settings
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.feed.edition import forget_old_changes
from mcp_assets.sync.inbox import outbox
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.tag_weights import refresh_tag_weights
from mcp_assets.sync.requests import full_sync_requests
from mcp_assets.sync.requests.dead_letters import Selection, purge, replay
from mcp_assets.sync.requests.sync_requests import answer_requests
from mcp_assets.sync.views.sources import sources_of


def _indexed_assets() -> dg.AssetSelection:
    """The assets of the index without their checks, which judge by a census: the schedule takes one each hour."""
    return dg.AssetSelection.assets(ENTITIES, EMBEDDINGS, EDGES).without_checks()


def build_index_job() -> UnresolvedAssetJobDefinition:
    """All three assets over a range of partitions. The sensor asks for it, and a person may launch it."""
    return dg.define_asset_job(
        INDEX_JOB,
        selection=_indexed_assets(),
        executor_def=dg.in_process_executor,
        description="Bring ledger, embeddings and edges of the chosen partitions to what the source of truth says. "
        "Launched by a person it needs partitions: choose them in the launchpad, or launch a backfill.",
    )


def build_relate_job() -> UnresolvedAssetJobDefinition:
    """The same assets, for requests to re-link: `relationship_sensor` asks for it."""
    return dg.define_asset_job(
        RELATE_JOB,
        selection=_indexed_assets(),
        executor_def=dg.in_process_executor,
        description="Re-link the entities that relationship requests name, and all others that are marked. "
        "`relationship_sensor` asks for it; to link by hand, materialize `relationship_edges`.",
    )


def build_tag_weights_job() -> dg.JobDefinition:
    """Counts the weights of all tags again, and relinks the entities that hold a tag whose weight changed."""

    @dg.op(name="count_tags")
    def refresh(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
        opened = platform.get()
        refreshed = refresh_tag_weights(opened)
        total = LinkCounts()
        for report in link_until_done(opened):
            total.add(report.total())
        context.add_output_metadata(
            {
                "tags": refreshed.tags,
                "tags_changed": refreshed.changed,
                "entities_marked": refreshed.marked,
                "edges_added": total.added.total(),
                "edges_changed": total.changed.total(),
                "edges_removed": total.removed.total(),
            }
        )

    return _job_of(
        refresh,
        TAG_WEIGHTS_JOB,
        "Count the holders of each tag again, and relink the entities whose tags have another weight now.",
    )


def build_census_job() -> UnresolvedAssetJobDefinition:
    """The census of a range of partitions, and then the checks."""
    return dg.define_asset_job(
        CENSUS_JOB,
        selection=dg.AssetSelection.assets(CENSUS) | every_check(),
        executor_def=dg.in_process_executor,
        description="Compare the stores of the chosen partitions, of all if none is chosen, and evaluate all checks.",
    )


def build_checks_job() -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        CHECKS_JOB,
        selection=every_check(),
        executor_def=dg.in_process_executor,
        description="All checks by themselves; a census is taken only where the last one is old.",
    )


class RepairConfig(dg.Config):
    """What is repaired, and what may be removed."""

    types: list[str] = Field(default=[], description="Entity types, such as task; all of them if the list is empty.")
    deep: bool = Field(
        default=False, description="Compare every text and edge, not only those of a sample. It takes longer."
    )
    allow_mass_delete: bool = Field(
        default=False,
        description="Delete what is gone from the source tables however much it is. Otherwise it is left, and the run "
        "fails, if it is more than MCP_ASSETS_MASS_DELETE_SHARE of an entity type.",
    )
    foreign: bool = Field(
        default=False, description="Remove points that other programs wrote into the platform's collections, too."
    )
    foreign_edges: bool = Field(
        default=False,
        description="Remove rows of the edge table that other programs wrote and that lack a living end, too.",
    )


def build_repair_job() -> dg.JobDefinition:
    """Census, repair, and a report. The run fails if drift is left, or if a person has to allow so many deletions."""

    @dg.op(name="mend")
    def mend(context: dg.OpExecutionContext, config: RepairConfig, platform: PlatformResource) -> None:
        opened = platform.get()
        types = opened.settings.entity_types
        if unknown := [name for name in config.types if name not in types]:
            raise dg.Failure(f"no entity type {unknown[0]!r}: one of {', '.join(types)}", allow_retries=False)
        lines = ProgressLines(context.log, opened)
        with embedding_until_interrupted(opened):
            report = validate(
                opened,
                on_census=lines.say,
                entity_types=config.types or list(types),
                repair=True,
                deep=config.deep,
                allow_mass_delete=config.allow_mass_delete,
                foreign=config.foreign,
                foreign_edges=config.foreign_edges,
            )
        metadata: dict[str, dg.MetadataValue] = {
            "checked": dg.MetadataValue.int(report.checked),
            "embedded": dg.MetadataValue.int(report.embedded),
            **{f"found/{kind}": dg.MetadataValue.int(count) for kind, count in report.found.items()},
            **{f"mended/{kind}": dg.MetadataValue.int(count) for kind, count in report.mended.items()},
        }
        if report.examples:
            metadata["examples"] = drift_table(report.examples)
        if report.unfinished:
            raise dg.Failure(report.unfinished, metadata=metadata, allow_retries=False)
        context.add_output_metadata(metadata)

    return _job_of(
        mend,
        REPAIR_JOB,
        "Find what is wrong in the stores and repair exactly that. The run fails if drift is left.",
    )


class RequestKind(Enum):
    """The kinds of messages that are requests."""

    SYNC = MessageKind.SYNC
    VALIDATE = MessageKind.VALIDATE


class RequestsConfig(dg.Config):
    """Which kind of requests a run answers."""

    kind: RequestKind = Field(
        default=RequestKind.SYNC,
        description="SYNC: requests of the subject data.sync.request. VALIDATE: of data.validate.request.",
    )


def build_requests_job() -> dg.JobDefinition:
    """Answers the requests that wait in the inbox; `sync_sensor` asks for it."""

    @dg.op(name="answer")
    def work(context: dg.OpExecutionContext, config: RequestsConfig, platform: PlatformResource) -> None:
        report = RequestReport()
        with (
            embedding_until_interrupted(platform.get()) as opened,
            closing(answer_requests(opened, config.kind.value, context.run_id)) as answers,
        ):
            for answer in answers:
                context.log.info(answer_line(answer))
                report.add(answer)
        if report.first_error is not None:
            raise dg.Failure(
                f"{report.failed} of {report.answered} requests failed; the first: {report.first_error}",
                metadata=report.metadata(),
                allow_retries=False,
            )
        context.add_output_metadata(report.metadata())

    return _job_of(work, REQUESTS_JOB, "Answer the sync or validate requests that wait in the inbox.")


class Action(Enum):
    """What the job `dead_letters` does."""

    REPLAY = "replay"
    PURGE = "purge"


class DeadLettersConfig(dg.Config):
    """Filters of dead letters. An empty filter selects all; a purge without any filter needs `everything`."""

    action: Action = Field(
        default=Action.REPLAY, description="REPLAY: process them again. PURGE: delete them, for ever."
    )
    ids: list[int] = Field(default=[], description="Ids, as `mcp-assets dlq list` shows them; empty: any.")
    entity_type: str = Field(default="", description="Entity type, such as task; empty: any.")
    stage: str = Field(
        default="", description="Where they failed: intake, request, apply, embed or upsert; empty: any."
    )
    kind: str = Field(default="", description="Kind of the error, such as input_too_long; empty: any.")
    everything: bool = Field(default=False, description="Confirm that a purge without any filter deletes all of them.")


def build_dead_letters_job() -> dg.JobDefinition:
    """What `mcp-assets dlq replay` and `purge` do."""

    @dg.op(name="replay_or_purge")
    def work(context: dg.OpExecutionContext, config: DeadLettersConfig, platform: PlatformResource) -> None:
        selection = Selection(config.ids or None, config.entity_type or None, config.stage or None, config.kind or None)
        if selection.everything and config.action is Action.PURGE and not config.everything:
            raise dg.Failure("the run names no dead letters: give a filter, or everything: true", allow_retries=False)
        if config.action is Action.PURGE:
            context.add_output_metadata({"purged": purge(platform.get(), selection)})
            return
        done = replay(platform.get(), selection)
        context.add_output_metadata({"accepted": done.accepted, "done": done.done, "failed": done.failed})

    return _job_of(work, DEAD_LETTERS_JOB, "Replay dead letters whose cause is mended, or purge them.")


def build_reconcile_job() -> UnresolvedAssetJobDefinition:
    """All three assets of all partitions. `nightly_reconcile` launches it."""
    return dg.define_asset_job(
        RECONCILE_JOB,
        selection=_indexed_assets(),
        executor_def=dg.in_process_executor,
        description="A full sync of everything: what differs from the source tables is brought up to date.",
    )


def build_clean_up_job(settings: Settings) -> dg.JobDefinition:
    """Deletes finished runs, which Dagster keeps for ever otherwise. Ticks have a retention in dagster.yaml."""

    @dg.op(name="delete_old_runs")
    def work(context: dg.OpExecutionContext, platform: PlatformResource) -> None:
        before = datetime.now(UTC) - timedelta(days=settings.keep_runs_days)
        deleted = delete_runs(context.instance, before)
        observations = delete_observations(context.instance, list(map(key_of, sources_of(settings))), before)
        opened = platform.get()
        forgotten = full_sync_requests.forget_old(opened, settings.keep_runs_days)
        unpublished = outbox.forget_old(opened, settings.results_days)
        changes = forget_old_changes(opened)
        if unpublished:
            context.log.warning(
                f"{unpublished} results could not be published for {settings.results_days:g} days "
                "(MCP_ASSETS_RESULTS_DAYS) and are deleted: the senders of their requests got no answer"
            )
        context.add_output_metadata(
            {
                "runs_deleted": deleted,
                "observations_deleted": observations,
                "full_syncs_forgotten": forgotten,
                "results_forgotten": unpublished,
                "changes_forgotten": changes,
            }
        )

    return _job_of(
        work,
        CLEAN_UP_JOB,
        f"Delete finished runs older than {settings.keep_runs_days:g} days, with their events, and old observations.",
    )


def _job_of(op: dg.OpDefinition, name: str, description: str) -> dg.JobDefinition:
    """A job with that one op, in the process of its run."""

    @dg.job(name=name, executor_def=dg.in_process_executor, description=description)
    def job() -> None:
        op()

    return job
