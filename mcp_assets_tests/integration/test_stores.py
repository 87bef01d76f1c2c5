"""The stores: what each promises to `sync`, against real servers: durable or an error, and never half known."""

import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.http.api.points_api import SyncPointsApi

from mcp_assets.entities.points import Key
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.nats import NatsStreams
from mcp_assets.stores.postgres import Postgres
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.stores.qdrant_points import Point
from mcp_assets.sync.collections.model_collections import ensure_collection
from mcp_assets_tests.clients import qdrant_of
from mcp_assets_tests.observing import points, put_tasks, rows, send_looks, sync_all

DIMENSION = 16


def point(number: int, dimension: int = DIMENSION, **payload: Any) -> Point:
    vector = np.zeros(dimension, np.float32)
    vector[number % dimension] = 1
    return Point(UUID(int=number), vector, {Key.KIND: "entity", "entity_id": str(number), **payload})


# PostgreSQL.


def test_the_schema_is_made_once_though_many_processes_start_at_once(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    starters = [make_platform(schema_name="own_schema") for _ in range(6)]

    def start(own: Platform) -> int:
        with own.postgres.transaction() as connection:
            row = connection.execute("SELECT count(*) FROM own_schema.entities").fetchone()
        assert row is not None
        return int(row[0])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, starters)) == [0] * 6


def test_two_schemas_in_one_database_know_nothing_of_each_other(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {"t": "T"})
    sync_all(platform)

    other = make_platform(schema_name="other")
    assert rows(other, "SELECT count(*) FROM {schema}.entities") == [(0,)]
    assert rows(platform, "SELECT count(*) FROM {schema}.entities") == [(1,)]


def test_a_transaction_whose_block_raises_leaves_nothing(platform: Platform) -> None:
    with pytest.raises(ZeroDivisionError), platform.postgres.transaction() as connection:
        connection.execute("INSERT INTO tasks (id, title) VALUES ('t', 'T')")
        raise ZeroDivisionError

    assert rows(platform, "SELECT id FROM tasks") == []


def test_connections_that_a_restart_of_the_server_broke_are_replaced_unseen(platform: Platform) -> None:
    rows(platform, "SELECT 1")
    with platform.postgres.session() as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 10_000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    assert rows(platform, "SELECT 1") == [(1,)]


LISTS_OF_TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
    | st.sampled_from(["", "NULL", "null", '"', "\\", "{}", ",", ' "a" ', "\\N", "a\nb"])
    | st.none(),
    max_size=5,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=LISTS_OF_TEXTS)
def test_lists_of_any_texts_are_parameters(platform: Platform, texts: list[str | None]) -> None:
    assert rows(platform, "SELECT %s::text[]", texts) == [(texts,)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(allow_nan=False) | st.none(), max_size=5),
    truths=st.lists(st.booleans() | st.none(), max_size=5),
)
def test_lists_of_any_numbers_and_truths_are_parameters(
    platform: Platform, numbers: list[float | None], truths: list[bool | None]
) -> None:
    assert rows(platform, "SELECT %s::float8[], %s::boolean[]", numbers, truths) == [(numbers, truths)]


def test_other_lists_are_parameters_too_and_what_no_text_can_hold_is_refused(platform: Platform) -> None:
    assert rows(platform, "SELECT %s::int[], %s::text[]", [1, 2], [["a"], ["b"]]) == [([1, 2], [["a"], ["b"]])]
    for text in ("a\0b", "\ud800"):
        with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
            rows(platform, "SELECT %s::text[]", [text])


def test_an_error_of_a_statement_is_no_outage(platform: Platform) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation), platform.postgres.transaction() as connection:
        connection.execute("INSERT INTO tasks (id, title) VALUES ('t', 'T'), ('t', 'T')")


def test_a_database_that_is_not_there_is_unavailable_with_the_setting_to_check(platform: Platform) -> None:
    url = platform.settings.require_database_url().replace("/test?", "/absent?")
    postgres = Postgres(url, "mcp_assets", "public.relationships", {}, timeout_s=2)
    with (
        pytest.raises(StoreUnavailable, match=r'database "absent" does not exist.*DATABASE_URL'),
        postgres.transaction(),
    ):
        pass
    postgres.close()


# Qdrant.


