"""The house is kept in order: no module and no function grows beyond what one reads at a sitting."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import mcp_assets

ROOT = Path(mcp_assets.__file__).parents[1]
MODULES = [
    file for package in ("mcp_assets", "dagster_warm_launcher") for file in sorted((ROOT / package).rglob("*.py"))
]

LONGEST_MODULE, LONGEST_FUNCTION = 400, 60
"""Lines: a module is read in ten minutes, a function stands on one screen."""

VERSIONS = "mcp_assets/stores/postgres/migrations/versions"

LONGER_FUNCTIONS: Mapping[str, str] = {
    f"{VERSIONS}/r0001_intake_and_ledger.py:upgrade": "one CREATE statement after the other",
    f"{VERSIONS}/r0002_links.py:upgrade": "one CREATE statement after the other",
    f"{VERSIONS}/r0004_requests.py:upgrade": "one CREATE statement after the other",
    f"{VERSIONS}/r0022_words_of_link_tables.py:upgrade": "one ALTER or COMMENT statement after the other",
}
"""Functions that may be longer, and why: what has happened to a database is not rewritten."""


def functions(module: Path) -> Iterator[tuple[str, int]]:
    """Each function of a module with its length in lines."""
    name = module.relative_to(ROOT)
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{name}:{node.name}", node.end_lineno - node.lineno + 1


def test_the_modules_of_both_packages_are_found() -> None:
    assert len(MODULES) > 200


def test_no_module_is_longer_than_its_limit() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_its_limit_but_those_with_a_reason() -> None:
    lengths = dict(item for module in MODULES for item in functions(module))
    longer = {name for name, length in lengths.items() if length > LONGEST_FUNCTION}
    assert longer - LONGER_FUNCTIONS.keys() == set()
    assert LONGER_FUNCTIONS.keys() - longer == set(), "these need no exception any more"
