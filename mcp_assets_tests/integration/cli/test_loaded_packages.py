"""What a command loads: most of its start is the loading of packages, so that it loads none that it does not need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets_tests.clients import environment_of

HEAVY = {
    "alembic", "dagster", "grpc", "igraph", "mcp", "nats", "openai", "pandas", "qdrant_client", "sqlalchemy",
    "structlog", "tokenizers", "wordllama",
}  # fmt: skip
"""Packages that take long to load."""

_SCRIPT = """
import sys
sys.argv = ["mcp-assets", *sys.argv[2:]]
from mcp_assets.cli import main
heavy = {heavy!r}
try:
    main()
finally:
    print("loaded:", *sorted(heavy & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["sync", "--full", "--json"], set()),
        (["status"], {"nats"}),
        (["search", "nothing", "--by", "words"], set()),
        (["search", "nothing"], {"grpc", "qdrant_client", "tokenizers", "wordllama"}),
        (["mcp"], {"mcp", "nats"}),
    ],
    ids=lambda value: " ".join(sorted(value) if isinstance(value, set) else value),
)
def test_a_command_loads_no_heavy_package_that_it_does_not_need(
    platform: Platform, tmp_path: Path, words: list[str], needed: set[str]
) -> None:
    with platform.postgres.transaction():
        """The schema is made."""
    environment = {
        name: value
        for name, value in (os.environ | environment_of(platform.settings)).items()
        # Without a provider, the local model embeds.
        if not name.startswith(("OPENAI_", "EMBEDDING_"))
    }

    # The first sync makes the collections.
    loaded_by(["sync", "--full"], environment, tmp_path)

    assert loaded_by(words, environment, tmp_path) <= needed


def loaded_by(words: list[str], environment: dict[str, str], folder: Path) -> set[str]:
    """The heavy packages that the command has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(heavy=HEAVY), "--", *words],
        env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = done.stderr.splitlines()[-1].split()
    assert loaded[0] == "loaded:", done.stderr
    return set(loaded[1:])
