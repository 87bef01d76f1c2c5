"""Killed between a change and the re-linking of its neighbours, the linker loses no mark."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.settings import variable_of
from mcp_assets.sync.linker import pending_links
from mcp_assets.sync.load import create_source_tables
from mcp_assets.sync.platform import Platform
from mcp_assets_tests.linking import graph, index, rebuild, relink, write_source

# Dies by SIGKILL at the n-th statement that linking sends.
_DIES_AT = """
import os, signal, sys
import psycopg
from mcp_assets.settings import load_settings
from mcp_assets.sync.linker import link_until_done
from mcp_assets.sync.platform import Platform
from mcp_assets_tests.linking import AngleEmbedder

left = int(sys.argv[1])
execute = psycopg.Connection.execute

def counted(self, *args, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return execute(self, *args, **kwargs)

platform = Platform(load_settings())
platform._embedder = AngleEmbedder()
with platform.postgres.transaction():
    pass
psycopg.Connection.execute = counted
for _ in link_until_done(platform):
    pass
"""


@pytest.mark.parametrize("statements", [8, 14, 18, 22, 26, 30, 34, 40, 48])
def test_a_linker_killed_anywhere_leaves_what_the_next_one_needs(
    make_platform: Callable[..., Platform], statements: int
) -> None:
    platform = make_platform()
    from mcp_assets_tests.linking import AngleEmbedder

    platform._embedder = AngleEmbedder()
    create_source_tables(platform)
    refs = [EntityRef(name, str(number)) for name in ("task", "page", "memory") for number in range(10)]
    for number, ref in enumerate(refs):
        write_source(platform, ref, f"title {number % 4} @{number * 2}", "[[title 1 @2]] depends on task:3")
    index(platform, *refs)
    relink(platform)
    for ref in refs[::3]:
        write_source(platform, ref, "title 1 @2", "part of page:3")
    index(platform, *refs[::3])
    assert pending_links(platform, up_to=1)
    killed = subprocess.run(
        [sys.executable, "-c", _DIES_AT, str(statements)], env=environment(platform), capture_output=True, timeout=120
    )
    assert killed.returncode in (0, -signal.SIGKILL), killed.stderr.decode()
    if statements < 20:
        assert killed.returncode == -signal.SIGKILL
    relink(platform)
    assert graph(platform) == rebuild(platform)


def environment(platform: Platform) -> dict[str, str]:
    """The platform's settings, for a process of its own."""
    settings = platform.settings
    given = {
        "database_url": settings.require_database_url(),
        "nats_url": settings.require_nats_url(),
        "qdrant_url": settings.require_qdrant_url(),
        "embedding_model": "angles",
        "embedding_dimension": "4",
    }
    return {**os.environ, **{variable_of(name): value for name, value in given.items()}}
