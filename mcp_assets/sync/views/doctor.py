"""Doctor: tries each dependency once, and says what is wrong and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.entities.refs import SLOTS
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import load_settings
from mcp_assets.stores.errors import CollectionMismatch, CollectionNotOurs, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import no_writes
from mcp_assets.sync.collections.serving import serving_and_foreign, write_targets
from mcp_assets.sync.inbox.stream_limits import absent_stream, can_be_made, meaning_of
from mcp_assets.sync.link.locks import require_usable_edges

_NAMED = 5
"""Rows that a sentence names: it stays readable, and the number of all is in it."""

_NEEDING_POSTGRES = ("source tables", "relationships", "nats", "qdrant", "collections")
"""Checks that are left out while PostgreSQL does not answer: it has the tables, and the marks of the other stores."""

_PROBE = "a short text that any model can embed"
"""Embedded to find out whether the provider answers: one request of some tokens."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one check."""

    name: str
    ok: bool
    message: str


def diagnose() -> list[Diagnosis]:
    """Check settings, PostgreSQL, its tables, NATS, streams, Qdrant, collections and the embedder, in this order."""
    try:
        settings = load_settings()
        profile = settings.profile
        settings.previous_profile  # noqa: B018  (it may raise, too)
    except SettingsError as error:
        return [Diagnosis("settings", ok=False, message=str(error))]
    platform = Platform(settings, reads_only=True)
    checks: list[tuple[str, Callable[[Platform], str]]] = [
        ("postgres", _postgres),
        ("source tables", _source_tables),
        ("relationships", _relationships),
        ("nats", _nats),
        ("qdrant", _qdrant),
        ("collections", _collections),
        ("embedder", _embedder),
    ]
    diagnoses = [Diagnosis("settings", ok=True, message=f"provider {settings.provider}, model {profile.name}")]
    silent_postgres = False
    try:
        for name, check in checks:
            if silent_postgres and name in _NEEDING_POSTGRES:
                continue
            try:
                diagnoses.append(Diagnosis(name, ok=True, message=check(platform)))
            except (
                SettingsError,
                StoreUnavailable,
                StoreRefused,
                CollectionMismatch,
                EmbedderUnavailable,
                TextRefused,
                ValueError,
            ) as error:
                diagnoses.append(Diagnosis(name, ok=False, message=str(error)))
                if name == "postgres" and isinstance(error, StoreUnavailable):
                    silent_postgres = True
                    diagnoses += _without_postgres(platform)
    finally:
        platform.close()
    return diagnoses


def _without_postgres(platform: Platform) -> list[Diagnosis]:
    """Diagnoses for the checks that need PostgreSQL, while it does not answer: they say which store is at fault."""
    silent = platform.silent_without_postgres()
    answers = "it answers; whether it is this platform's, and what it holds, is checked when PostgreSQL is back"
    later = "checked when PostgreSQL is back"
    return [
        Diagnosis(name, ok=False, message=silent[name])
        if name in silent
        else Diagnosis(name, ok=name in ("nats", "qdrant"), message=answers if name in ("nats", "qdrant") else later)
        for name in _NEEDING_POSTGRES
    ]


def _postgres(platform: Platform) -> str:
    with platform.postgres.transaction() as connection:
        row = connection.execute("SELECT current_setting('server_version'), pg_is_in_recovery()").fetchone()
        reason = no_writes(connection)
    version, replica = row or ("unknown", False)
    if replica:
        raise StoreRefused("DATABASE_URL leads to a read replica, which lags behind the truth: give the primary")
    if reason is not None:
        raise StoreUnavailable(reason)
    return f"PostgreSQL {version}, schema {platform.settings.schema_name} migrated"


def _source_tables(platform: Platform) -> str:
    wrong: list[str] = []
    with platform.postgres.transaction() as connection:
        for name in platform.settings.entity_types:
            reader = platform.source(name)
            if reader is not None:
                reader.read(connection, ["00000000-0000-0000-0000-000000000000", "0"])
                faults = reader.id_faults(connection, (0, SLOTS))
                wrong += [f"{name}:{entity_id}: {fault}" for entity_id, (_, fault) in faults.sentences().items()]
    if wrong:
        raise StoreRefused(
            f"{len(wrong)} ids of source rows cannot be those of entities: {'; '.join(wrong[:_NAMED])}"
            + (" …" if len(wrong) > _NAMED else "")
        )
    return "every mapped table and column exists"


def _relationships(platform: Platform) -> str:
    require_usable_edges(platform)
    return f"{platform.settings.relationships_table} takes edges of every type"


def _nats(platform: Platform) -> str:
    lines, absent = [], []
    for name in platform.settings.streams:
        state = platform.nats.state(name)
        if state is None and not can_be_made(platform.settings):
            absent.append(absent_stream(name))
        elif state is None:
            lines.append(f"stream {name} will be made at first use")
        else:
            meaning = meaning_of(state)
            blind = [f"a loss of messages may go unnoticed: {reason}" for reason in meaning.blind]
            lines.append(f"stream {name} holds up to message {state.last_seq}: " + "; ".join([*meaning.words, *blind]))
    if absent:
        raise StoreRefused("; ".join([*absent, *lines]))
    return ". ".join(lines)


def _qdrant(platform: Platform) -> str:
    return f"{len(platform.qdrant.collections())} collections"


def _collections(platform: Platform) -> str:
    lines = []
    served, foreign = serving_and_foreign(platform)
    if foreign:
        raise CollectionNotOurs("; ".join(map(str, foreign.values())))
    for name, entity_type in platform.settings.entity_types.items():
        alias = entity_type.collection_name
        found = served.get(alias)
        if found is None:
            lines.append(f"{alias}: not made yet")
            continue
        points = platform.qdrant.count(found.collection.name)
        lines.append(f"{alias}: {points} points of {found.profile.name}")
        # A Qdrant that answers may still refuse the filters of a search: in strict mode, if an index is missing.
        probe = np.full(found.profile.dimension, found.profile.dimension**-0.5, dtype=np.float32)
        platform.qdrant.search(found.collection.name, probe, entity_type=name, limit=1)
        if found.profile != platform.embedder.profile:
            # Raises if no configured model fits the collection.
            write_targets(platform, alias)
    return ", ".join(dict.fromkeys(lines))


def _embedder(platform: Platform) -> str:
    vector = platform.embedder.embed_query(_PROBE)
    return f"{platform.embedder.profile.name} answers with {len(vector)} dimensions"
