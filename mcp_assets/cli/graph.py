"""Commands about relationships: the neighbourhood of an entity, and the graph as a file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, out, print_json, print_rows, say, say_error, shown

if TYPE_CHECKING:
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.platform import Platform
    from mcp_assets.sync.link.verdicts import GivenVerdict
    from mcp_assets.sync.views.explanations import Explanation
    from mcp_assets.sync.views.graph import Related

Types = Annotated[
    list[str] | None,
    typer.Option("--type", "-t", help="Only edges of this type, such as semantic_similarity; repeatable."),
]

graph = typer.Typer(name="graph", help="The graph of relationships as a whole.", no_args_is_help=True)


def related(
    entity: Annotated[
        str, typer.Argument(metavar="ID", help="An entity: `type:id`, or an id that one type alone has.")
    ],
    types: Types = None,
    depth: Annotated[int, typer.Option("--depth", "-d", min=1, max=5, help="How many edges away.")] = 1,
    why: Annotated[
        bool, typer.Option("--why", help="Show the whole evidence: words and place, tags with weights, both scores.")
    ] = False,
    json: Json = False,
) -> None:
    """Show an entity's edges, both ways, and those of its neighbours. Exits with 1 if it has none."""
    from mcp_assets.sync.views.explanations import explain
    from mcp_assets.sync.views.graph import related as related_edges

    edge_types = edge_types_named(types)
    with connected(reads_only=True) as platform:
        ref = entity_named(platform, entity)
        edges, titles = related_edges(platform, ref, types=edge_types, depth=depth)
        explanations, missing = explain(platform, edges) if why else ([], None)
    if json:
        print_json(
            {
                "entity": {"entity_type": ref.type, "entity_id": ref.id, "title": titles.get(ref)},
                "edges": [
                    {
                        "source": {"entity_type": edge.source.type, "entity_id": edge.source.id},
                        "target": {"entity_type": edge.target.type, "entity_id": edge.target.id},
                        "type": edge.edge_type,
                        "strength": edge.strength,
                        "depth": edge.depth,
                        "origin": edge.origin,
                        "metadata": edge.metadata,
                        **({"why": explanations[number].as_dict()} if why else {}),
                    }
                    for number, edge in enumerate(edges)
                ],
                "entities": [
                    {"entity_type": other.type, "entity_id": other.id, "title": title}
                    for other, title in sorted(titles.items())
                ],
            }
        )
    else:
        if out.is_terminal:
            out.print(Text.assemble((shown(ref), "bold"), " ", shown(titles.get(ref) or "")), soft_wrap=True)
        if why:
            for edge, explanation in zip(edges, explanations, strict=True):
                _print_why(edge, explanation, titles)
        elif rows := _rows(ref, edges, titles):
            print_rows(("depth", "strength", "type", "", "entity", "title", "because"), rows, ids=("entity",))
    if missing is not None:
        say_error(f"the cosines are missing: {missing}")
    if not edges:
        if not json:
            say_error("no edges: see `mcp-assets status` for what is not linked yet")
        raise typer.Exit(Exit.FAILED)


def _rows(ref: "EntityRef", edges: "Iterable[Related]", titles: "Mapping[EntityRef, str | None]") -> list[list[object]]:
    """The rows of the table of edges around `ref`."""
    from mcp_assets.sync.views.evidence import evidence_of

    rows: list[list[object]] = []
    for edge in edges:
        outgoing = edge.source == ref or (edge.target != ref)
        other = edge.target if outgoing else edge.source
        named = other if ref in (edge.source, edge.target) else f"{edge.source} → {edge.target}"
        strength = "" if edge.strength is None else f"{edge.strength:.3f}"
        title, because = titles.get(other) or "", evidence_of(edge.metadata).words
        rows.append([edge.depth, strength, edge.edge_type, "→" if outgoing else "←", named, title, because])
    return rows


def _print_why(edge: "Related", why: "Explanation", titles: "Mapping[EntityRef, str | None]") -> None:
    """One edge with its whole evidence, some lines."""
    ends = (
        Text.assemble((shown(ref), "bold"), " ", shown(titles.get(ref) or "")) for ref in (edge.source, edge.target)
    )
    strength = "" if edge.strength is None else f"{edge.strength:.3f}"
    out.print(Text(" → ").join(ends), Text(f"{edge.edge_type} {strength}", style="cyan"), soft_wrap=True)
    scores = {"cosine": why.cosine, "shared tags": why.relevance}
    lines = {
        "rule": f"{why.rule}{', kept because it was accepted' if why.kept else ''}",
        "words": why.words if why.place is not None else "",
        "place": str(why.place or ""),
        "tags": ", ".join(f"{one.tag} ({one.weight:.2f})" for one in why.tags),
        "scores": ", ".join(f"{name} {score:.3f}" for name, score in scores.items() if score is not None),
        "verdict": _said(why.verdict) if why.verdict is not None else "",
    }
    for name, line in lines.items():
        if line:
            out.print(Text.assemble(f"    {name:8}", shown(line)), soft_wrap=True)


def _said(given: "GivenVerdict") -> str:
    note = f": {given.note}" if given.note else ""
    return f"{given.verdict.decision} by {given.by}, {given.at:%Y-%m-%d %H:%M}{note}"


@graph.command("export", epilog="Example: mcp-assets graph export --format html --min-strength 0.6")
def export_graph(
    format_: Annotated[
        Literal["html", "graphml", "csv", "parquet"], typer.Option("--format", "-f", help="What to write.")
    ] = "html",
    types: Types = None,
    min_strength: Annotated[float, typer.Option(min=0, max=1, help="Only edges of this strength or more.")] = 0.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; default graph.FORMAT.")] = None,
    json: Json = False,
) -> None:
    """Write all edges to a file: graphml, csv, parquet, or html, a page to explore the graph in."""
    from mcp_assets.sync.views.export import export
    from mcp_assets.sync.views.graph import Format

    path = output or Path(f"graph.{format_}")
    edge_types = edge_types_named(types)
    try:
        with connected(reads_only=True) as platform:
            written = export(platform, Format(format_), path, types=edge_types, min_strength=min_strength)
    except OSError as error:
        say_error(f"{path} cannot be written: {error.strerror or error}")
        raise typer.Exit(Exit.FAILED) from error
    if json:
        changed = {"changed_values": written.changed_values} if written.changed_values else {}
        print_json({"file": str(path), "edges": written.edges, **changed})
    else:
        say(f"{written.edges} edges are in {path}")
        if written.changed_values:
            say(
                f"{written.changed_values} values hold characters that XML forbids; each of these is U+FFFD in the file"
            )


def entity_named(platform: "Platform", text: str) -> "EntityRef":
    """The entity that `text` names; ends the command if there is none, or several."""
    from mcp_assets.sync.views.graph import entities_named

    found = entities_named(platform, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise typer.BadParameter(f"several entities have the id {text}: {', '.join(map(str, found))}")
    say_error(f"no living entity is known by the name {text}: see `mcp-assets search`")
    raise typer.Exit(Exit.FAILED)


def edge_types_named(named: list[str] | None) -> list[str]:
    """The edge types that were named, all if none was.

    Raises:
        typer.BadParameter: one of them does not exist.
    """
    from mcp_assets.graph import EdgeType

    known = [edge_type.value for edge_type in EdgeType]
    for name in named or ():
        if name not in known:
            raise typer.BadParameter(f"no edge type {name!r}: one of {', '.join(known)}")
    return list(named or ())
