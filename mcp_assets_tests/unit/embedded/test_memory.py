"""Memory of the machine or the container, and the share of it that PostgreSQL's buffers take."""

from pathlib import Path

import psutil
import pytest

from mcp_assets.embedded.memory import memory_bytes
from mcp_assets.embedded.servers.postgres import LEAST_BUFFERS_MB, MOST_BUFFERS_MB, buffers_mb

GIB = 2**30


@pytest.mark.parametrize(
    ("said", "expected"),
    [(f"{GIB}\n", GIB), ("max\n", psutil.virtual_memory().total), (f"{2**63 - 4096}\n", psutil.virtual_memory().total)],
)
def test_the_limit_of_a_container_counts_where_it_is_less_than_the_machine_has(
    tmp_path: Path, said: str, expected: int
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(said)
    assert memory_bytes((tmp_path / "missing", limit)) == expected


@pytest.mark.parametrize(
    ("memory", "megabytes"),
    [(GIB // 2, LEAST_BUFFERS_MB), (4 * GIB, 256), (512 * GIB, MOST_BUFFERS_MB)],
)
def test_buffers_are_a_sixteenth_of_the_memory_within_bounds(memory: int, megabytes: int) -> None:
    assert buffers_mb(memory) == megabytes
