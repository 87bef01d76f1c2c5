"""Commands about relationships: the neighbourhood of an entity, and the graph as a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mcp_assets.cli.console import Exit, out, print_json, say_error
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import EdgeType
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, load_settings
from mcp_assets.sync.views.graph import Format, exists, find_by_id
from mcp_assets.sync.views.graph import related as related_edges

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Types = Annotated[list[EdgeType] | None, typer.Option("--type", "-t", help="Only edges of this type; repeatable.")]

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
    platform = Platform(load_settings(), reads_only=True)
    try:
        ref = _named(platform, entity)
        edges, titles = related_edges(platform, ref, types=[one.value for one in types or ()], depth=depth)
    finally:
        platform.close()
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
        table = Table("depth", "strength", "type", "", "entity", "title", "because", show_edge=False)
        for edge in edges:
            outgoing = edge.source == ref or (edge.target != ref)
            other = edge.target if outgoing else edge.source
            shown = str(other) if ref in (edge.source, edge.target) else f"{edge.source} → {edge.target}"
            strength = "" if edge.strength is None else f"{edge.strength:.3f}"
            table.add_row(
                str(edge.depth), strength, edge.edge_type, "→" if outgoing else "←", escape(shown),
                escape(titles.get(other) or ""), escape(_because(edge.metadata)),
            )  # fmt: skip
        out.print(f"[bold]{escape(str(ref))}[/] {escape(titles.get(ref) or '')}", highlight=False)
        out.print(table if edges else "no edges: see `mcp-assets status` for what is not linked yet")
    if not edges:
        raise typer.Exit(Exit.FAILED)


def _because(metadata: Mapping[str, Any]) -> str:
    """The evidence of an edge in a few words."""
    context, shared = metadata.get("context"), metadata.get("shared")
    if isinstance(context, str) and context:
        return context
    return ", ".join(map(str, shared)) if isinstance(shared, list) else ""


@graph.command("export")
def export_graph(
    format_: Annotated[Format, typer.Option("--format", "-f", help="What to write.")] = Format.HTML,
    types: Types = None,
    min_strength: Annotated[float, typer.Option(min=0, max=1, help="Only edges of this strength or more.")] = 0.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file; default graph.FORMAT.")] = None,
    json: Json = False,
) -> None:
    """Write all edges to a file: graphml, csv, parquet, or html, a page with a picture to explore."""
    # pandas, igraph and plotly take a second to load, and no other command needs them.
    from mcp_assets.sync.views.export import export

    path = output or Path(f"graph.{format_.value}")
    platform = Platform(load_settings(), reads_only=True)
    try:
        count = export(platform, format_, path, types=[one.value for one in types or ()], min_strength=min_strength)
    except OSError as error:
        say_error(f"{path} cannot be written: {error.strerror or error}")
        raise typer.Exit(Exit.FAILED) from error
    finally:
        platform.close()
    if json:
        print_json({"file": str(path), "edges": count})
    else:
        out.print(f"{count} edges are in {path}", highlight=False)


def _named(platform: Platform, text: str) -> EntityRef:
    """The entity that `text` names; ends the command if there is none, or several."""
    name, colon, entity_id = text.partition(":")
    entity_type = _type_named(platform.settings, name) if colon else None
    if entity_type is not None:
        ref = EntityRef(entity_type, entity_id)
        if exists(platform, ref):
            return ref
    found = find_by_id(platform, text)
    if len(found) == 1:
        return found[0]
    if found:
        raise typer.BadParameter(f"several entities have the id {text}: {', '.join(map(str, found))}")
    say_error(f"no living entity is known by the name {text}: see `mcp-assets search`")
    raise typer.Exit(Exit.FAILED)


def _type_named(settings: Settings, name: str) -> str | None:
    for entity_type in settings.entity_types.values():
        if name == entity_type.name or name in entity_type.aliases:
            return entity_type.name
    return None
