"""The reference pages and `.env.example` are made from the code: `make reference` writes them."""

from pathlib import Path

import pytest

from mcp_assets_tests.reference.pages import PAGES, ROOT


# What Dagster 1.13 does inside itself.
@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_says_what_the_code_says(path: Path) -> None:
    assert path.read_text() == PAGES[path]()
