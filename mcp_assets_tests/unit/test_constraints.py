"""What is pinned: by version and hash, without an address, and development tools apart."""

import re
import tomllib
from pathlib import Path

import pytest

from mcp_assets_tests.constraints import DEVELOPMENT, EXTRAS, ROOT, RUNTIME, added, entries

SHARED = {"websockets"}
"""What development uses of the packages that the platform needs: the webserver brings it with uvicorn."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0].lower() for requirement in requirements}


def test_the_demo_installs_no_development_tool() -> None:
    runtime = entries(RUNTIME.read_text()).keys()
    assert names(PROJECT["dependencies"]) <= runtime
    assert names(PROJECT["optional-dependencies"]["dev"]) & runtime == SHARED


def test_development_tools_are_pinned_beside_what_the_platform_needs() -> None:
    runtime, development = entries(RUNTIME.read_text()).keys(), entries(DEVELOPMENT.read_text()).keys()
    wanted = {name for extra in PROJECT["optional-dependencies"].values() for name in names(extra)}
    assert wanted - {"mcp-assets"} <= runtime | development
    assert runtime & development == set()


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_of_a_deployment_adds_is_pinned_as_development_has_it(extra: str) -> None:
    runtime, development = entries(RUNTIME.read_text()), entries(DEVELOPMENT.read_text())
    pinned = entries(EXTRAS[extra].read_text())
    assert names(PROJECT["optional-dependencies"][extra]) <= runtime.keys() | pinned.keys()
    assert runtime.keys() & pinned.keys() == set()
    assert pinned.items() <= development.items()


@pytest.mark.parametrize("file", [RUNTIME, DEVELOPMENT, *EXTRAS.values()], ids=lambda file: file.name)
def test_each_pin_has_a_version_and_hashes_and_no_address(file: Path) -> None:
    for lines in entries(file.read_text()).values():
        assert re.fullmatch(r"\S+==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n)+", lines), lines
    assert "://" not in file.read_text()


def test_a_version_that_development_would_change_is_an_error() -> None:
    with pytest.raises(ValueError, match="numpy"):
        added({"numpy": "numpy==2\n"}, {"numpy": "numpy==1\n"})
