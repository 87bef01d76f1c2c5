"""The command blocks of a page are run as the page says: in one shell, each to the exit code that is expected."""

import subprocess
from pathlib import Path

import pytest

from mcp_assets_tests.command_blocks import blocks, script


def run(page: Path, text: str) -> subprocess.CompletedProcess[str]:
    page.write_text(text)
    return subprocess.run(["bash", "-c", script(page)], capture_output=True, text=True, check=False)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_what_one_block_exports_holds_for_the_next_also_inside_a_list(page: Path) -> None:
    text = '```sh\nexport A=1\n```\n\n1. Then\n\n    ```sh\n    echo "a is $A"\n    ```\n'
    assert run(page, text).stdout == "a is 1\n"


def test_a_command_that_fails_ends_the_script_and_names_its_block(page: Path) -> None:
    done = run(page, "# Page\n\n```sh\nfalse\necho after\n```\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the block at line 4 failed" in done.stderr


@pytest.mark.parametrize(("command", "code"), [("exit_with 1", 0), ("true", 1), ("exit_with 2", 1)])
def test_an_expected_exit_code_is_the_only_one_that_will_do(page: Path, command: str, code: int) -> None:
    text = f"```sh\nexit_with() {{ return $1; }}\n```\n\n<!-- exits with 1 -->\n```sh\n{command}\n```\n"
    assert run(page, text).returncode == code


def test_a_block_is_left_out_only_with_a_reason(page: Path) -> None:
    page.write_text("<!-- not run: it needs an account -->\n```sh\na\n```\n\n<!-- not run:  -->\n```sh\nb\n```\n")
    assert [(block.line, block.commands) for block in blocks(page)] == [(8, "b\n")]


def test_other_languages_are_no_commands(page: Path) -> None:
    page.write_text("```json\n{}\n```\n\n```console\n$ mcp-assets\n```\n")
    assert blocks(page) == []
