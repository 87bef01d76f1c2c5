"""The command `plan`: what a full sync would do now and what it would cost. `sync --force` shows the same first."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Json, err, print_json, print_rows, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mcp_assets.platform import Platform
    from mcp_assets.sync.views.plan import ModelPlan, PartitionPlan, Plan

_HEADINGS = ("partition", "embed", "update", "delete", "link", "unchanged", "refused")

_MINUTE_S = 60


def plan(
    types: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only this entity type; repeatable.")] = None,
    partitions: Annotated[
        list[str] | None, typer.Option("--partition", "-p", help="Only this partition, such as task-02; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="For another model than that of the settings.")] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", min=1, help="With --model: the length of its vectors.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="For a sync that embeds unchanged texts again, too.")] = False,
    json: Json = False,
) -> None:
    """Say what a full sync would do now: rows, texts, tokens, money, minutes. It changes nothing.

    A change of mapping or shards is planned by the changed settings: MCP_ASSETS_SHARDS=8 mcp-assets plan.
    """
    from mcp_assets.sync.views.plan import model_named, partitions_named

    if dimension is not None and model is None:
        raise typer.BadParameter("--dimension goes with --model")
    with connected(reads_only=True) as platform:
        named = types_named(platform, types or ())
        try:
            chosen = partitions_named(platform.settings, named, partitions or ())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        profile = model_named(model, dimension) if model is not None else None
        made = make(platform, chosen, force=force, profile=profile)
    if json:
        print_json(as_json(made))
    else:
        show(made)


def make(platform: "Platform", partitions: "Mapping[str, Iterable[int]]", **how: Any) -> "Plan":
    """The plan; a line on the terminal says meanwhile that it is being made."""
    from mcp_assets.sync.views.plan import make_plan

    with err.status("comparing the source tables with what is indexed; nothing is written"):
        return make_plan(platform, partitions, **how)


def show(plan: "Plan") -> None:
    """Print the plan as a table and sentences."""
    from mcp_assets.entities.refs import partition_key

    total = plan.total()
    changing = [part for part in plan.partitions if any(_numbers(part))]
    shards = 1 + max((part.shard for part in plan.partitions), default=0)
    rows = [(partition_key(part.entity_type, part.shard, shards), *_numbers(part)) for part in changing]
    if rows:
        print_rows(_HEADINGS, [*rows, ("all", *_numbers(total))], ids=("partition",), title="A full sync would now")
    else:
        say("a full sync would find nothing to do")
    for line in sentences(plan):
        say(line)


def sentences(plan: "Plan") -> list[str]:
    """What is not in the table, a sentence each."""
    lines = [_model_sentence(model) for model in plan.models]
    if plan.builds:
        lines.append(f"collections that would be made or filled: {', '.join(plan.builds)}")
    lines += [f"held back: {sentence}" for sentence in plan.held_back]
    if plan.total().link:
        lines.append("linking is not part of the minutes; it may mark further entities, which are not counted")
    return lines


def as_json(plan: "Plan") -> dict[str, Any]:
    """The plan for programs."""
    total = asdict(plan.total())
    return {
        "total": {name: total[name] for name in total if name not in ("entity_type", "shard")},
        "partitions": [asdict(part) for part in plan.partitions],
        "models": [asdict(model) for model in plan.models],
        "builds": plan.builds,
        "held_back": plan.held_back,
    }


def _numbers(part: "PartitionPlan") -> tuple[int, ...]:
    return (part.embed, part.update, part.delete, part.link, part.unchanged, part.refused)


def _model_sentence(model: "ModelPlan") -> str:
    distinct = f", {model.distinct_texts:,} of them distinct" if model.texts != model.distinct_texts else ""
    how = (
        "as the provider counted them in late full syncs" if model.tokens_are_measured else "estimated by their length"
    )
    return (
        f"{model.model} with {model.dimension} dimensions: {model.texts:,} texts to embed{distinct}; about "
        f"{model.tokens:,} tokens, {how}; {_price(model)}; {_time(model)}"
    )


def _price(model: "ModelPlan") -> str:
    if model.usd is None:
        return "its price is not known: set EMBEDDING_PRICE"
    return (
        "it costs nothing" if not model.usd else f"about ${model.usd:.2f}" if model.usd >= 0.01 else "less than $0.01"
    )


def _time(model: "ModelPlan") -> str:
    if model.seconds is None or model.texts_per_s is None:
        return "how long is not known, because no full sync with this model was measured yet"
    runs = "the last full sync" if model.runs_measured == 1 else f"the last {model.runs_measured} full syncs"
    if model.seconds < 1:
        length = "less than 1 s"
    elif model.seconds < _MINUTE_S:
        length = f"about {model.seconds:.0f} s"
    else:
        length = f"about {model.seconds / _MINUTE_S:,.0f} min"
    return f"{length} at the {model.texts_per_s:,.0f} texts a second of {runs}"
