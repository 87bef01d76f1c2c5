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
    json: Json = False,
) -> None:
    """Show an entity's edges, both ways, and those of its neighbours. Exits with 1 if it has none."""
    from mcp_assets.sync.views.graph import related as related_edges

    edge_types = _edge_types(types)
    with connected(reads_only=True) as platform:
        ref = _named(platform, entity)
        edges, titles = related_edges(platform, ref, types=edge_types, depth=depth)
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
                    }
                    for edge in edges
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
        if rows := _rows(ref, edges, titles):
            print_rows(("depth", "strength", "type", "", "entity", "title", "because"), rows, ids=("entity",))
        else:
            say_error("no edges: see `mcp-assets status` for what is not linked yet")
    if not edges:
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
    edge_types = _edge_types(types)
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


def _named(platform: "Platform", text: str) -> "EntityRef":
    """The entity that `text` names; ends the command if there is none, or several."""
    from mcp_assets.sync.views.graph import entities_named

    found = entities_named(platform, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise typer.BadParameter(f"several entities have the id {text}: {', '.join(map(str, found))}")
    say_error(f"no living entity is known by the name {text}: see `mcp-assets search`")
    raise typer.Exit(Exit.FAILED)


def _edge_types(named: list[str] | None) -> list[str]:
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
