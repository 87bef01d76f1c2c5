"""Privileges: what a role lacks on the object that an error of PostgreSQL names."""

import re
from typing import Any

import psycopg

_DENIED = re.compile(r"permission denied for (?:(?P<table>\w* ?(?:table|view))|schema) (?P<name>\S+)")
"""PostgreSQL's messages, which name the object and not the privilege. In another language they do not match."""

_OF_TABLES = """
SELECT current_user, nspname || '.' || relname, array_to_string(ARRAY(
           SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
           WHERE NOT has_table_privilege(pg_class.oid, privilege)
       ), ', ')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY pg_table_is_visible(pg_class.oid) DESC LIMIT 1
"""

_OF_SCHEMAS = """
SELECT current_user, 'the schema ' || nspname, array_to_string(ARRAY(
           SELECT privilege FROM unnest(ARRAY['USAGE', 'CREATE']) AS privilege
           WHERE NOT has_schema_privilege(oid, privilege)
       ), ', ')
FROM pg_namespace WHERE nspname = %s
"""


def missing_privileges(connection: psycopg.Connection[Any], message: str) -> str | None:
    """A sentence with the privileges that the role of `connection` lacks, by the `message` of a refusal.

    None: the message names no table and no schema, or the role lacks nothing there.
    """
    denied = _DENIED.search(message)
    if denied is None:
        return None
    query = _OF_TABLES if denied["table"] else _OF_SCHEMAS
    row = connection.execute(query, [denied["name"]]).fetchone()
    return f"the role {row[0]} has no {row[2]} on {row[1]}" if row is not None and row[2] else None
