"""Commands about consistency: compare the stores with the source of truth, and mend what differs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Exit, Json, err, print_json, print_rows, say, say_error

if TYPE_CHECKING:
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.platform import Platform
    from mcp_assets.sync.consistency.validation import Validation

_EXAMPLES_SHOWN = 20
"""As many as fit a screen; `--json` has all that the report holds."""


def validate(
    repair: Annotated[bool, typer.Option("--repair", help="Mend exactly what is found.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every text, payload and edge, not only a sample.")
    ] = False,
    types: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only this entity type; repeatable.")] = None,
    allow_mass_delete: Annotated[
        bool,
        typer.Option(
            "--allow-mass-delete",
            help="Remove entities whose rows are gone even if they are a large share of an entity type.",
        ),
    ] = False,
    foreign: Annotated[
        bool, typer.Option("--foreign", help="With --repair: remove points that other programs wrote, too.")
    ] = False,
    foreign_edges: Annotated[
        bool,
        typer.Option(
            "--foreign-edges",
            help="With --repair: remove rows of `relationships` that other programs wrote and that lack an end, too.",
        ),
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the report, per partition and kind, to FILE.csv or .parquet.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare source tables, ledger, Qdrant and edges. Exits with 1 if drift is left."""
    from mcp_assets.sync.consistency.validation import validate as validate_stores

    if export is not None and export.suffix not in (".csv", ".parquet"):
        raise typer.BadParameter(f"--export writes .csv or .parquet, not {export.name}")
    with connected() as platform:
        named = types_named(platform, types or ())
        with err.status("comparing the stores" + (" and mending what differs" if repair else "")) as status:
            report = validate_stores(
                platform,
                entity_types=named,
                repair=repair,
                deep=deep,
                allow_mass_delete=allow_mass_delete,
                foreign=foreign,
                foreign_edges=foreign_edges,
                on_census=lambda progress: status.update(progress.line),
            )
        if export is not None:
            _export(platform, export)
    if json:
        print_json(_as_json(report))
    else:
        _show(report, repair=repair)
        if export is not None:
            say(f"the report is in {export}")
    if report.unfinished:
        raise typer.Exit(Exit.FAILED)


def _as_json(report: "Validation") -> dict[str, Any]:
    return {
        "checked": report.checked,
        "found": report.found,
        "mended": report.mended,
        "left": report.left,
        "recall": {name: {"lists": one.lists, "recall": one.share} for name, one in report.recall.items()},
        "live_by_events": report.by_events,
        "live_by_events_examples": [str(ref) for ref in report.by_events_examples],
        "given_up": [str(ref) for ref in report.given_up],
        "embedded": report.embedded,
        "refused": report.refused,
        "examples": [
            {"kind": one.kind, "entity": str(one.ref) if one.ref else None, "detail": one.detail}
            for one in report.examples
        ],
    }


def end(
    entities: Annotated[list[str], typer.Argument(metavar="TYPE:ID...", help="Entities that have no source row.")],
    json: Json = False,
) -> None:
    """Delete entities that live by events alone, as an event that deletes would. Exits with 1 if one is left."""
    from mcp_assets.sync.consistency.end_entities import end_entities

    with connected() as platform:
        ended = end_entities(platform, [_named(platform, text) for text in dict.fromkeys(entities)])
    if json:
        print_json({"ended": [str(ref) for ref in ended.refs], "left": [str(ref) for ref in ended.left]})
    else:
        say(f"{len(ended.refs)} entities are deleted")
    for ref in ended.left:
        say_error(f"{ref} is left: it is not living, or has a source row, which decides")
    if ended.left:
        raise typer.Exit(Exit.FAILED)


def _named(platform: "Platform", text: str) -> "EntityRef":
    from mcp_assets.entities.refs import EntityRef

    name, colon, entity_id = text.partition(":")
    entity_type = platform.type_names.canonical(name) if colon else None
    if entity_type is None or not entity_id:
        raise typer.BadParameter(
            f"{text!r} is no entity: write TYPE:ID, with one of {', '.join(platform.settings.entity_types)}"
        )
    return EntityRef(entity_type, entity_id)


def _export(platform: "Platform", path: Path) -> None:
    from mcp_assets.sync.consistency.report import export_report

    try:
        export_report(platform, path)
    except OSError as error:
        say_error(f"{path} cannot be written: {error.strerror or error}")
        raise typer.Exit(Exit.FAILED) from error


def _show(report: "Validation", *, repair: bool) -> None:
    say(f"{report.checked} entities compared")
    for name, recall in report.recall.items():
        say(f"similarity edges of {name}, recall: {recall}")
    if report.by_events:
        named = ", ".join(map(str, report.by_events_examples[:_EXAMPLES_SHOWN]))
        say(
            f"{report.by_events} entities live by their events alone though their type has a source table ({named}): "
            "if they are gone, `mcp-assets end TYPE:ID` deletes them"
        )
    if not report.found and report.unfinished is None:
        say("nothing differs", style="green")
        return
    if report.found:
        _show_drift(report, repair=repair)
    if repair:
        say(f"{report.embedded} entities were embedded")
    if report.unfinished:
        say_error(report.unfinished)


def _show_drift(report: "Validation", *, repair: bool) -> None:
    from mcp_assets.sync.consistency.drift import DriftKind, Severity

    found = []
    for name, count in report.found.items():
        kind = DriftKind(name)
        marked = Text(name, style="red" if kind.severity is Severity.ERROR else "yellow")
        found.append((marked, count, *([report.mended.get(name, 0)] if repair else []), kind.advice))
    print_rows(("drift", "found", *(["mended"] if repair else []), "what to do"), found, ids=("what to do",))
    print_rows(
        ("drift", "entity", "detail"),
        [(one.kind, one.ref or one.subject, one.detail) for one in report.examples[:_EXAMPLES_SHOWN]],
        ids=("entity", "detail"),
    )
