"""Doctor: tries each dependency once, and says what is wrong and what to do about it.

What hangs on a check that failed is not tried, because it would fail by the same cause and hide it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from pydantic import SecretStr

from mcp_assets.embedding.protocol import EmbedderUnavailable, TextRefused
from mcp_assets.events import feed_subject, stream_subjects
from mcp_assets.mapping_file import MappingFile
from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, load_settings
from mcp_assets.stores.addresses import without_password
from mcp_assets.stores.errors import CollectionMismatch, CollectionNotOurs, StoreRefused, StoreUnavailable
from mcp_assets.stores.postgres import no_writes
from mcp_assets.stores.source_tables.examine import examine
from mcp_assets.stores.streams import StreamState, covers
from mcp_assets.sync.collections.gates import HOW_TO_DECIDE, awaited_decision
from mcp_assets.sync.collections.model_change import describe_model_change
from mcp_assets.sync.collections.serving import serving_and_foreign, write_targets
from mcp_assets.sync.feed.entries import ChangeKind
from mcp_assets.sync.inbox.stream_limits import absent_stream, can_be_made, meaning_of
from mcp_assets.sync.link.locks import require_usable_edges
from mcp_assets.sync.search.search import search

State = Literal["ok", "bad", "not tried"]

_PROBE = "a short text that any model can embed"
"""Embedded to find out whether the provider answers: one request of some tokens."""

_PROBE_SUBJECT = "mcp_assets.doctor"
"""No stream of the platform takes it, and nothing listens to it."""

_QDRANT_NEEDED = (1, 11)
"""The first Qdrant that answers queries by group, by which a search finds each entity once."""

_QDRANT_LACKS = (
    (
        (1, 16),
        "collections bear no mark of this platform, so that another Qdrant at this address would not be noticed",
    ),
)
"""What a Qdrant below a version lacks that the platform can do without."""

_ERRORS = (
    SettingsError,
    StoreUnavailable,
    StoreRefused,
    CollectionMismatch,
    EmbedderUnavailable,
    TextRefused,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one check."""

    name: str
    state: State
    message: str

    @property
    def ok(self) -> bool:
        return self.state == "ok"


@dataclass(frozen=True, slots=True)
class _Check:
    """`run` returns what is well, and raises one of _ERRORS. `needs`: checks that have to be well before it."""

    name: str
    run: Callable[[Platform], str]
    needs: tuple[str, ...] = ()


def diagnose() -> list[Diagnosis]:
    """Check settings, stores, the mapped tables, streams, collections and the embedder; each depends on few others."""
    try:
        settings = load_settings()
        profile = settings.profile
        settings.previous_profile  # noqa: B018  (it may raise, too)
    except SettingsError as error:
        return [Diagnosis("settings", "bad", str(error))]
    mapped = f"; mapping {settings.sources_file}" if settings.sources_file is not None else ""
    about = f"provider {settings.provider}, model {profile.name} with {profile.dimension} dimensions{mapped}"
    found = {"settings": Diagnosis("settings", "ok", about)}
    platform = Platform(settings, reads_only=True)
    try:
        for check in _checks(settings):
            found[check.name] = _tried(check, platform, found)
            if check.name == "postgres" and not found["postgres"].ok:
                found |= _without_postgres(platform)
    finally:
        platform.close()
    # In the order in which a person reads them: PostgreSQL's failure has settled some before their turn.
    return [found[name] for name in ("settings", *(check.name for check in _checks(settings)))]


def _checks(settings: Settings) -> list[_Check]:
    checks = [_Check("postgres", _postgres)]
    for name, entity_type in settings.entity_types.items():
        if entity_type.source is not None:
            # A table in another database, too: the mark of that database is in PostgreSQL.
            checks.append(_Check(f"source {name}", partial(_source, entity_type=name), ("postgres",)))
    return [
        *checks,
        _Check("relationships", _relationships, ("postgres",)),
        _Check("nats", _nats, ("postgres",)),
        _Check("streams", _streams, ("postgres", "nats")),
        _Check("publish", _publish, ("postgres", "nats")),
        *([_Check("change feed", _change_feed, ("postgres", "nats"))] if settings.publish_changes else []),
        _Check("qdrant", _qdrant, ("postgres",)),
        _Check("collections", _collections, ("postgres", "qdrant")),
        _Check("model change", _model_change, ("postgres",)),
        _Check("embedder", _embedder),
        _Check("search", _search, ("collections", "embedder")),
    ]


def _tried(check: _Check, platform: Platform, found: dict[str, Diagnosis]) -> Diagnosis:
    if check.name in found:
        return found[check.name]
    failed = next((name for name in check.needs if not found[name].ok), None)
    if failed is not None:
        return Diagnosis(check.name, "not tried", f"it needs {failed}")
    try:
        return Diagnosis(check.name, "ok", check.run(platform))
    except _ERRORS as error:
        return Diagnosis(check.name, "bad", str(error))


def _without_postgres(platform: Platform) -> dict[str, Diagnosis]:
    """Whether NATS and Qdrant answer, while PostgreSQL, which has their marks, does not."""
    try:
        silent = platform.silent_without_postgres()
    except SettingsError:
        # Their own checks name the setting, once PostgreSQL is there.
        return {}
    answers = "it answers; whether it is this platform's, and what it holds, is checked when PostgreSQL is back"
    return {
        name: Diagnosis(name, "bad", silent[name]) if name in silent else Diagnosis(name, "ok", answers)
        for name in ("nats", "qdrant")
    }


