"""PostgreSQL as a store: connections, named queries, migrations, and what a silent server is.

Belongs here: how the platform's database is reached (`connection`), the text of every query (`sql`), how rows become
values (`rows`), the schema (`migrations`). Does not: what a query is for, which the modules that call it know; the
source tables of a site, which may be in another database (`stores.source_tables.database`).
"""

from mcp_assets.stores.postgres.connection import (
    Connection,
    Cursor,
    MarkedConnection,
    Postgres,
    configure,
    mark_of,
    no_writes,
)

__all__ = ["Connection", "Cursor", "MarkedConnection", "Postgres", "configure", "mark_of", "no_writes"]
