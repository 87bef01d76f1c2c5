"""Failed entities: one dead letter an entity, with the stage that failed and the reason. Its last good points stay."""

from collections.abc import Iterable
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection


@dataclass(frozen=True, slots=True)
class FailedEntity:
    """An entity that cannot be indexed. `stage`: `apply` (ledger), `embed` or `upsert` (Qdrant)."""

    entity_id: str
    stage: str
    error_kind: str
    error: str
    subject: str | None = None
    """Of the message that led to the failure; None: no message did."""


def dead_letter(platform: Platform, connection: Connection, entity_type: str, failed: Iterable[FailedEntity]) -> None:
    """Keep `failed`, each entity once, as dead letters; a later failure of an entity replaces the earlier one."""
    letters = list(failed)
    if not letters:
        return
    connection.execute(
        platform.postgres.query("insert_failed"),
        {
            "entity_type": entity_type,
            "entity_id": [letter.entity_id for letter in letters],
            "stage": [letter.stage for letter in letters],
            "subject": [letter.subject for letter in letters],
            "raw": [b""] * len(letters),
            "error_kind": [letter.error_kind for letter in letters],
            "error": [letter.error for letter in letters],
        },
    )
