"""Report of the censuses: one row a partition and kind of drift, as a table of pandas, for a file."""

from pathlib import Path

import pandas as pd

from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.drift import DriftKind
from mcp_assets.sync.consistency.stored_censuses import drift_counts, last_censuses

FORMATS = (".csv", ".parquet")
"""The suffixes of a file that the report can be written to: one for people, one for programs."""


def report_table(platform: Platform) -> pd.DataFrame:
    """The last censuses: a row for each partition and kind of drift, also for kinds that were not found (count 0).

    `recall`: of the partition's similarity lists; NaN: not measured, because all searches are exact.
    """
    censuses = last_censuses(platform)
    counts = drift_counts(platform, [last.id for last in censuses])
    rows = [
        (
            last.entity_type,
            last.slots[0],
            last.slots[1],
            last.collection,
            last.deep,
            last.ended_at,
            last.checked,
            last.points,
            last.edges,
            last.recall.share if last.recall else None,
            kind.value,
            kind.severity.value,
            counts[last.id][kind],
        )
        for last in censuses
        for kind in DriftKind
    ]
    columns = ["entity_type", "first_slot", "end_slot", "collection", "deep", "ended_at", "checked", "points", "edges"]
    frame = pd.DataFrame.from_records(rows, columns=[*columns, "recall", "kind", "severity", "count"])
    texts = dict.fromkeys(("entity_type", "collection", "kind", "severity"), "string")
    return frame.astype({**texts, "recall": "float64"})


def export_report(platform: Platform, path: Path) -> int:
    """Write the table to `path`, whose suffix is one of FORMATS. Returns the number of rows.

    Raises:
        OSError: the file cannot be written.
    """
    table = report_table(platform)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False, engine="pyarrow")
    else:
        table.to_csv(path, index=False)
    return len(table)
