"""Platform: the settings and the clients of one process, made once on first use and shared by all that runs in it."""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mcp_assets.embedders import make_embedder, make_previous_embedder
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import Embedder
from mcp_assets.embedding.request_gate import OPEN_GATE, RequestGate
from mcp_assets.embedding.shared_limit import OWN_LIMIT_ALONE, SharedLimit
from mcp_assets.entities.registry import SourceTable
from mcp_assets.entities.text import prepared_by
from mcp_assets.events import TypeNames, result_subjects, stream_subjects
from mcp_assets.graph import LinkForm, ReferenceRules
from mcp_assets.settings import Settings, load_settings
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.marks import StoreMarks
from mcp_assets.stores.nats_access import NatsAccess
from mcp_assets.stores.postgres import Connection, Postgres
from mcp_assets.stores.postgres.relationships_shape import IdColumn
from mcp_assets.stores.postgres.shared_rate import SharedRate
from mcp_assets.stores.provider_places import ProviderPlaces
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.stores.qdrant_identity import IdentityReader
from mcp_assets.stores.relationships import Relationships
from mcp_assets.stores.source_tables.database import SourceDatabase
from mcp_assets.stores.source_tables.reader import SourceReader
from mcp_assets.stores.streams import ResultsStream
from mcp_assets.traces import send_traces
from mcp_assets.tuning import Tuning

if TYPE_CHECKING:
    from mcp_assets.stores.nats import NatsStreams

_LOOK_TIMEOUT_S = 5.0
"""Seconds for a connection to PostgreSQL in a process that only reads: a person waits for it, and nothing is lost by
giving up."""


class Companion(Protocol):
    """An object that lives as long as the clients of a platform, such as a connection or a thread beside them."""

    def close(self) -> None: ...


C = TypeVar("C", bound=Companion)


