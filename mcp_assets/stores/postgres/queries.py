"""The named queries of the folder `sql`: one file for each family of tables, one namespace over all files."""

import re
from collections.abc import Mapping
from importlib import resources

from psycopg import sql

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_queries(schema: str) -> Mapping[str, sql.SQL]:
    """Every query by name, with the platform's schema filled in. In a file, each stands below a line `-- name: …`."""
    queries: dict[str, sql.SQL] = {}
    for file in resources.files("mcp_assets.stores.postgres").joinpath("sql").iterdir():
        if file.name.endswith(".sql"):
            parts = _NAME.split(file.read_text())
            for name, text in zip(parts[1::2], parts[2::2], strict=True):
                # `schema` is an identifier by its type in Settings; the text is our own file.
                queries[name] = sql.SQL(text.strip().replace("{schema}", f'"{schema}"'))
    return queries
