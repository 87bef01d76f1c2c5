"""What the change feed tells of an entity: each new state once, whatever was written to collections."""

import numpy as np
import pytest

from mcp_assets.entities.text import prepare
from mcp_assets.sync.feed.entries import ChangeKind, EntityReason
from mcp_assets.sync.index.entity_entries import GONE, fed_state, told
from mcp_assets.sync.index.ledger import Dirty
from mcp_assets.sync.index.paid_vectors import Vectors
from mcp_assets.sync.index.write_plan import EmbeddedRow, WritePlan

VECTORS = Vectors(np.zeros((1, 2), dtype=np.float32), (0.5,))


def plan(
    *, state: str = "new", text: str = "text", deleted: bool = False, held: str | None = None, embeds: bool = True
) -> WritePlan:
    """`held`: the state that the collection holds."""
    dirty = Dirty("1", None, text, {}, prepare(None, text, None), state, deleted)
    recorded = EmbeddedRow("t", held, 1, ()) if held is not None else None
    return WritePlan(dirty, recorded, vectors=VECTORS if embeds else None)


@pytest.mark.parametrize(
    ("written", "fed", "expected"),
    [
        (plan(), None, (ChangeKind.INDEXED, EntityReason.NEW)),
        (plan(), GONE, (ChangeKind.INDEXED, EntityReason.NEW)),
        (plan(), "old", (ChangeKind.INDEXED, EntityReason.TEXT)),
        (plan(embeds=False), "old", (ChangeKind.INDEXED, EntityReason.METADATA)),
        (plan(held="old"), None, (ChangeKind.INDEXED, EntityReason.TEXT)),
        (plan(deleted=True), "old", (ChangeKind.REMOVED, EntityReason.DELETED)),
        (plan(deleted=True, held="old"), None, (ChangeKind.REMOVED, EntityReason.DELETED)),
        (plan(text=""), "old", (ChangeKind.REMOVED, EntityReason.EMPTY)),
        # Indexed again as it was: by force, by a repair, for another model.
        (plan(), "new", None),
        (plan(held="new"), None, None),
        (plan(deleted=True), GONE, None),
        (plan(deleted=True), None, None),
    ],
)
def test_the_feed_tells_of_a_state_that_it_has_not_told(
    written: WritePlan, fed: str | None, expected: tuple[ChangeKind, EntityReason] | None
) -> None:
    assert told(written, fed) == expected
    assert fed_state(written) == (GONE if written.removes else "new")
