"""The command `search`: finds entities by words and by meaning."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Exit, Json, print_json, print_rows, say_error

if TYPE_CHECKING:
    from mcp_assets.sync.search.search import SearchResult


class By(StrEnum):
    BOTH = "both"
    WORDS = "words"
    MEANING = "meaning"


def search(
    query: Annotated[str, typer.Argument(help='What to look for; "quoted" words have to stand together.')],
    types: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only this entity type; repeatable.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="Only with such metadata: status=open, due<2026-12-01; repeatable."),
    ] = None,
    by: Annotated[By, typer.Option("--by", help="Search by words, by meaning, or by both.")] = By.BOTH,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 10,
    offset: Annotated[int, typer.Option("--offset", min=0, max=1000, help="Leave out so many: the next page.")] = 0,
    min_score: Annotated[
        float, typer.Option("--min-score", min=-1, max=1, help="Only entities of this score or more.")
    ] = -1.0,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each ranking added to a score.")] = False,
    json: Json = False,
) -> None:
    """Search all entities by words and by meaning. Exits with 1 if nothing is found.

    While Qdrant or the embedding provider is away, words alone are searched. If they find nothing, it exits with 3.
    """
    from mcp_assets.entities.conditions import ConditionError, conditions_of
    from mcp_assets.sync.search.search import search as search_entities

    if not query.strip():
        raise typer.BadParameter("the question is empty: say in plain words what to look for")
    try:
        conditions = conditions_of(where or ())
    except ConditionError as error:
        raise typer.BadParameter(str(error)) from error
    with connected(reads_only=True) as platform:
        answer = search_entities(
            platform,
            query,
            types=types_named(platform, types or ()),
            where=conditions,
            limit=limit,
            offset=offset,
            min_score=min_score,
            by=by.value,
        )
    for missing in answer.missing:
        say_error(missing)
    found = answer.results
    if json:
        print_json([_as_json(hit, explain=explain) for hit in found])
    elif found:
        headers = ("score", "entity", "title", "excerpt", *(("why",) if explain else ()))
        rows = [
            (f"{hit.score:.3f}", hit.ref, hit.title or "", hit.passage.excerpt, *((_why(hit),) if explain else ()))
            for hit in found
        ]
        print_rows(headers, rows, ids=("entity",))
    elif not answer.words_alone:
        say_error("nothing found: is anything indexed? See `mcp-assets status`")
    if not found:
        raise typer.Exit(Exit.UNAVAILABLE if answer.words_alone else Exit.FAILED)


def _as_json(hit: "SearchResult", *, explain: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "entity_type": hit.ref.type,
        "entity_id": hit.ref.id,
        "score": round(hit.score, 4),
        "cosine": None if hit.cosine is None else round(hit.cosine, 4),
        "title": hit.title,
        "excerpt": hit.passage.excerpt,
        "highlights": hit.passage.marks,
        "place": hit.passage.place,
        "chunk": hit.chunk,
    }
    if explain:
        shown["is_name"] = hit.is_name
        shown["why"] = [
            {"ranking": one.ranking, "rank": one.rank, "score": round(one.score, 4), "added": round(one.added, 4)}
            for one in hit.contributions
        ]
    return shown


def _why(hit: "SearchResult") -> str:
    """What each ranking added, as a person reads it."""
    parts = ["the question is its id or title"] if hit.is_name else []
    parts += [f"{one.ranking}: {one.added:.3f}, place {one.rank}" for one in hit.contributions]
    return "; ".join(parts)
