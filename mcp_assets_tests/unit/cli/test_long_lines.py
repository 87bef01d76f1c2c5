"""Lines of files: a compressed file without a line break is refused before it fills memory."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from mcp_assets.cli.entities import LONGEST_LINE_BYTES, _opened
from mcp_assets.cli.load_entities import LoadError


def test_a_small_file_that_unpacks_to_a_line_of_hundreds_of_megabytes_is_refused_early(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    # Members of a gzip file follow each other, so that the bomb need not be made in memory either.
    bomb.write_bytes(gzip.compress(b"{}\n") + gzip.compress(b" " * 2**24) * 32)
    assert bomb.stat().st_size < 2**20

    tracemalloc.start()
    read: list[bytes] = []
    with pytest.raises(LoadError, match=r"bomb.jsonl.gz, line 2: longer than 64 MiB"), _opened(bomb) as lines:
        read.extend(lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert read == [b"{}\n"]
    assert peak < 4 * LONGEST_LINE_BYTES
