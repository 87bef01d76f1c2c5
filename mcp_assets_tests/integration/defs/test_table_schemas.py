"""The columns that the pages of assets show are those of the tables."""

import dagster as dg
import pytest

from mcp_assets.defs.table_schemas import EDGES, LEDGER, mapped_columns
from mcp_assets.entities.registry import SourceTable
from mcp_assets.platform import Platform


@pytest.mark.parametrize(("table", "schema"), [("mcp_assets.entities", LEDGER), ("public.relationships", EDGES)])
def test_the_columns_of_own_tables_are_shown_as_the_database_has_them(
    platform: Platform, table: str, schema: dg.TableSchema
) -> None:
    with platform.postgres.transaction() as connection:
        rows = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            (table,),
        ).fetchall()
    assert {column.name: column.type for column in schema.columns} == dict(rows)


def test_a_mapped_column_says_what_it_becomes_and_stands_once() -> None:
    source = SourceTable(table="notes", id="key", content=("body",), metadata={"label": "body", "group": "team"})
    uses = {column.name: column.description for column in mapped_columns(source).columns}
    assert uses == {
        "key": "the id of the entity",
        "title": "the title",
        "body": "text of the entity, metadata key label",
        "team": "metadata key group",
        "created_at": "when the row was written",
        "updated_at": "when the row was last changed",
    }
