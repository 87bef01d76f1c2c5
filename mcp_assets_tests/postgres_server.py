"""A PostgreSQL of a test's own over TCP, which asks for a password; from the wheel, whose server has no TLS."""

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from mcp_assets.embedded.servers.postgres import CACHE, UNPRIVILEGED, _installed_programs, reachable_programs
from mcp_assets_tests.nats_servers import free_port
from mcp_assets_tests.waiting import until


@dataclass(frozen=True)
class PasswordServer:
    """The server. `password` is that of its superuser `app`."""

    port: int
    password: str

    def url(self, *, host: str = "127.0.0.1", password: str | None = None, options: str = "") -> str:
        return f"postgresql://app:{password or self.password}@{host}:{self.port}/postgres{options}"


@contextmanager
def password_server(password: str) -> Iterator[PasswordServer]:
    """`password`: of the superuser `app`."""
    user = UNPRIVILEGED if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="mcp", dir="/tmp") as name:
        folder = Path(name)
        programs = reachable_programs(_installed_programs(), CACHE) if user else _installed_programs()
        (folder / "password").write_text(password)
        if user:
            owner = pwd.getpwnam(user)
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        data = folder / "data"
        asks = (
            "--username=app",
            f"--pwfile={folder}/password",
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        )
        subprocess.run(
            [programs / "initdb", f"--pgdata={data}", *asks, "--no-sync", "--encoding=UTF8", "--locale=C"],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        port = free_port()
        options = ("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", str(folder), "-p", str(port))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", str(data), *options], user=user, cwd=folder, stdout=log, stderr=log
            )
        try:
            server = PasswordServer(port, password)
            until(lambda: _answers(server), f"PostgreSQL answers (its log is {folder}/log)")
            yield server
        finally:
            process.terminate()
            process.wait()


def _answers(server: PasswordServer) -> bool:
    try:
        psycopg.connect(server.url()).close()
    except psycopg.OperationalError:
        return False
    return True
