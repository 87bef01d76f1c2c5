"""Metadata: the figures, tables and plots that a materialization shows in the UI."""

from collections.abc import Mapping, Sequence

import dagster as dg

from mcp_assets.graph import EdgeType
from mcp_assets.sync.consistency.check_outcome import CheckOutcome
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.stored_censuses import Census
from mcp_assets.sync.index.batch_report import Counts
from mcp_assets.sync.link.counts import LinkCounts

CHANGES = frozenset({"changed", "deleted", "embedded", "payloads_updated", "added", "removed"})
"""Figures of materializations that count changes: if all are 0, the run has left the partition as it was."""


def ledger_metadata(counts: Counts) -> Mapping[str, int | float]:
    """Of `entities`, what a run did in a partition: numbers, so that Dagster plots them over time."""
    changed = counts.embedded + counts.updated + counts.empty
    return {
        "scanned": counts.scanned,
        "changed": changed,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "failed": counts.failed,
    }


def embeddings_metadata(
    counts: Counts, seconds: float, calls: int | None = None, usd_per_million_tokens: float | None = None
) -> Mapping[str, int | float]:
    """Of `embeddings`, what a run did; `seconds`: time in which `counts.texts` were embedded and written.

    `calls`: requests that the provider answered; None: the model is local. `usd_per_million_tokens`: None: not known.
    Calls and tokens have the names that
    Dagster's integration of OpenAI gives them, so that Dagster's Insights adds them up.
    """
    entries: dict[str, int | float] = {
        "scanned": counts.scanned,
        "embedded": counts.embedded,
        "texts": counts.texts,
        "payloads_updated": counts.updated,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "failed": counts.failed,
        "texts_per_s": round(counts.texts / seconds, 1) if seconds > 0 else 0.0,
    }
    if calls is not None:
        entries["openai.calls"] = calls
    if counts.tokens is not None:
        entries["openai.total_tokens"] = entries["openai.prompt_tokens"] = counts.tokens
        if usd_per_million_tokens is not None:
            entries["cost_dollars"] = round(counts.tokens * usd_per_million_tokens / 1_000_000, 6)
    return entries


def edges_metadata(
    counts: LinkCounts, strengths: Mapping[EdgeType, Sequence[int]] | None
) -> Mapping[str, dg.MetadataValue]:
    """Of `relationship_edges`: what changed, by type of edge, the strongest new edges, and strengths as a plot.

    `strengths`: of all edges of the partition. None where reading them all would cost more than the work that is
    reported; then the plot shows the edges that were added or changed.
    """
    entries: dict[str, dg.MetadataValue] = {}
    plotted = counts.strengths if strengths is None else strengths
    if plotted:
        entries["strengths_of_changes" if strengths is None else "strengths"] = strengths_table(plotted)
    if counts.strongest:
        entries["strongest_new_edges"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "source": str(edge.source),
                        "target": str(edge.target),
                        "type": edge.type.value,
                        "strength": edge.strength,
                        "rule": str(edge.metadata.get("rule", "")),
                    }
                )
                for edge in counts.strongest
            ]
        )
    if strengths is not None:
        entries["dagster/partition_row_count"] = dg.MetadataValue.int(sum(map(sum, strengths.values())))
        entries |= {
            f"edges/{edge_type}": dg.MetadataValue.int(sum(strengths[edge_type])) for edge_type in sorted(strengths)
        }
    entries["relinked"] = dg.MetadataValue.int(counts.relinked)
    entries["lists_in_blocks"] = dg.MetadataValue.int(counts.lists_in_blocks)
    entries["lists_asked"] = dg.MetadataValue.int(counts.lists_asked)
    if counts.index_wait:
        entries["index_wait"] = dg.MetadataValue.text(counts.index_wait)
    changes = {"added": counts.added, "changed": counts.changed, "removed": counts.removed}
    entries |= {name: dg.MetadataValue.int(by_type.total()) for name, by_type in changes.items()}
    for name, by_type in changes.items():
        entries |= {f"{name}/{edge_type}": dg.MetadataValue.int(by_type[edge_type]) for edge_type in sorted(by_type)}
    return entries


