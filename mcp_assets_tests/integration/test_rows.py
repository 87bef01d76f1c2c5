"""Rows: a column goes to the field that has its name, also where another order of columns would fit by position."""

from dataclasses import dataclass

import pytest

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres.rows import by_id, fetch_rows


@dataclass(frozen=True)
class Pair:
    one: int
    two: int


def test_columns_go_to_fields_by_name_in_any_order(platform: Platform) -> None:
    with platform.postgres.transaction() as connection:
        for columns in ("1 AS one, 2 AS two", "2 AS two, 1 AS one"):
            assert fetch_rows(connection, f"SELECT {columns}", Pair) == [Pair(1, 2)]
            assert fetch_rows(connection, f"SELECT 'a' AS entity_id, {columns}", by_id(Pair)) == [("a", Pair(1, 2))]
            assert fetch_rows(connection, f"SELECT {columns}, 'a' AS entity_id", by_id(Pair)) == [("a", Pair(1, 2))]


@pytest.mark.parametrize("columns", ["1 AS one", "1 AS one, 2 AS other", "1 AS one, 2 AS two, 3 AS three"])
def test_columns_that_are_not_the_fields_are_noticed(platform: Platform, columns: str) -> None:
    with platform.postgres.transaction() as connection, pytest.raises(TypeError):
        fetch_rows(connection, f"SELECT {columns}", Pair)
