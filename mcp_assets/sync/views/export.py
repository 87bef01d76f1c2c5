"""Export: the graph as a file: GraphML, CSV, Parquet, or one HTML page with an interactive picture."""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path

import igraph
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mcp_assets.platform import Platform
from mcp_assets.sync.views.graph import ExportedEdge, Format, exported
from mcp_assets.sync.views.html_page import html_page_of

_COLUMNS = list(ExportedEdge.__slots__)
"""The columns of the file, in order."""

_CATEGORIES = ("source_type", "target_type", "relationship_type", "origin")
"""Columns with few different values: stored once each, they take a fraction of the memory and of the file."""

_WORD = pa.dictionary(pa.int32(), pa.string())
_PARQUET = pa.schema(
    [(name, _WORD if name in _CATEGORIES else pa.float32() if name == "strength" else pa.string()) for name in _COLUMNS]
)


def export(
    platform: Platform, format_: Format, path: Path, *, types: Collection[str] = (), min_strength: float = 0.0
) -> int:
    """Write the edges of `types` (all by default) from `min_strength` on to `path`. Returns how many there are.

    Raises:
        OSError: the file cannot be written.
        StoreUnavailable, StoreRefused: the table of edges cannot be read.
    """
    edges = exported(platform, types=types, min_strength=min_strength)
    rows_at_once = platform.tuning.views.export_rows_at_once
    match format_:
        case Format.CSV:
            return _write_csv(edges, path, rows_at_once)
        case Format.PARQUET:
            return _write_parquet(edges, path, rows_at_once)
        case Format.GRAPHML:
            with path.open("w"):  # raises OSError if the path cannot be written; igraph would raise an error of its own
                pass
            graph = graph_of(edge_table(edges))
            graph.write_graphml(str(path))
        case Format.HTML:
            graph = graph_of(edge_table(edges))
            path.write_text(html_page_of(graph), encoding="utf-8")
    return int(graph.ecount())


def _write_csv(edges: Iterator[ExportedEdge], path: Path, rows_at_once: int) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        for part in _parts(edges, rows_at_once):
            part.to_csv(file, index=False, header=not count)
            count += len(part)
        if not count:
            edge_table([]).to_csv(file, index=False)
    return count


def _write_parquet(edges: Iterator[ExportedEdge], path: Path, rows_at_once: int) -> int:
    count = 0
    with path.open("wb") as file, pq.ParquetWriter(file, _PARQUET) as writer:
        for part in _parts(edges, rows_at_once):
            writer.write_table(pa.Table.from_pandas(part, schema=_PARQUET, preserve_index=False))
            count += len(part)
    return count


def _parts(edges: Iterator[ExportedEdge], rows_at_once: int) -> Iterator[pd.DataFrame]:
    """Tables of at most `rows_at_once` edges, so that memory does not grow with the file."""
    while part := list(islice(edges, rows_at_once)):
        yield edge_table(part)


def edge_table(edges: Iterable[ExportedEdge]) -> pd.DataFrame:
    """One row an edge, each column of its type; metadata as JSON text."""
    rows = [
        (
            *(getattr(edge, name) for name in _COLUMNS[:6]),
            json.dumps(edge.metadata, ensure_ascii=False),
            edge.origin,
            edge.source_title,
            edge.target_title,
        )
        for edge in edges
    ]
    frame = pd.DataFrame.from_records(rows, columns=_COLUMNS)
    texts = {name: "string" for name in _COLUMNS if name != "strength"}
    return frame.astype({**texts, "strength": "float32"}).astype(dict.fromkeys(_CATEGORIES, "category"))


def graph_of(edges: pd.DataFrame) -> igraph.Graph:
    """The directed graph of `edges`: vertices `type:id` with title and type, edges with type, strength and origin."""
    ends = []
    for end in ("source", "target"):
        named = edges[[f"{end}_type", f"{end}_id", f"{end}_title"]].astype("string").fillna("")
        named.columns = pd.Index(["entity_type", "entity_id", "title"])
        ends.append(named)
    names = [end["entity_type"] + ":" + end["entity_id"] for end in ends]
    vertices = pd.concat([end.assign(name=name) for end, name in zip(ends, names, strict=True)])
    vertices = vertices.drop_duplicates("name")[["name", "entity_type", "entity_id", "title"]]
    links = pd.DataFrame(
        {
            "source": names[0],
            "target": names[1],
            "type": edges["relationship_type"].astype("string"),
            "strength": edges["strength"].fillna(0).round(4),
            "origin": edges["origin"].astype("string").fillna(""),
        }
    )
    return igraph.Graph.DataFrame(links, directed=True, vertices=vertices, use_vids=False)
