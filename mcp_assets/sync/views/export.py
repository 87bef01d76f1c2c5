"""Export: the graph as a file: GraphML, CSV, Parquet, or one HTML page to explore it in."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import igraph
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.platform import Platform
from mcp_assets.sync.views.explanations import weights_of_tags
from mcp_assets.sync.views.graph import ExportedEdge, Format, exported
from mcp_assets.sync.views.html_page import html_page_of
from mcp_assets.sync.views.replaced_file import replaced_file

_COLUMNS = list(ExportedEdge.__slots__)
"""The columns of the file, in order."""

_CATEGORIES = ("source_type", "target_type", "relationship_type", "origin")
"""Columns with few different values: stored once each, they take a fraction of the memory and of the file."""

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What is no character of XML 1.0: control characters, lone surrogates, U+FFFE and U+FFFF."""

_GRAPHML_END = b"</graphml>\n"
_WRITE_FAILED = "writing failed; the disk may be full"

_WORD = pa.dictionary(pa.int32(), pa.string())
_PARQUET = pa.schema(
    [(name, _WORD if name in _CATEGORIES else pa.float32() if name == "strength" else pa.string()) for name in _COLUMNS]
)


@dataclass(frozen=True, slots=True)
class Written:
    """What an export wrote: the number of edges, and of values that GraphML could not hold as they are."""

    edges: int
    changed_values: int = 0


def export(
    platform: Platform, format_: Format, path: Path, *, types: Collection[str] = (), min_strength: float = 0.0
) -> Written:
    """Write the edges of `types` (all by default) from `min_strength` on to `path`.

    The file is whole when it appears at `path`. After an error, the file that was there is unchanged.

    Raises:
        OSError: the file cannot be written.
        StoreUnavailable, StoreRefused: the table of edges cannot be read.
    """
    rows_at_once = platform.tuning.views.export_rows_at_once
    with replaced_file(path) as file:
        edges = exported(platform, types=types, min_strength=min_strength)
        match format_:
            case Format.CSV:
                return Written(_write_csv(edges, file, rows_at_once))
            case Format.PARQUET:
                return Written(_write_parquet(edges, file, rows_at_once))
            case Format.GRAPHML:
                return write_graphml(graph_of(edges), file)
            case Format.HTML:
                pattern = platform.settings.entity_url
                page = html_page_of(edges, EntityUrl.of(pattern) if pattern else None, weights_of_tags(platform))
                file.write_text(page.text, encoding="utf-8")
                return Written(page.rows)


def write_graphml(graph: igraph.Graph, path: Path) -> Written:
    """Write `graph` to `path`. Characters that XML 1.0 forbids become U+FFFD, because no reader would take the file.

    Raises:
        OSError: the file cannot be written.
    """
    changed = 0
    for elements in (graph.vs, graph.es):
        for name in elements.attributes():
            values = elements[name]
            allowed = [_FORBIDDEN.sub("\ufffd", one) if isinstance(one, str) else one for one in values]
            count = sum(new != old for new, old in zip(allowed, values, strict=True))
            if count:
                elements[name] = allowed
                changed += count
    try:
        graph.write_graphml(str(path))
    except igraph.InternalError as error:  # it has no number of the operating system's error
        raise OSError(_WRITE_FAILED) from error
    # igraph does not report an error of the last block, which is written when the file is closed.
    if path.is_file():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - len(_GRAPHML_END)))
            if file.read() != _GRAPHML_END:
                raise OSError(_WRITE_FAILED)
    return Written(int(graph.ecount()), changed)


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


def graph_of(edges: Iterable[ExportedEdge]) -> igraph.Graph:
    """The directed graph of `edges`: vertices `type:id` with title and type, edges with type, strength and origin."""
    # Not by way of pandas, which refuses lone surrogates.
    numbers: dict[str, int] = {}
    vertices: list[tuple[str, str, str, str]] = []
    links: list[tuple[int, int, str, float, str]] = []
    for edge in edges:
        ends: list[int] = []
        for entity_type, entity_id, title in (
            (edge.source_type or "", edge.source_id, edge.source_title or ""),
            (edge.target_type or "", edge.target_id, edge.target_title or ""),
        ):
            name = f"{entity_type}:{entity_id}"
            if name not in numbers:
                numbers[name] = len(vertices)
                vertices.append((name, entity_type, entity_id, title))
            ends.append(numbers[name])
        strength = round(edge.strength or 0.0, 4)
        links.append((ends[0], ends[1], edge.relationship_type, strength, edge.origin or ""))
    graph = igraph.Graph(len(vertices), [link[:2] for link in links], directed=True)
    for place, attribute in enumerate(("name", "entity_type", "entity_id", "title")):
        graph.vs[attribute] = [vertex[place] for vertex in vertices]
    for place, attribute in enumerate(("type", "strength", "origin"), start=2):
        graph.es[attribute] = [link[place] for link in links]
    return graph
