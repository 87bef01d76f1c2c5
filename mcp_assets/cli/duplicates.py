"""The command `duplicates`: lists entities that may be copies of each other, and finds copies of a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mcp_assets.cli.connect import connected, types_named
from mcp_assets.cli.console import Exit, Json, print_json, print_rows, say, say_error
from mcp_assets.cli.graph import entity_named

if TYPE_CHECKING:
    from mcp_assets.entities.refs import EntityRef
    from mcp_assets.sync.views.duplicates import DuplicatesFound


def duplicates(
    entity: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Only of this entity: `type:id`, or an id of one type alone.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", "-t", help="Only entities of this type; repeatable.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of what is not written yet.")] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", help="File with the text of what is not written yet.", dir_okay=False, exists=True),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")] = 20,
    json: Json = False,
) -> None:
    """List entities that may be copies of each other. Exits with 1 if there are none.

    With --title or --text, it says what may exist already before it is written.
    """
    from mcp_assets.sync.views.duplicates import duplicates_of_text, stored_duplicates

    is_text = title is not None or text is not None
    if entity is not None and is_text:
        raise typer.BadParameter("give an entity, or --title and --text, but not both")
    content = _read(text) if text is not None else ""
    with connected(reads_only=True) as platform:
        named = types_named(platform, types or ())
        if is_text:
            found = duplicates_of_text(platform, title, content, types=named, limit=limit)
        else:
            ref = entity_named(platform, entity) if entity is not None else None
            found = stored_duplicates(platform, ref, types=named if types else (), limit=limit)
    if json:
        print_json([_as_json(found, place) for place in range(len(found.pairs))])
    elif found.pairs:
        _print(found, is_text=is_text)
    else:
        say_error("no possible duplicates are known: see `mcp-assets status` for what is not linked yet")
    if not found.pairs:
        raise typer.Exit(Exit.FAILED)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"--text: {file} cannot be read as UTF-8: {error}") from error


def _print(found: "DuplicatesFound", *, is_text: bool) -> None:
    def title(ref: "EntityRef | None") -> str:
        return (found.titles.get(ref) or "") if ref is not None else ""

    rows: list[list[object]] = []
    for pair in found.pairs:
        measured = [f"{pair.strength:.3f}", *(_share(one) for one in (pair.shared_words, pair.similarity))]
        ends = [pair.other] if is_text else [pair.one, pair.other]
        rows.append([*measured, *(column for end in ends for column in (end, title(end)))])
    headers = ("strength", "words", "cosine", "entity", "title")
    print_rows(headers if is_text else (*headers, "duplicate", "its title"), rows, ids=("entity", "duplicate"))
    if found.more:
        say(f"{found.more:,} more: raise --limit")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _as_json(found: "DuplicatesFound", place: int) -> dict[str, Any]:
    pair = found.pairs[place]

    def named(ref: "EntityRef | None") -> dict[str, Any] | None:
        if ref is None:
            return None
        return {"entity_type": ref.type, "entity_id": ref.id, "title": found.titles.get(ref)}

    return {
        "entity": named(pair.one),
        "duplicate": named(pair.other),
        "strength": pair.strength,
        "shared_words": pair.shared_words,
        "similarity": pair.similarity,
    }
