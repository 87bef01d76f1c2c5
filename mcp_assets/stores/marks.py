"""Marks: the recorded identity of each store, by which another server at its address is noticed (I12).

The first mark that a store shows is recorded in PostgreSQL, and compared at each new connection. A process that only
reads compares marks and records none. Only `mcp-assets accept` changes a recorded mark.
"""

import logging
import threading
from collections.abc import Collection
from typing import Literal

from mcp_assets.stores.errors import Stranger
from mcp_assets.stores.postgres import Postgres
from mcp_assets.stores.qdrant_identity import IdentityReader, QdrantIdentity

logger = logging.getLogger(__name__)

Store = Literal["nats", "qdrant"]

_COLLECTIONS = "collections of this platform"
"""Recorded of a Qdrant without a mark of its own, once a collection of ours bears the platform's key there."""

_SOURCE = "source "
"""Prefix of the recorded name of a database of source tables, before its address."""

_NAMES: dict[Store, tuple[str, str]] = {"nats": ("NATS", "NATS_URL"), "qdrant": ("Qdrant", "QDRANT_URL")}


class StoreMarks:
    """The recorded marks, and what follows from a difference. Thread-safe."""

    def __init__(self, postgres: Postgres, entity_types: Collection[str], *, reads_only: bool) -> None:
        self._postgres = postgres
        self._entity_types = list(entity_types)
        self._reads_only = reads_only
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None

    def key(self) -> str:
        """The platform's key, which our collections bear. All schemas of one database have the same."""
        return self._recorded(again=False)["platform"]

    def check_nats(self, mark: str | None) -> None:
        """Raise Stranger if the server is another one than recorded. `mark`: None if it has no name of its own."""
        recorded = self._recorded(again=False).get("nats")
        if recorded == mark:
            return
        recorded = self._recorded(again=True).get("nats")
        if recorded is None and mark is not None:
            self._record("nats", mark)
        elif recorded != mark:
            raise _stranger("nats", recorded or "", mark)

    def check_source(self, address: str, mark: str | None) -> None:
        """Raise Stranger if another database of source tables than recorded answers at `address`.

        `address` bears no password. `mark`: None if the database has none; then nothing is compared.
        """
        store = f"{_SOURCE}{address}"
        if mark is None or self._recorded(again=False).get(store) == mark:
            return
        if store not in self._recorded(again=True) and not self._reads_only:
            with self._postgres.transaction() as connection:
                connection.execute(self._postgres.query("record_store_mark"), {"store": store, "mark": mark})
        recorded = self._recorded(again=True).get(store)
        if recorded not in (None, mark):
            raise Stranger(
                f"the database of source tables at {address} is another one: it is {mark}, recorded is {recorded} "
                "(system identifier/oid). It is not read, so that rows which it lacks are not taken for deleted. Check "
                "the address; if the database was restored, upgraded or moved, `mcp-assets accept source`"
            )

    def accept_sources(self) -> None:
        """Forget the marks of all databases of source tables: the next connection to each records what it finds."""
        with self._postgres.transaction() as connection:
            connection.execute(self._postgres.query("forget_source_marks"), {"prefix": _SOURCE})
        self._recorded(again=True)

    def check_qdrant(self, identity: QdrantIdentity, reader: IdentityReader) -> None:
        """Raise Stranger if it is another Qdrant than recorded; mark our collections in one that was not marked yet."""
        own = None if identity.server is None else f"server {identity.server}"
        recorded = self._recorded(again=False).get("qdrant")
        if own is not None and recorded == own:
            return
        recorded = self._recorded(again=True).get("qdrant")
        if own is not None:
            if recorded is None:
                self._record("qdrant", own)
            elif recorded != own:
                raise _stranger("qdrant", recorded, own)
            return
        if recorded not in (None, _COLLECTIONS):
            raise _stranger("qdrant", recorded, None)
        self._check_collections(identity, reader, is_recorded=recorded is not None)

    def _check_collections(self, identity: QdrantIdentity, reader: IdentityReader, *, is_recorded: bool) -> None:
        key = self.key()
        others = {name: mark for name, mark in identity.collections.items() if mark not in (None, key)}
        if others:
            name, mark = next(iter(others.items()))
            raise _stranger("qdrant", _COLLECTIONS, f"the collection {name} of the platform {mark}")
        if key in identity.collections.values():
            if not is_recorded:
                self._record("qdrant", _COLLECTIONS)
        elif is_recorded and identity.collections:
            raise _stranger("qdrant", _COLLECTIONS, f"unmarked collections: {', '.join(sorted(identity.collections))}")
        elif is_recorded:
            self._lost()
        elif not self._reads_only:
            # An older version of the platform made the collections without a mark.
            reader.write_marks([name for name in identity.collections if reader.may_be_marked(name)], key)

    def _lost(self) -> None:
        reason = "Qdrant holds none of the collections any more: it is a new one, or has lost its data"
        if self._reads_only:
            logger.warning("%s", reason)
            return
        with self._postgres.transaction() as connection:
            forgotten = connection.execute(self._postgres.query("forget_store_mark"), {"store": "qdrant"})
            if forgotten.rowcount:
                logger.warning("%s; full syncs are asked for", reason)
                connection.execute(
                    self._postgres.query("want_full_syncs"), {"entity_types": self._entity_types, "reason": reason}
                )
        self._recorded(again=True)

    def accept(self, store: Store, mark: str | None) -> None:
        """Record `mark` as the mark of the store; None: forget it, so that the next one shown is recorded."""
        with self._postgres.transaction() as connection:
            name = "forget_store_mark" if mark is None else "accept_store_mark"
            connection.execute(self._postgres.query(name), {"store": store, "mark": mark})
        self._recorded(again=True)

    def accept_qdrant(self, identity: QdrantIdentity, reader: IdentityReader) -> str:
        """Record this Qdrant as the platform's, and mark the collections there that bear names which only we give."""
        if identity.server is not None:
            self.accept("qdrant", f"server {identity.server}")
            return f"server {identity.server}"
        ours = [name for name in identity.collections if reader.may_be_marked(name)]
        reader.write_marks(ours, self.key())
        self.accept("qdrant", _COLLECTIONS if ours else None)
        return _COLLECTIONS if ours else "a Qdrant without any collection of ours"

    def _record(self, store: Store, mark: str) -> None:
        if self._reads_only:
            return
        with self._postgres.transaction() as connection:
            connection.execute(self._postgres.query("record_store_mark"), {"store": store, "mark": mark})
        if (found := self._recorded(again=True).get(store)) != mark:
            raise _stranger(store, found or "", mark)

    def _recorded(self, *, again: bool) -> dict[str, str]:
        with self._lock:
            known = self._known
        if known is None or again:
            with self._postgres.transaction() as connection:
                known = dict(connection.execute(self._postgres.query("store_marks")).fetchall())
            with self._lock:
                self._known = known
        return known


def _stranger(store: Store, recorded: str, found: str | None) -> Stranger:
    name, variable = _NAMES[store]
    return Stranger(
        f"what answers at {variable} is not this platform's {name}: it shows {found or 'no mark'}, recorded is "
        f"{recorded!r}. Nothing is written to it. Check {variable}, and which program listens there; if the server was "
        f"replaced, `mcp-assets accept {store}`"
    )