class Platform:
    """The parts that `sync` works with. Nothing connects before it is used."""

    def __init__(
        self,
        settings: Settings,
        *,
        embedder: Embedder | None = None,
        tuning: Tuning = Tuning(),
        reads_only: bool = False,
    ) -> None:
        """`embedder`: used in place of the one that the settings name, and closed with the platform.

        `tuning`: sizes of batches and waits, for tests and benchmarks. `reads_only`: the process only reads: marks of
        stores are compared and not recorded.
        """
        self.settings = settings
        self.tuning = tuning
        self.reads_only = reads_only
        self._embedder = embedder
        self._sources: dict[str, SourceReader] = {}
        self._source_databases: dict[str, SourceDatabase] = {}
        self._opening = threading.Lock()
        self._prepared_by: dict[str, str] = {}
        self._companions: dict[Any, Any] = {}
        self._places: dict[str, ProviderPlaces] = {}

    @cached_property
    def postgres(self) -> Postgres:
        settings = self.settings
        ids = {
            name: IdColumn(entity_type.source.table, entity_type.source.id)
            for name, entity_type in settings.entity_types.items()
            if entity_type.source
            # An edge that others wrote does not name a composite key as this platform does.
            and isinstance(entity_type.source.id, str)
            and settings.source_url(entity_type.source) is None
        }
        return Postgres(
            settings.require_database_url(),
            settings.schema_name,
            settings.relationships_table,
            ids,
            timeout_s=_LOOK_TIMEOUT_S if self.reads_only else self.tuning.stores.postgres_timeout_s,
        )

    @cached_property
    def relationships(self) -> Relationships:
        return Relationships(self.settings.relationships_table)

    @cached_property
    def qdrant(self) -> Qdrant:
        return self.open_qdrant()

    def open_qdrant(self, *, timeout_s: float = 30.0) -> Qdrant:
        """A client of its own, which the caller closes."""
        return Qdrant(
            self.settings.require_qdrant_url(),
            self._qdrant_key,
            tls_ca_file=self.settings.qdrant_tls_ca_file,
            timeout_s=timeout_s,
            verify=lambda: self.marks.check_qdrant(self._qdrant_identity.read(), self._qdrant_identity),
            mark=lambda: self.marks.key(),
            tuning=self.tuning.stores,
        )

    @cached_property
    def _qdrant_identity(self) -> IdentityReader:
        return IdentityReader(
            self.settings.require_qdrant_url(),
            self._qdrant_key,
            list(self.settings.entity_types.collections()),
            tls_ca_file=self.settings.qdrant_tls_ca_file,
        )

    @property
    def _qdrant_key(self) -> str | None:
        """A process that only reads takes the read-only key, so that it needs no other one."""
        reading = self.settings.qdrant_read_api_key if self.reads_only else None
        key = reading or self.settings.qdrant_api_key
        return key.get_secret_value() if key else None

    def silent_without_postgres(self) -> dict[str, str]:
        """By store, for NATS and Qdrant, why it does not answer; PostgreSQL need not answer for this.

        Their marks stand in PostgreSQL, so that no other request to them is possible without it.
        """
        asked: dict[str, Callable[[], object]] = {"nats": self.nats.mark, "qdrant": self._qdrant_identity.read}
        silent = {}
        for store, ask in asked.items():
            try:
                ask()
            except (StoreUnavailable, StoreRefused) as error:
                silent[store] = str(error)
        return silent

    def qdrant_version(self) -> str:
        """The version of the Qdrant that answers, such as 1.19.0."""
        return self._qdrant_identity.version()

    def accept_qdrant(self) -> str:
        """Record the Qdrant that answers as this platform's, and return its mark."""
        return self.marks.accept_qdrant(self._qdrant_identity.read(), self._qdrant_identity)

    @cached_property
    def nats(self) -> "NatsStreams":
        # Not at the top, because most commands do not need it, and its client takes a while to load.
        from mcp_assets.stores.nats import NatsStreams

        settings = self.settings
        results = ResultsStream(
            settings.results_stream, result_subjects(), settings.results_days, create=settings.create_stream
        )
        return NatsStreams(
            settings.require_nats_url(),
            stream_subjects(),
            results,
            access=self.nats_access,
            verify=lambda mark: self.marks.check_nats(mark),
        )

    @property
    def nats_access(self) -> NatsAccess:
        settings = self.settings
        return NatsAccess(
            creds_file=settings.nats_creds_file,
            nkey_file=settings.nats_nkey_file,
            tls_ca_file=settings.nats_tls_ca_file,
            tls_cert_file=settings.nats_tls_cert_file,
            tls_key_file=settings.nats_tls_key_file,
        )

    @cached_property
    def marks(self) -> StoreMarks:
        return StoreMarks(self.postgres, list(self.settings.entity_types), reads_only=self.reads_only)

    @cached_property
    def embedder(self) -> Embedder:
        return self._embedder or make_embedder(self.settings, self._gate_of, self._shared_limit)

    @cached_property
    def previous_embedder(self) -> Embedder | None:
        """The previous model, while it is configured: its collections serve until the new ones are complete."""
        return make_previous_embedder(self.settings, self._gate_of, self._shared_limit)

    def _gate_of(self, profile: ModelProfile) -> RequestGate:
        """What requests to the model wait for: the rate that all runs share, if the settings limit it."""
        settings = self.settings
        if settings.requests_a_minute is None and settings.tokens_a_minute is None:
            return OPEN_GATE
        return SharedRate(
            self.postgres,
            profile.key,
            requests_a_minute=settings.requests_a_minute,
            tokens_a_minute=settings.tokens_a_minute,
        )

    def _shared_limit(self, provider: str) -> SharedLimit:
        """The requests in flight that all processes together may have at `provider`, host and port."""
        places = self.settings.embedding_shared_concurrency
        if not places:
            return OWN_LIMIT_ALONE
        return self._places.setdefault(provider, ProviderPlaces(lambda: self.postgres, provider, places))

    def usd_per_million_tokens(self, profile: ModelProfile) -> float | None:
        """The price of the model: EMBEDDING_PRICE for the present one, otherwise its list price; None: not known."""
        if self.settings.embedding_price is not None and profile.key == self.embedder.profile.key:
            return self.settings.embedding_price
        return profile.usd_per_million_tokens

    @cached_property
    def type_names(self) -> TypeNames:
        types = self.settings.entity_types
        return TypeNames.of(
            {name: entity_type.aliases for name, entity_type in types.items()},
            {name: entity_type.id_keys for name, entity_type in types.items()},
        )

    @cached_property
    def reference_rules(self) -> ReferenceRules:
        forms = [LinkForm.of(template, name) for template, name in self.settings.link_forms.items()]
        return ReferenceRules.of(self.settings.entity_types, forms)

    def prepared_by(self, entity_type: str) -> str:
        """The key of how entities of the type are prepared: by which text builder, and from a row by which mapping."""
        if entity_type not in self._prepared_by:
            mapping = self.settings.entity_types[entity_type].source
            self._prepared_by[entity_type] = prepared_by(self.settings.chunks, mapping)
        return self._prepared_by[entity_type]

    def source(self, entity_type: str) -> SourceReader | None:
        """The reader of the type's source table; None for a type that lives by its events alone."""
        mapping = self.settings.entity_types[entity_type].source
        if mapping is None:
            return None
        if entity_type not in self._sources:
            reader = SourceReader(mapping, self.settings.schema_name, self._source_database(mapping))
            self._sources[entity_type] = reader
        return self._sources[entity_type]

    def source_transaction(self, source: SourceTable) -> AbstractContextManager[Connection]:
        """A transaction in the database that `source` is in."""
        return (self._source_database(source) or self.postgres).transaction()

    def _source_database(self, source: SourceTable) -> SourceDatabase | None:
        """The database that `source` is in, shared by all tables there; None if it is the platform's own."""
        url = self.settings.source_url(source)
        if url is None:
            return None
        with self._opening:
            if url not in self._source_databases:
                self._source_databases[url] = SourceDatabase(url, verify=self._verify_source, tuning=self.tuning.stores)
            return self._source_databases[url]

    def _verify_source(self, address: str, mark: str | None) -> None:
        self.marks.check_source(address, mark)

    def companion(self, kind: Callable[["Platform"], C]) -> C:
        """The one `kind` of this platform, made at first use; closed before the clients that it works with."""
        with self._opening:
            if kind not in self._companions:
                self._companions[kind] = kind(self)
            companion: C = self._companions[kind]
            return companion

    def stop_embedding(self) -> None:
        """Send nothing more to the embedding providers. Does not wait for what they are answering."""
        for name in ("embedder", "previous_embedder"):
            embedder: Embedder | None = self.__dict__.get(name)
            if embedder is not None:
                embedder.stop()

    def close(self) -> None:
        """Close what was opened."""
        for companion in self._companions.values():
            companion.close()
        self._companions.clear()
        for database in self._source_databases.values():
            database.close()
        self._source_databases.clear()
        self._sources.clear()
        self.__dict__.pop("marks", None)
        # The embedders first, because their requests hold places until they are answered.
        for name in ("embedder", "previous_embedder"):
            self._close_part(name)
        for places in self._places.values():
            places.close()
        self._places.clear()
        for name in ("postgres", "qdrant", "nats"):
            self._close_part(name)

    def _close_part(self, name: str) -> None:
        part = self.__dict__.pop(name, None)
        if part is not None:
            part.close()


_lock = threading.Lock()
_shared: dict[str, Platform] = {}
"""By the settings that were given to it."""


def shared_platform(given: Mapping[str, Any] | None = None) -> Platform:
    """This process's platform. Dagster rebuilds resources at each tick; connections should outlive that.

    `given`: as `load_settings` takes it; there is a platform for each. If the embedded stack was restarted at other
    addresses, the platform is made again for them.
    """
    settings = load_settings(given)
    key = json.dumps(given, sort_keys=True)
    with _lock:
        known = _shared.get(key)
        if known is None or known.settings != settings:
            send_traces_if_set(settings)
            _shared[key] = Platform(settings)
            if known is not None:
                known.close()
        return _shared[key]


def send_traces_if_set(settings: Settings) -> None:
    """Have this process send traces, if the settings say so.

    Raises:
        TracesUnavailable: the extra `otel` is not installed.
    """
    if settings.traces or settings.otlp_endpoint is not None:
        send_traces(settings.otlp_endpoint)


def close_shared_platform() -> None:
    """Close this process's platforms, if any were made; the next `shared_platform` makes another."""
    with _lock:
        closing = list(_shared.values())
        _shared.clear()
    for platform in closing:
        platform.close()
