"""The component of the Dagster project in the working folder: its attributes, read without Dagster, as settings.

A project that has the platform as a component says some settings in that component's defs.yaml. The command line reads
them there, too, because otherwise it would work on other tables or another model than the definitions do.
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from mcp_assets.mapping_file import DEFAULT_NAME
from mcp_assets.setting_errors import SettingsError

COMPONENT = "mcp_assets.components.McpAssetsComponent"

_FILES = ("defs.yaml", "defs.yml", "component.yaml")


def component_settings() -> dict[str, Any]:
    """Field names of the settings to values, of the project in the working folder. Empty: it has no such component.

    Raises:
        SettingsError: a file cannot be read, two components differ, or a value is a template, which Dagster fills in.
    """
    return dict(_settings_in(Path.cwd()))


@lru_cache
def _settings_in(root: Path) -> Mapping[str, Any]:
    """As `component_settings`; once a folder and process, because settings are read at each tick of a sensor."""
    found = {
        file: settings_of(attributes, root)
        for folder in _folders_of_definitions(root)
        for file, attributes in _components_below(folder)
    }
    if not found:
        return {}
    (first, settings), *others = found.items()
    for other, differing in others:
        if differing != settings:
            raise SettingsError(f"{first} and {other} say different settings of mcp_assets: keep one of the components")
    return settings


def settings_of(attributes: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """`attributes` as settings. The mapping file is an absolute path, because processes start in different folders.

    `root`: the folder of the project. Its mapping file counts where the attributes map no tables.
    """
    settings = {name: value for name, value in attributes.items() if value is not None}
    if "sources_file" in settings:
        settings["sources_file"] = str((root / settings["sources_file"]).resolve())
    elif "types" not in settings and (root / DEFAULT_NAME).exists():
        settings["sources_file"] = str((root / DEFAULT_NAME).resolve())
    return settings


def _folders_of_definitions(root: Path) -> Iterator[Path]:
    """Where the project in `root` has its definitions, as `dg` finds them."""
    try:
        if (root / "dg.toml").exists():
            config = tomllib.loads((root / "dg.toml").read_text())
        elif (root / "pyproject.toml").exists():
            config = tomllib.loads((root / "pyproject.toml").read_text()).get("tool", {}).get("dg", {})
        else:
            return
    except (OSError, ValueError) as error:
        raise SettingsError(f"the project's configuration in {root} cannot be read: {error}") from error
    project = config.get("project", {})
    if "root_module" in project:
        module = str(project.get("defs_module") or f"{project['root_module']}.defs")
        yield from (
            folder for folder in (root / top / Path(*module.split(".")) for top in ("src", "")) if folder.is_dir()
        )


def _components_below(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for file in sorted(found for name in _FILES for found in folder.rglob(name)):
        try:
            documents = list(yaml.safe_load_all(file.read_text()))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise SettingsError(f"{file} cannot be read: {error}") from error
        for document in documents:
            if isinstance(document, dict) and document.get("type") == COMPONENT:
                attributes = document.get("attributes") or {}
                if "{{" in str(attributes):
                    raise SettingsError(
                        f"{file}: the command line cannot fill in a template: write the value there, or take the "
                        "attribute away and set its environment variable"
                    )
                yield file, attributes
