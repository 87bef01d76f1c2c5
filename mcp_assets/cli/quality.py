"""The command `quality`: how good edges and searches are, measured now."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, err, print_json, print_rows, say

if TYPE_CHECKING:
    from mcp_assets.sync.views.quality import EdgeQuality, Quality, SearchQuality, VerdictQuality


def quality(json: Json = False) -> None:
    """Measure how good edges and searches are. Exits with 1 if a figure is below its threshold.

    Searches are measured on your golden file (MCP_ASSETS_GOLDEN_FILE); its questions are embedded.
    """
    from mcp_assets.sync.views.quality import measure_quality

    with connected() as platform, err.status("measuring"):
        measured = measure_quality(platform)
    if json:
        print_json(as_json(measured))
    else:
        show(measured)
    if measured.shortfalls:
        raise typer.Exit(Exit.FAILED)


def as_json(measured: "Quality") -> dict[str, Any]:
    """What was measured, for programs."""
    return {
        "figures": measured.figures(),
        "misses": [asdict(one) for one in measured.search.misses] if measured.search is not None else [],
        "shortfalls": list(measured.shortfalls),
    }


def show(measured: "Quality") -> None:
    """Print tables of edges and of missed questions, and sentences."""
    if measured.edges.links:
        rows = [
            (rule.value if rule is not None else "both", one.edges, f"{one.recall:.1%}", f"{one.precision:.1%}")
            for rule, one in measured.edges.of_rules.items()
        ]
        print_rows(
            ("rule", "edges", "recall", "precision"), rows, title=f"Edges against {measured.edges.links} explicit links"
        )
    if measured.search is not None and measured.search.misses:
        print_rows(
            ("query", "expected", "rank", "first"),
            [(one.query, one.expected, one.rank or "none", one.first) for one in measured.search.misses],
            ids=("expected", "first"),
            title="Golden questions without an answer among the first five",
        )
    for line in (*_of_edges(measured.edges), *_of_verdicts(measured.verdicts), *_of_search(measured.search)):
        say(line)
    for line in measured.shortfalls:
        say(f"too low: {line}")


def _of_edges(edges: "EdgeQuality") -> list[str]:
    if not edges.links:
        return ["edges: no entity refers to another, so that there is nothing to compare edges with"]
    both = edges.of_rules[None]
    return [
        f"edges: semantic and topical edges find {both.recall:.1%} of {edges.links} explicit links; of {both.edges} "
        f"edges of the linked entities, {both.precision:.1%} are explicit links, too"
    ]


def _of_verdicts(judged: "VerdictQuality") -> list[str]:
    if not judged.accepted + judged.rejected:
        return []
    recall = f"; the rules still make {judged.recall:.1%} of the accepted" if judged.accepted else ""
    total = judged.accepted + judged.rejected
    return [f"verdicts: of {total} edges that were judged, {judged.precision:.1%} were accepted{recall}"]


def _of_search(found: "SearchQuality | None") -> list[str]:
    if found is None:
        return ["searches: not measured, because there is no golden file (MCP_ASSETS_GOLDEN_FILE)"]
    lines = []
    one = found.figures
    if one.questions:
        lines.append(
            f"searches: of {one.questions} golden questions, {one.hit_1:.1%} have an answer as the first result, "
            f"{one.hit_5:.1%} among the first five; mean reciprocal rank {one.mrr:.3f}"
        )
    if found.absent:
        lines.append(f"searches: {found.absent} golden questions were not asked: no entity that answers them is there")
    if found.left_out:
        lines.append(f"searches: {found.left_out} golden questions were not asked, because there are more than enough")
    return lines
