"""Table: the figures of a side-by-side run as Markdown, and the place of it in a page of the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

CASE_TITLES: Mapping[str, str] = {
    "cold": "cold: empty stores",
    "words": "then the words for search by words",
    "unchanged": "nothing changed",
    "changed": "1 % of the rows changed",
    "deleted": "1 % of the rows deleted",
    "poison": "1 % changed, and one row that the embedder refuses",
    "lost": "2 % of the vectors lost in Qdrant: an ordinary run",
    "mend": "2 % of the vectors lost: the system's own repair",
}

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

NOT_IDLE = "–"
"""Stands for seconds that were measured while the machine did other work: they would mislead."""


def markdown(report: Mapping[str, Any]) -> str:
    """The tables of a report, two for each size; seconds are left out of a report whose machine was busy."""
    parts = [_heading(report)]
    for size, systems in report["sizes"].items():
        parts += [f"### {_size_title(size, systems)}", _costs(systems, idle=report["idle"]), _vectors(systems)]
    return "\n\n".join(parts)


def _heading(report: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{title} {version}" for title, version in report["versions"].items())
    lines = [
        f"Measured on {report['date']} by `{report['command']}`: {versions}.",
        f"Qdrant: {report['qdrant']}. Machine: {report['machine']}.",
    ]
    if not report["idle"]:
        lines.append(
            "The machine did other work meanwhile: CPU seconds hold, and seconds (–) are to be measured on an idle one."
        )
    return "\n".join(lines)


def _size_title(size: str, systems: Mapping[str, Any]) -> str:
    texts = max((cases["cold"]["rows"], cases["cold"]["expected"]) for cases in systems.values() if "cold" in cases)
    rows, vectors = (f"{count:,}" for count in texts)
    name = "The workspace" if size == "workspace" else "Short rows"
    return f"{name}: {rows} rows, {vectors} texts"


def _costs(systems: Mapping[str, Any], *, idle: bool) -> str:
    def cell(figures: Mapping[str, Any]) -> str:
        stores = [figures["postgres_cpu_s"], figures["qdrant_cpu_s"]]
        cpu = " + ".join("?" if used is None else f"{used:.1f}" for used in (figures["cpu_s"], *stores))
        return f"{figures['seconds']:.2f} s ({cpu})" if idle else f"{NOT_IDLE} ({cpu})"

    lines = _rows(systems, "seconds (CPU seconds of process + PostgreSQL + Qdrant)", cell)
    memory = [f"{cases['cold']['peak_rss_mb']:.0f} MB" if "cold" in cases else "" for cases in systems.values()]
    return "\n".join([*lines, _line("peak memory, cold", memory)])


def _vectors(systems: Mapping[str, Any]) -> str:
    def cell(figures: Mapping[str, Any]) -> str:
        wrong = ", ".join(f"{count:,} {name}" for name, count in figures["wrong"].items()) or "all right"
        failed = " (the run failed)" if figures["error"] else ""
        return f"{figures['texts']:,}: {wrong}{failed}"

    return "\n".join(_rows(systems, "texts sent: vectors afterwards", cell))


def _rows(systems: Mapping[str, Any], figure: str, cell: Any) -> list[str]:
    titles = [cases.get("title", name) for name, cases in systems.items()]
    lines = [_line(figure, titles), "|---" * (len(titles) + 1) + "|"]
    for case, title in CASE_TITLES.items():
        cells = [_cell(cases, case, cell) for cases in systems.values()]
        if any(cells):
            lines.append(_line(title, cells))
    return lines


def _cell(cases: Mapping[str, Any], case: str, cell: Any) -> str:
    if case in cases:
        return str(cell(cases[case]))
    return str(cases.get("not_measured", {}).get(case, ""))


def _line(first: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([first, *cells]) + " |"


def in_page(page: str, tables: str) -> str:
    """`page` with `tables` between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the tables: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"