def _postgres(platform: Platform) -> str:
    with platform.postgres.transaction() as connection:
        row = connection.execute("SELECT current_setting('server_version'), pg_is_in_recovery()").fetchone()
        reason = no_writes(connection)
    version, replica = row or ("unknown", False)
    if replica:
        raise StoreRefused("DATABASE_URL leads to a read replica, which lags behind the truth: give the primary")
    if reason is not None:
        raise StoreUnavailable(reason)
    settings = platform.settings
    return f"PostgreSQL {version} at {_shown(settings.database_url)}, schema {settings.schema_name} migrated"


def _source(platform: Platform, entity_type: str) -> str:
    mapping = platform.settings.entity_types[entity_type].source
    assert mapping is not None  # noqa: S101  (the check is made for a type with a source)
    with platform.source_transaction(mapping) as connection:
        found = examine(mapping, platform.settings.schema_name, connection)
    if found.wrong:
        raise StoreRefused("; ".join([*found.wrong, *_where_mapped(platform.settings, entity_type)]))
    living = f"{found.living:,} living rows of {found.rows:,}" if found.rows else "no rows yet"
    return "; ".join([f"{found.kind} {mapping.table}, {living}", *found.notes])


def _where_mapped(settings: Settings, entity_type: str) -> list[str]:
    """Where a person corrects the mapping of a type."""
    if settings.sources_file is not None:
        file = MappingFile(settings.sources_file, settings.source_preset, preset_is_set=False)
        if file.names(entity_type):
            return [f"it is mapped in {file.place('types', entity_type)}"]
        return [
            f"it is mapped by the preset that {settings.sources_file.name} extends: say there what differs, under "
            f"types.{entity_type}, or leave the type out (`without`)"
        ]
    if settings.types is not None:
        return [f"it is mapped in MCP_ASSETS_TYPES ({entity_type})"]
    return [
        f"it is mapped by the preset {settings.source_preset} (MCP_ASSETS_SOURCE_PRESET): `mcp-assets sources init` "
        "proposes a mapping of your tables"
    ]


def _relationships(platform: Platform) -> str:
    require_usable_edges(platform)
    return f"{platform.settings.relationships_table} takes edges of every type"


def _nats(platform: Platform) -> str:
    kilobytes = platform.nats.max_payload() // 1024
    return f"NATS at {_shown(platform.settings.nats_url)}, messages of at most {kilobytes:,} KiB"


def _streams(platform: Platform) -> str:
    lines, absent = [], []
    found = []
    for name in platform.settings.streams:
        state = platform.nats.state(name)
        found.append(state)
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
    return ". ".join([*lines, *_untaken(found)])


def _untaken(states: Sequence[StreamState | None]) -> list[str]:
    """What is lost because no stream takes its subject; nothing is known of streams that copy others."""
    present = [state for state in states if state is not None]
    if len(present) < len(states) or any(state.traits.mirror_of or state.traits.sources for state in present):
        return []
    taken = [subject for state in present for subject in state.traits.subjects]
    untaken = [subject for subject in stream_subjects() if not covers(taken, subject)]
    return [f"No stream takes {', '.join(untaken)}: what is published there is not read"] if untaken else []


def _change_feed(platform: Platform) -> str:
    subject = feed_subject(ChangeKind.RESTARTED, None)
    platform.nats.require_stream(subject)
    return f"a stream stores what is published on {subject}"


def _publish(platform: Platform) -> str:
    milliseconds = platform.nats.round_trip(_PROBE_SUBJECT) * 1000
    return f"a test message came back on {_PROBE_SUBJECT} in {milliseconds:.0f} ms; no stream kept it"


def _qdrant(platform: Platform) -> str:
    version = platform.qdrant_version()
    number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if number and number < _QDRANT_NEEDED:
        raise StoreRefused(
            f"Qdrant {version} lacks queries by group, which searches need: upgrade it to "
            f"{'.'.join(map(str, _QDRANT_NEEDED))} or later"
        )
    lacks = [f"before {'.'.join(map(str, since))}, {lack}" for since, lack in _QDRANT_LACKS if number < since]
    collections = len(platform.qdrant.collections())
    about = f"Qdrant {version} at {_shown(platform.settings.qdrant_url)}, {collections} collections"
    return "; ".join([about, *lacks])


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


def _model_change(platform: Platform) -> str:
    with platform.postgres.transaction() as connection:
        awaited = awaited_decision(platform, connection)
    if awaited is not None:
        raise StoreRefused(f"it waits for your decision, because {awaited[1]}. {HOW_TO_DECIDE}")
    return "; ".join(describe_model_change(platform)) or "none is under way"


def _embedder(platform: Platform) -> str:
    began = time.monotonic()
    vector = platform.embedder.embed_query(_PROBE)
    profile = platform.embedder.profile
    return (
        f"{profile.name} embedded a test text in {(time.monotonic() - began) * 1000:.0f} ms: {len(vector)} dimensions"
    )


def _search(platform: Platform) -> str:
    began = time.monotonic()
    found = search(platform, _PROBE, limit=1, by="meaning").results
    took = f"a test search took {(time.monotonic() - began) * 1000:.0f} ms"
    if not found:
        return f"{took} and found nothing, because nothing is indexed"
    return f"{took}; the nearest entity is {found[0].ref} ({found[0].score:.2f})"


def _shown(address: SecretStr | str | None) -> str:
    """The address, as every one of `settings` without its password."""
    if address is None:
        return "(not set)"
    return without_password(address if isinstance(address, str) else address.get_secret_value())


def failures(found: Sequence[Diagnosis]) -> int:
    """How many checks failed, and were not merely left out."""
    return sum(one.state == "bad" for one in found)
