"""The reference page of the tables says what the comments in the database say."""

from mcp_assets.platform import Platform
from mcp_assets_tests.reference import tables
from mcp_assets_tests.reference.pages import TABLES


def test_the_page_of_the_tables_says_what_the_database_says(platform: Platform) -> None:
    assert TABLES.read_text() == tables.page(platform)
