"""The named queries of stores/postgres/sql: one namespace over all files, nothing unused and nothing missing."""

import re
from collections import Counter
from importlib import resources
from pathlib import Path

import mcp_assets

PACKAGE = Path(mcp_assets.__file__).parent


def names_in_files() -> list[str]:
    files = resources.files("mcp_assets.stores.postgres").joinpath("sql").iterdir()
    return [name for file in files for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)]


def first_lines() -> dict[str, str]:
    files = resources.files("mcp_assets.stores.postgres").joinpath("sql").iterdir()
    return {
        name: line
        for file in files
        for name, line in re.findall(r"^-- name: (\w+)\n(.*)$", file.read_text(), re.MULTILINE)
    }


def code() -> str:
    return "\n".join(file.read_text() for file in PACKAGE.rglob("*.py"))


def test_each_query_is_described_below_its_name() -> None:
    """By a comment that says what it returns or does, so that a reader of the code need not read the statement."""
    assert [name for name, first_line in first_lines().items() if not first_line.startswith("-- ")] == []


def test_no_two_queries_bear_one_name() -> None:
    assert [name for name, count in Counter(names_in_files()).items() if count > 1] == []


def test_each_query_is_used() -> None:
    literals = set(re.findall(r"\"(\w+)\"", code()))
    prefixes = tuple(re.findall(r"\.query\(f\"(\w+)\{", code()))
    assert [name for name in names_in_files() if name not in literals and not name.startswith(prefixes)] == []


def test_each_name_that_is_used_is_one_of_a_query() -> None:
    used = set(re.findall(r"\.(?:query\(|rows?\(\s*\w+,)\s*\"(\w+)\"", code()))
    assert len(used) > 100
    assert used - set(names_in_files()) == set()
