"""The job `plan`: what a full sync would do now and what it would cost; a run of it changes nothing."""

import dagster as dg
from pydantic import Field

from mcp_assets.defs.keys import PLAN_JOB
from mcp_assets.defs.resources import PlatformResource
from mcp_assets.entities.refs import partition_key
from mcp_assets.setting_errors import SettingsError
from mcp_assets.sync.views.plan import Plan, make_plan, model_named, partitions_named


class PlanConfig(dg.Config):
    """Which full sync is planned; without any config, that of everything."""

    types: list[str] = Field(default=[], description="Only these entity types.")
    partitions: list[str] = Field(default=[], description="Only these partitions, such as task-02.")
    model: str = Field(default="", description="Another embedding model than that of the settings.")
    dimension: int = Field(default=0, description="With model: the length of its vectors, if it is not known.")
    force: bool = Field(default=False, description="A sync that embeds unchanged texts again, too.")


def build_plan_job() -> dg.JobDefinition:
    """The plan as the metadata of a run."""

    @dg.op(name="make_plan")
    def make(context: dg.OpExecutionContext, config: PlanConfig, platform: PlatformResource) -> None:
        opened = platform.get()
        types = opened.settings.entity_types
        if unknown := [name for name in config.types if name not in types]:
            raise dg.Failure(f"no entity type {unknown[0]!r}: one of {', '.join(types)}", allow_retries=False)
        try:
            chosen = partitions_named(opened.settings, config.types or list(types), config.partitions)
            profile = model_named(config.model, config.dimension or None) if config.model else None
        except (ValueError, SettingsError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        plan = make_plan(opened, chosen, force=config.force, profile=profile)
        context.add_output_metadata(_metadata(plan, opened.settings.shards))

    @dg.job(
        name=PLAN_JOB,
        executor_def=dg.in_process_executor,
        description="Say what a full sync would do now: rows, texts, tokens, money, minutes. It changes nothing.",
    )
    def job() -> None:
        make()

    return job


def _metadata(plan: Plan, shards: int) -> dict[str, dg.MetadataValue]:
    total = plan.total()
    names = ("embed", "update", "delete", "link", "unchanged", "refused")
    found: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(getattr(total, name)) for name in names}
    for model in plan.models:
        at = f"{model.model}/{model.dimension}"
        found[f"{at}/texts"] = dg.MetadataValue.int(model.texts)
        found[f"{at}/distinct_texts"] = dg.MetadataValue.int(model.distinct_texts)
        found[f"{at}/tokens"] = dg.MetadataValue.int(model.tokens)
        if model.usd is not None:
            found[f"{at}/usd"] = dg.MetadataValue.float(model.usd)
        if model.seconds is not None:
            found[f"{at}/minutes"] = dg.MetadataValue.float(round(model.seconds / 60, 1))
    if plan.builds:
        found["collections_to_build"] = dg.MetadataValue.text(", ".join(plan.builds))
    if plan.held_back:
        found["held_back"] = dg.MetadataValue.text("; ".join(plan.held_back))
    found["by_partition"] = dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "partition": partition_key(part.entity_type, part.shard, shards),
                    **{name: getattr(part, name) for name in names},
                }
            )
            for part in plan.partitions
        ]
    )
    return found
