"""Commands about a change of model that waits: show both models side by side, approve the new one, or abandon it."""

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Json, err, print_json, print_rows, say, shown

if TYPE_CHECKING:
    from mcp_assets.sync.collections.gates import Gate

model = typer.Typer(name="model", help="A change of model: both models side by side, and the decision about it.")

By = Annotated[str | None, typer.Option("--by", help="Who decides; default: your user name.")]


@model.callback(invoke_without_command=True)
def _show_by_default(context: typer.Context) -> None:
    """A change of model: both models side by side, and the decision about it."""
    if context.invoked_subcommand is None:
        show()


@model.command(epilog="Example: mcp-assets model show --json")
def show(json: Json = False) -> None:
    """Say how far a change of model is, and what both models answer."""
    from mcp_assets.sync.collections.gates import last_gate
    from mcp_assets.sync.collections.model_change import describe_model_change

    with connected(reads_only=True) as platform:
        lines = describe_model_change(platform)
        with platform.postgres.transaction() as connection:
            gate = last_gate(platform, connection)
        margin = platform.settings.model_gate_margin
    if json:
        print_json({"state": lines, "gate": _as_json(gate, margin) if gate is not None else None})
        return
    if gate is not None and gate.outcome == "measured":
        _print_figures(gate)
        _print_samples(gate)
    for line in lines or ["no change of model is under way"]:
        say(line)
    if gate is not None:
        say(gate.result)


@model.command(epilog="Example: mcp-assets model approve --by anna")
def approve(by: By = None, json: Json = False) -> None:
    """Let the new model serve, whatever was measured. The aliases move at once if its collections are complete."""
    from datetime import UTC, datetime

    from mcp_assets.sync.collections.model_change import approve_model_change
    from mcp_assets.sync.index.model_gate import finish_gated_model_change

    with connected() as platform:
        name = approve_model_change(platform, by or _user())
        with err.status("comparing the new collections with the ledger"):
            waits = finish_gated_model_change(platform, datetime.now(UTC))
    if json:
        print_json({"model": name, "moved": waits is None, "waits_because": waits})
    elif waits is None:
        say(f"approved: the aliases lead to the collections of {name}; all entities are linked again by the next run")
    else:
        say(f"approved: the aliases move at the end of the next full sync, because {waits}")


@model.command(epilog="Example: mcp-assets model abandon --yes")
def abandon(
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Give the new model up: its collections are deleted, and those that serve go on to serve."""
    from mcp_assets.sync.collections.model_change import abandon_model_change, collections_being_built

    with connected() as platform:
        built = collections_being_built(platform)
        if not yes:
            typer.confirm(shown(f"Delete {', '.join(built)}?"), abort=True, err=True)
        deleted = abandon_model_change(platform, by or _user())
    if json:
        print_json({"deleted": deleted})
        return
    say(f"abandoned: {', '.join(deleted)} deleted. Set EMBEDDING_MODEL back to the model that serves")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a user without a name.
        return "a user without a name"


def _as_json(gate: "Gate", margin: float) -> dict[str, Any]:
    return {
        "model": gate.model,
        "dimension": gate.dimension,
        "outcome": gate.outcome,
        "reason": gate.reason,
        "figures": gate.figures,
        "samples": gate.samples,
        "measured_at": gate.measured_at and gate.measured_at.isoformat(),
        "decision": gate.decision,
        "decided_by": gate.decided_by,
        "decided_at": gate.decided_at and gate.decided_at.isoformat(),
        "held_because": gate.why_held(margin) if gate.ended_as is None else None,
        "ended_as": gate.ended_as,
    }


def _print_figures(gate: "Gate") -> None:
    old, new = gate.figures["old"], gate.figures["new"]
    rows = []
    for kind in ("all", *old["kinds"]):
        before, after = (side if kind == "all" else side["kinds"][kind] for side in (old, new))
        rows += [
            (kind, before["questions"], name, f"{before[name]:.3f}", f"{after[name]:.3f}")
            for name in ("hit_1", "hit_5", "mrr")
        ]
    print_rows(("questions", "number", "figure", old["model"], new["model"]), rows, title="Both models")


def _print_samples(gate: "Gate") -> None:
    rows = [
        (
            one["question"],
            one["expected"][0] if one["expected"] else "",
            f"{_rank(one['old_rank'])}: {', '.join(one['old'])}",
            f"{_rank(one['new_rank'])}: {', '.join(one['new'])}",
        )
        for one in gate.samples
    ]
    headings = ("question", "expected", gate.figures["old"]["model"], gate.figures["new"]["model"])
    print_rows(headings, rows, title="The questions whose answers differ most: rank of the answer, first results")


def _rank(rank: int | None) -> str:
    return "none" if rank is None else str(rank)
