"""World: does the steps of a workload as MCP servers would, whatever of the platform is down at the moment.

One publisher thread keeps the order of events; each is published until the stream has it, under a message id, so that
a repeated publish is stored once. Rows are written until PostgreSQL has committed them: each write says the whole row,
so that a repeated one changes nothing.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import nats
import psycopg
from nats.aio.client import Client
from nats.errors import Error as NatsError
from psycopg.types.json import Jsonb
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mcp_assets.entities.refs import EntityRef
from storming.workload import Delete, Junk, Repeat, Request, Row, State, Step, Write

_TABLES = {"task": ("tasks", "description"), "page": ("wiki_pages", "content"), "memory": ("memory_nodes", "content")}

_SUBJECTS = {"task": "mcp.kanban.task", "page": "mcp.wiki.page", "memory": "mcp.memory.node"}

_RETRY_S = 0.2
_GIVE_UP_S = 300.0


class World:
    """Two clients of their own, of PostgreSQL and of NATS, that outlive every outage of either."""

    def __init__(self, database_url: str, nats_url: str) -> None:
        self._database_url = database_url
        self._publisher = _Publisher(nats_url)
        self._connection: psycopg.Connection[Any] | None = None
        self._late = ThreadPoolExecutor(8, thread_name_prefix="late-commit")
        self._commits: list[Future[None]] = []
        self._open: dict[EntityRef, Future[None]] = {}

    def __enter__(self) -> Self:
        self._publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._late.shutdown(wait=True)
        self._publisher.stop()
        if self._connection is not None:
            self._connection.close()

    def do(self, step: Step) -> None:
        """One step; returns when it is durable, but for a commit that follows its event later."""
        ref = getattr(step, "ref", None)
        if ref in self._open:
            # The rows of one entity are committed in the order of the steps.
            self._open.pop(ref).result()
        match step:
            case Write(event="before"):
                self._open[step.ref] = self._late.submit(self._commit_late, step)
                self._commits.append(self._open[step.ref])
            case Write():
                self._write(step.ref, step.row)
                if step.event == "after":
                    self._tell(step.ref, "updated")
            case Delete():
                self._delete(step.ref)
                if step.event == "after":
                    self._tell(step.ref, "deleted")
            case Repeat():
                self._tell(step.ref, "updated")
            case State():
                self._state(step)
            case Junk():
                self._publisher.publish("mcp.task.updated", step.body)
            case Request():
                self._publisher.publish(f"{step.subject}.request", _request_body(step))

    def finish(self) -> None:
        """Wait for the commits that are still to follow their events."""
        for commit in self._commits:
            commit.result()

    def publish(self, subject: str, body: object) -> None:
        """Publish one message, until the stream has it."""
        self._publisher.publish(subject, json.dumps(body).encode())

    def _commit_late(self, step: Write) -> None:
        reported = False
        for attempt in _retrying():
            with attempt, psycopg.connect(self._database_url, connect_timeout=5) as connection:
                _upsert(connection, step.ref, step.row)
                if not reported:
                    self._tell(step.ref, "updated")
                    reported = True
                    time.sleep(step.delay_s)

    def _write(self, ref: EntityRef, row: Row) -> None:
        self._execute(lambda connection: _upsert(connection, ref, row))

    def _delete(self, ref: EntityRef) -> None:
        statement = f"DELETE FROM {_TABLES[ref.type][0]} WHERE id = %s"
        self._execute(lambda connection: connection.execute(statement, (ref.id,)))

    def _execute(self, work: Callable[[psycopg.Connection[Any]], object]) -> None:
        for attempt in _retrying():
            with attempt:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._database_url, autocommit=True, connect_timeout=5)
                work(self._connection)

    def _tell(self, ref: EntityRef, verb: str) -> None:
        self._publisher.publish(f"{_SUBJECTS[ref.type]}.{verb}", json.dumps({"entity_id": ref.id}).encode())

    def _state(self, step: State) -> None:
        data: dict[str, Any] = {"entity_id": step.ref.id, "entity_type": step.ref.type}
        if step.row is not None:
            data |= {"title": step.row.title, "content": step.row.content}
            data["metadata"] = {"tags": list(step.row.tags), "mood": step.row.mood}
        verb = "deleted" if step.row is None else "updated"
        self._publisher.publish(f"{_SUBJECTS[step.ref.type]}.{verb}", json.dumps({"data": data}).encode())


def _retrying() -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(psycopg.OperationalError),
        wait=wait_fixed(_RETRY_S),
        stop=stop_after_delay(_GIVE_UP_S),
        reraise=True,
    )


def _upsert(connection: psycopg.Connection[Any], ref: EntityRef, row: Row) -> None:
    table, text = _TABLES[ref.type]
    connection.execute(
        f"INSERT INTO {table} (id, title, {text}, tags, metadata) VALUES (%s, %s, %s, %s, %s)"
        f" ON CONFLICT (id) DO UPDATE SET title = excluded.title, {text} = excluded.{text}, tags = excluded.tags,"
        " metadata = excluded.metadata",
        (ref.id, row.title, row.content, list(row.tags), Jsonb({"mood": row.mood})),
    )


def _request_body(step: Request) -> bytes:
    data: dict[str, Any] = {}
    if step.sync_type is not None:
        data = {"sync_type": step.sync_type, "entity_ids": [str(step.ref)] if step.ref is not None else []}
    elif step.ref is not None:
        data = {"entity_id": step.ref.id, "entity_type": step.ref.type}
    return json.dumps({"message_id": step.message_id, "source": "storm", "data": data}).encode()


class _Publisher:
    """Publishes one message after the other, each until the stream has acknowledged it, in a loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="publisher", daemon=True)
        self._turn = threading.Lock()
        self._client: Client | None = None
        self._sent = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def publish(self, subject: str, body: bytes) -> None:
        with self._turn:
            self._sent += 1
            headers = {"Nats-Msg-Id": f"storm-{id(self)}-{self._sent}"}
            sending = self._publish(subject, body, headers)
            asyncio.run_coroutine_threadsafe(sending, self._loop).result(_GIVE_UP_S)

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        stored = False
        while not stored:
            try:
                if self._client is None:
                    self._client = await nats.connect(
                        self._url, allow_reconnect=False, connect_timeout=2, error_cb=_quiet
                    )
                await self._client.jetstream(timeout=3).publish(subject, body, headers=headers)
                stored = True
            except (NatsError, OSError):
                await self._leave()
                await asyncio.sleep(_RETRY_S)

    async def _leave(self) -> None:
        if self._client is not None:
            with suppress(NatsError, OSError):
                await self._client.close()
        self._client = None


async def _quiet(_: Exception) -> None:
    """The storm kills servers: the loop that publishes tries again."""


def answered(url: str, subjects: Sequence[str], stream: str) -> set[str]:
    """Message ids of the requests that the results kept in `stream` answer."""
    return asyncio.run(_answered(url, subjects, stream))


async def _answered(url: str, subjects: Sequence[str], stream: str) -> set[str]:
    client = await nats.connect(url, connect_timeout=5, error_cb=_quiet)
    try:
        context = client.jetstream()
        found: set[str] = set()
        info = await context.stream_info(stream)
        if info.state.messages == 0:
            return found
        reader = await context.subscribe(">", stream=stream, ordered_consumer=True)
        last = info.state.last_seq
        while True:
            message = await reader.next_msg(timeout=10)
            if message.subject in subjects:
                found.update(json.loads(message.data)["data"].get("requests", []))
            if message.metadata.sequence.stream >= last:
                return found
    finally:
        await client.close()
