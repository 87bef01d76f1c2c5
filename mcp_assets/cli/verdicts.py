"""Commands for verdicts: a team accepts or rejects relationships that the rules make."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Json, print_json, print_rows, say, say_error
from mcp_assets.cli.graph import edge_types_named, entity_named

if TYPE_CHECKING:
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.graph import Decision, EdgeType
    from mcp_assets.platform import Platform
    from mcp_assets.sync.link.judging import Judged

Source = Annotated[
    str, typer.Argument(metavar="FROM", help="The entity at which the edge begins: `type:id`, or an id.")
]
Target = Annotated[str, typer.Argument(metavar="TO", help="The entity to which it leads.")]
Type = Annotated[
    str | None,
    typer.Option(
        "--type", "-t", help="The type of the edge, such as semantic_similarity; needed if there are several."
    ),
]
By = Annotated[str | None, typer.Option("--by", help="Who gives the verdict; default the user of the system.")]
Note = Annotated[str | None, typer.Option("--note", help="Why, in your words.")]

verdict = typer.Typer(
    name="verdict", help="Accept or reject relationships; see docs/how-to/verdicts.md.", no_args_is_help=True
)


@verdict.command(epilog="Example: mcp-assets verdict accept task:7 page:gates --type semantic_similarity")
def accept(
    source: Source, target: Target, edge_type: Type = None, by: By = None, note: Note = None, json: Json = False
) -> None:
    """Keep an edge: it stays, even if the rules no longer make it. Exits with 1 if there is no such edge."""
    from mcp_assets.graph import Decision

    _judge(source, target, edge_type, Decision.ACCEPTED, by, note, json)


@verdict.command(epilog='Example: mcp-assets verdict reject task:7 task:9 --note "another gate"')
def reject(
    source: Source, target: Target, edge_type: Type = None, by: By = None, note: Note = None, json: Json = False
) -> None:
    """Take an edge away: it stays away until its texts, words or tags change. Exits with 1 if there is none."""
    from mcp_assets.graph import Decision

    _judge(source, target, edge_type, Decision.REJECTED, by, note, json)


@verdict.command(epilog="Example: mcp-assets verdict withdraw task:7 task:9")
def withdraw(source: Source, target: Target, edge_type: Type = None, json: Json = False) -> None:
    """Take a verdict back: the rules alone decide again. Exits with 1 if there is no such verdict."""
    _judge(source, target, edge_type, None, None, None, json)


@verdict.command("list", epilog="Example: mcp-assets verdict list --decision rejected")
def list_(
    entity: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only verdicts about edges of this entity.")
    ] = None,
    decision: Annotated[Literal["accepted", "rejected"] | None, typer.Option("--decision", help="Only these.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 100,
    json: Json = False,
) -> None:
    """List verdicts, the newest first, with who gave them, and whether they still hold."""
    from mcp_assets.graph import Decision
    from mcp_assets.sync.views.verdicts import list_verdicts

    with connected(reads_only=True) as platform:
        ref = _ref(platform, entity) if entity is not None else None
        wanted = Decision(decision) if decision is not None else None
        found = list_verdicts(platform, entity=ref, decision=wanted, limit=limit + 1)
    verdicts = found[:limit]
    if json:
        print_json([one.as_dict() for one in verdicts])
        return
    if not verdicts:
        say("no verdicts")
    else:
        print_rows(
            ("verdict", "from", "", "to", "type", "by", "at", "state", "note"),
            [
                (
                    one.decision.value,
                    one.source,
                    "↔" if one.both else "→",
                    one.target,
                    one.edge_type.value,
                    one.by,
                    f"{one.at:%Y-%m-%d %H:%M}",
                    one.state,
                    one.note or "",
                )
                for one in verdicts
            ],
            ids=("from", "to"),
        )
    if len(found) > limit:
        say_error(f"there are more than {limit}: see --limit")


def _judge(
    source: str,
    target: str,
    edge_type: str | None,
    decision: "Decision | None",
    by: str | None,
    note: str | None,
    json: bool,
) -> None:
    from mcp_assets.sync.link.judging import judge

    wanted = _edge_type(edge_type)
    with connected() as platform:
        one, other = _ref(platform, source), _ref(platform, target)
        judged = judge(platform, one, other, edge_type=wanted, decision=decision, by=by or _user(), note=note)
    if json:
        print_json(
            {
                "verdict": decision.value if decision is not None else None,
                "type": judged.edge_type.value,
                "edges": [{"source": str(key.source), "target": str(key.target)} for key in judged.keys],
                "linked": judged.linked,
            }
        )
    else:
        say(_sentence(judged, decision))


def _ref(platform: "Platform", written: str) -> "EntityRef":
    """The entity of `type:id`, living or not, so that a verdict about one that is gone can be found; or of an id."""
    from mcp_assets.entities.refs import EntityRef

    name, colon, entity_id = written.partition(":")
    entity_type = platform.type_names.canonical(name) if colon and entity_id else None
    return EntityRef(entity_type, entity_id) if entity_type is not None else entity_named(platform, written)


def _sentence(judged: "Judged", decision: "Decision | None") -> str:
    source, target, edge_type = judged.keys[0]
    arrow = "↔" if len(judged.keys) > 1 else "→"
    edge = f"{source} {arrow} {target} ({edge_type})"
    done = f"{edge} is {decision.value}" if decision is not None else f"the verdict about {edge} is withdrawn"
    return done if judged.linked else f"{done}; the edges follow with the next run that links"


def _edge_type(name: str | None) -> "EdgeType | None":
    from mcp_assets.graph import EdgeType

    return EdgeType(edge_types_named([name])[0]) if name is not None else None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except OSError:
        # A container may run as a user id that has no name.
        import os

        return f"user {os.getuid()}"