_BARS = "▁▂▃▄▅▆▇█"


def strengths_table(strengths: Mapping[EdgeType, Sequence[int]]) -> dg.MetadataValue:
    """A plot of the edges by strength: for each type a row of bars, one a bin from 0 to 1; a dot is an empty bin.

    Markdown of less than a thousand characters, because the UI hides anything longer, as any picture is, behind a link.
    """
    rows = ["| edge type | edges | strength 0 to 1 |", "|---|--:|---|"]
    for edge_type in EdgeType:
        bins = strengths.get(edge_type)
        if bins is not None and any(bins):
            # No break inside the name, which would make each row two lines high.
            name = edge_type.value.replace("_", "\N{NO-BREAK SPACE}")
            rows.append(f"| {name} | {sum(bins)} | `{_bars(bins)}` |")
    return dg.MetadataValue.md("\n".join(rows))


def _bars(bins: Sequence[int]) -> str:
    most = max(bins)
    return "".join(_BARS[(count * len(_BARS) - 1) // most] if count else "·" for count in bins)


OFFENDERS_SHOWN = 20
"""Rows of a table of drift: enough to see a pattern. `mcp-assets validate` reports all counts."""


def census_metadata(census: Census) -> Mapping[str, dg.MetadataValue]:
    """Of `consistency_census`: how much of each kind of drift, as numbers to plot, and some of it.

    `recall`: of the similarity lists of a sample of `recall_lists`; absent where all searches are exact.
    """
    entries: dict[str, dg.MetadataValue] = {
        "checked": dg.MetadataValue.int(census.checked),
        "points": dg.MetadataValue.int(census.points),
        "edges": dg.MetadataValue.int(census.edges),
        "live_by_events": dg.MetadataValue.int(census.by_events),
        "deep": dg.MetadataValue.bool(census.deep),
        "seconds": dg.MetadataValue.float(round(census.seconds, 3)),
        "drift": dg.MetadataValue.int(census.counts.total()),
        **{f"drift/{kind}": dg.MetadataValue.int(census.counts[kind]) for kind in DriftKind},
    }
    if census.recall is not None and census.recall.share is not None:
        entries["recall"] = dg.MetadataValue.float(round(census.recall.share, 4))
        entries["recall_lists"] = dg.MetadataValue.int(census.recall.lists)
    if census.examples:
        entries["offenders"] = drift_table(census.examples)
    return entries


def drift_table(drift: Sequence[Drift]) -> dg.MetadataValue:
    """At most OFFENDERS_SHOWN of `drift`, some of each kind."""
    kinds: dict[DriftKind, list[Drift]] = {}
    for one in drift:
        kinds.setdefault(one.kind, []).append(one)
    each = max(1, OFFENDERS_SHOWN // max(len(kinds), 1))
    shown = [one for found in kinds.values() for one in found[:each]][:OFFENDERS_SHOWN]
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"drift": one.kind.value, "entity": str(one.ref or one.subject), "detail": one.detail})
            for one in shown
        ]
    )


def finding_metadata(finding: CheckOutcome) -> Mapping[str, dg.MetadataValue]:
    """Of a check: the count, its figures, the offenders, and what to do."""
    entries: dict[str, dg.MetadataValue] = {"count": dg.MetadataValue.int(finding.count)}
    for name, figure in finding.figures.items():
        entries[name] = dg.MetadataValue.int(figure) if isinstance(figure, int) else dg.MetadataValue.float(figure)
    if finding.rows:
        entries["offenders"] = dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in finding.rows])
    if finding.advice:
        entries["what_to_do"] = dg.MetadataValue.text(finding.advice)
    return entries
