"""The named queries of stores/sql: one namespace over all files."""

import re
from collections import Counter
from importlib import resources


def test_no_two_queries_bear_one_name() -> None:
    files = list(resources.files("mcp_assets.stores").joinpath("sql").iterdir())
    names = Counter(name for file in files for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE))
    assert [name for name, count in names.items() if count > 1] == []
