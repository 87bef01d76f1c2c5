"""Every command that the documentation shows is run, page by page, beside a running demo."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcp_assets
from mcp_assets_tests.command import bare_environment
from mcp_assets_tests.command_blocks import blocks, script
from mcp_assets_tests.waiting import until

ROOT = Path(mcp_assets.__file__).parents[1]
PAGES = [page for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]) if blocks(page)]
STARTS_S = 240.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running `mcp-assets demo`, with the sample indexed and linked."""
    folder = tmp_path_factory.mktemp("demo")
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, folder)
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "mcp-assets", "demo"],
            cwd=folder,
            env=bare_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(
            lambda: "Dagster UI:" in log.read_text(errors="replace") or process.poll() is not None,
            "the demo has indexed and linked its sample",
            within_s=STARTS_S,
        )
        assert process.poll() is None, log.read_text(errors="replace")
        yield folder
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_of_the_page_does_what_the_page_says(page: Path, demo: Path) -> None:
    commands = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script(page)],
        cwd=demo,
        env=bare_environment() | commands,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
