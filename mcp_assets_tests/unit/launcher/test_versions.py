"""With a version of Dagster that was not tried, the launcher's names stand for Dagster's own, and a warning says so."""

import subprocess
import sys

import dagster
import pytest

from dagster_warm_launcher.versions import TRIED

_BASES = """
import dagster
dagster.__version__ = {version!r}
import dagster_warm_launcher as launcher
print(launcher.WarmRunLauncher.__mro__[1].__name__, launcher.PromptRunCoordinator.__mro__[1].__name__)
"""


@pytest.mark.parametrize(
    ("version", "bases"),
    [
        (TRIED[-1], "RunLauncher QueuedRunCoordinator"),
        ("99.0.0", "DefaultRunLauncher QueuedRunCoordinator"),
    ],
)
def test_an_untried_version_of_dagster_has_its_own_launcher_and_a_warning_says_so(version: str, bases: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BASES.format(version=version)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == bases
    assert ("99.0.0 is not one of the versions" in done.stderr) == (version == "99.0.0")


def test_the_installed_version_of_dagster_was_tried() -> None:
    assert dagster.__version__ in TRIED
