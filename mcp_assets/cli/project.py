"""The files of a project folder: which dagster.yaml and workspace count there, and those that the package brings."""

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

import mcp_assets

_PACKAGED = "project_files"
"""Folder of the installed package with the files of a project; in a checkout, some of them are at its top."""

_HOME = "dagster_home"


class ProjectError(Exception):
    """A file of the project folder cannot be read; the message names it."""


def packaged(name: str) -> Path:
    """The file of a project that the package brings, such as `dagster.yaml`.

    A wheel has all of them in one folder (`pyproject.toml` says which). In a checkout, those that the checkout uses
    itself are at its top, so that there is one copy of each.
    """
    package = Path(mcp_assets.__file__).parent
    installed = package / _PACKAGED / name
    return installed if installed.exists() else package.parent / name


def dagster_home(environment: Mapping[str, str], state_dir: Path) -> Path | None:
    """Dagster's home: DAGSTER_HOME, this folder if it has a dagster.yaml, or what `with_dagster_home` has made."""
    if environment.get("DAGSTER_HOME"):
        return Path(environment["DAGSTER_HOME"])
    if Path("dagster.yaml").exists():
        return Path.cwd()
    made = state_dir.resolve() / _HOME
    return made if (made / "dagster.yaml").exists() else None


def with_dagster_home(environment: Mapping[str, str], state_dir: Path) -> dict[str, str]:
    """`environment` with a DAGSTER_HOME: in a folder without a dagster.yaml one in `state_dir`, with the package's."""
    home = dagster_home(environment, state_dir)
    made = state_dir.resolve() / _HOME
    if home is None or home == made:
        made.mkdir(mode=0o700, exist_ok=True)
        # Again at each start, so that it is that of the package as it is installed now.
        shutil.copyfile(packaged("dagster.yaml"), made / "dagster.yaml")
        home = made
    return {**environment, "DAGSTER_HOME": str(home)}


def workspace_file() -> Path | None:
    """The package's workspace file, in a folder that does not say itself what Dagster loads there; otherwise None.

    Raises:
        ProjectError: pyproject.toml cannot be read.
    """
    if Path("workspace.yaml").exists() or Path("workspace.yml").exists() or is_dagster_project(Path()):
        return None
    return packaged("workspace.yaml")


def is_dagster_project(folder: Path) -> bool:
    """Whether pyproject.toml of `folder` says what Dagster loads there.

    Raises:
        ProjectError: it cannot be read.
    """
    file = folder / "pyproject.toml"
    try:
        tools = tomllib.loads(file.read_text()).get("tool", {})
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise ProjectError(f"{file.resolve()} cannot be read: {error}") from error
    return "dagster" in tools or "dg" in tools
