"""`from mcp_assets import search`, as a program of a user calls it: with the settings of its environment."""

import os
import subprocess
import sys
from pathlib import Path

from mcp_assets.platform import Platform
from mcp_assets_tests.clients import environment_of
from mcp_assets_tests.observing import put, sync_all

PROGRAM = """
from mcp_assets import search

for query in ("CHK-104", "certificates of the gateway"):
    answer = search(query, types=["task"], where=["status=open"], limit=1)
    assert answer.missing == [], answer.missing
    print(*(f"{one.ref} {one.title}: {one.passage.excerpt}" for one in answer.results))
"""


def test_a_program_finds_entities_by_id_and_by_words_with_the_settings_of_its_environment(
    platform: Platform, tmp_path: Path
) -> None:
    put(platform, "tasks", id="CHK-104", title="Renew", description="certificates of the gateway", status="open")
    put(platform, "tasks", id="CHK-105", title="Renewed", description="certificates of the gateway", status="done")
    sync_all(platform, "task")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | environment_of(platform.settings), cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["task:CHK-104 Renew: certificates of the gateway"] * 2
