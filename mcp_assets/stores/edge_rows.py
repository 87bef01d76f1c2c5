"""Edge rows: the rows that the queries of `relationships` return."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class EdgeCounts(NamedTuple):
    """Our edges of one type from one entity: how many there are, and how many were added or changed since a time."""

    source_type: str
    source_id: str
    edge_type: str
    now: int
    added: int
    changed: int


class OurEdge(NamedTuple):
    """One of our rows of the table of edges."""

    id: uuid.UUID
    source_type: str
    source_id: str
    target_type: str
    target_id: str
    edge_type: str
    strength: float
    metadata: Mapping[str, Any] | None


class ListColumns(NamedTuple):
    """Our edges of one type from one entity as one row: a list for each column of the edges.

    It is made by position: the statement is sent before, in a pipeline, and its rows are received later.
    """

    edge_type: str
    source_type: str
    source_id: str
    target_types: Sequence[str]
    target_ids: Sequence[str]
    row_ids: Sequence[str]
    strengths: Sequence[float]
    evidence: Sequence[str] | None
    """None: it was not asked for."""
