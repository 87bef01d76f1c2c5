"""Dependencies: each has a licence that is allowed, and an audit that could not ask is no clean one."""

import pytest

from mcp_assets_tests import audit
from mcp_assets_tests.reference.licences import EXCEPTIONS, identifier, of_runtime, refusals


def test_every_package_that_is_installed_has_a_licence_that_is_allowed() -> None:
    licences = of_runtime()

    assert refusals(licences) == []
    assert licences.keys() >= EXCEPTIONS.keys(), "an exception for a package that is not used any more"
    assert len(licences) > 100


@pytest.mark.parametrize(
    "licence",
    ["AGPL-3.0-only", "MIT AND SSPL-1.0", "GNU General Public License (GPL)", "Business Source License", None],
)
def test_a_licence_that_is_not_allowed_is_refused_with_the_package(licence: str | None) -> None:
    (said,) = refusals({"fine": "MIT OR Apache-2.0", "another": licence})

    assert said.startswith("another is licensed under")


def test_words_of_packages_become_identifiers() -> None:
    assert identifier("BSD License OR Apache Software License") == "BSD-3-Clause OR Apache-2.0"


def test_an_audit_without_an_answer_says_that_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")

    assert audit.main() == audit.COULD_NOT_ASK
    assert capsys.readouterr().err.startswith("Nothing is known, because")