def test_a_collection_is_made_once_though_many_ask_for_it_at_once(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    askers = [make_platform() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        names = set(pool.map(lambda own: ensure_collection(own.qdrant, "things", own.embedder.profile).name, askers))

    assert names == {"things__stub_16"}
    assert platform.qdrant.collections() == ["things__stub_16"]
    assert platform.qdrant.alias_target("things") == "things__stub_16"


def test_a_collection_has_its_payload_indexes(platform: Platform) -> None:
    name = ensure_collection(platform.qdrant, "things", platform.embedder.profile).name
    client = qdrant_of(platform.settings)
    schema = client.get_collection(name).payload_schema
    client.close()

    assert {key: index.data_type for key, index in schema.items()} == {
        Key.KIND: models.PayloadSchemaType.KEYWORD,
        "entity_id": models.PayloadSchemaType.KEYWORD,
        "entity_type": models.PayloadSchemaType.KEYWORD,
        Key.SLOT: models.PayloadSchemaType.INTEGER,
    }


def test_more_points_than_a_request_holds_are_all_written_and_a_repeated_write_changes_nothing(
    platform: Platform,
) -> None:
    name = ensure_collection(platform.qdrant, "things", platform.embedder.profile).name
    many = [point(number) for number in range(1, 1001)]
    for _ in range(2):
        platform.qdrant.write(name, upsert=many)
        assert platform.qdrant.count(name) == 1000

    platform.qdrant.write(
        name,
        payloads={point.id: {"only": "this"} for point in many[:900]},
        delete=[point.id for point in many[500:]],
    )
    stored = points(platform, "things")
    assert len(stored) == 500
    assert {tuple(stored_point.payload.items()) for stored_point in stored.values()} == {(("only", "this"),)}


def test_a_point_of_the_wrong_dimension_is_refused_and_not_dropped(platform: Platform) -> None:
    name = ensure_collection(platform.qdrant, "things", platform.embedder.profile).name

    with pytest.raises(StoreRefused, match=r"400"):
        platform.qdrant.write(name, upsert=[point(1, dimension=8)])


def test_a_write_to_a_collection_that_is_gone_is_refused(platform: Platform) -> None:
    with pytest.raises(StoreRefused, match="404"):
        platform.qdrant.write("gone", upsert=[point(1)])
    with pytest.raises(StoreRefused, match="404"):
        platform.qdrant.count("gone")


def test_a_write_that_is_only_acknowledged_does_not_count_as_done(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ensure_collection(platform.qdrant, "things", platform.embedder.profile).name
    answer = models.UpdateResult(operation_id=1, status=models.UpdateStatus.ACKNOWLEDGED)
    answered = models.InlineResponse2008(result=answer)
    monkeypatch.setattr(SyncPointsApi, "upsert_points", lambda *_, **__: answered)
    monkeypatch.setattr(QdrantClient, "delete", lambda *_, **__: answer)
    batch = models.InlineResponse20018(result=[answer])
    monkeypatch.setattr(SyncPointsApi, "batch_update", lambda *_, **__: batch)

    for write in ({"upsert": [point(1)]}, {"delete": [uuid4()]}, {"payloads": {uuid4(): {"a": 1}}}):
        with pytest.raises(StoreUnavailable, match="has not applied it"):
            platform.qdrant.write(name, **write)


def test_a_silent_qdrant_is_unavailable_in_every_call() -> None:
    qdrant = Qdrant("http://127.0.0.1:1", timeout_s=2)
    for call in (
        lambda: qdrant.count("things"),
        qdrant.collections,
        lambda: qdrant.alias_target("things"),
        lambda: qdrant.write("things", delete=[uuid4()]),
        lambda: qdrant.search("things", np.ones(4, np.float32), entity_type="task", limit=1),
    ):
        with pytest.raises(StoreUnavailable, match=r"127.0.0.1:1.*QDRANT_URL"):
            call()
    qdrant.close()


# NATS.


def test_a_stream_is_made_once_on_exactly_our_subjects(platform: Platform) -> None:
    platform.nats.ensure_stream("MCP_ASSETS")

    state = platform.nats.state("MCP_ASSETS")
    assert state is not None
    assert (state.first_seq, state.last_seq, state.foreign_subjects) == (1, 0, False)
    assert platform.nats.state("ABSENT") is None


def test_a_read_goes_on_after_a_sequence_up_to_its_limit_and_says_whether_there_is_more(platform: Platform) -> None:
    send_looks(platform, *(str(n) for n in range(500)))
    state = platform.nats.state("MCP_ASSETS")
    assert state is not None

    first = platform.nats.read(state, 0, limit=300, max_bytes=1 << 20, wait_s=1)
    rest = platform.nats.read(state, first.messages[-1].seq, limit=300, max_bytes=1 << 20, wait_s=1)
    empty = platform.nats.read(state, 500, limit=300, max_bytes=1 << 20, wait_s=0.2)

    assert [message.seq for message in first.messages] == list(range(1, 301))
    assert [message.seq for message in rest.messages] == list(range(301, 501))
    assert (first.more, rest.more) == (True, False)
    assert (list(empty.messages), empty.more) == ([], False)
    stamps = [message.stored_at for message in (*first.messages, *rest.messages)]
    assert stamps == sorted(stamps)
    assert all(stamp.tzinfo is not None for stamp in stamps)


def test_one_connection_serves_many_threads_at_once(platform: Platform) -> None:
    def work(number: int) -> int:
        send_looks(platform, f"{number}")
        state = platform.nats.state("MCP_ASSETS")
        assert state is not None
        return len(platform.nats.read(state, 0, limit=100, max_bytes=1 << 20, wait_s=1).messages)

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(work, range(24)))

    assert max(counts) == 24
    assert min(counts) >= 1


def test_a_connection_that_was_closed_may_be_closed_again_and_used_again(platform: Platform) -> None:
    streams = NatsStreams(platform.settings.require_nats_url(), ["mcp.>"])
    assert streams.state("MCP_ASSETS") is not None
    streams.close()
    streams.close()
    assert streams.state("MCP_ASSETS") is not None
    streams.close()


@pytest.mark.parametrize(
    "opening",
    [
        b"INFO []\r\n",
        b"INFO 1\r\n",
        b"INFO {}\r\n",
        b"INFO {\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\r\n",
    ],
)
def test_what_answers_at_the_address_of_nats_without_being_nats_is_a_store_that_is_away(opening: bytes) -> None:
    class Stranger(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(opening)
            self.request.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        streams = NatsStreams(f"nats://127.0.0.1:{server.server_address[1]}", ["mcp.>"], timeout_s=2)
        try:
            with pytest.raises(StoreUnavailable, match="NATS"):
                streams.state("MCP_ASSETS")
        finally:
            streams.close()
            server.shutdown()
