"""Secret files: a secret setting FOO may stand in a file, which FOO_FILE names, as containers mount their secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from mcp_assets.setting_errors import SettingsError

SUFFIX = "_FILE"
"""Behind the name of a secret setting: the variable that names a file with its value. Container images use it, too."""

LARGEST_BYTES = 65_536
"""A longer file holds no secret: a wrong path, such as that of a log or a device, is refused before it fills memory."""


def environment() -> dict[str, str]:
    """The variables of this process, and those of the `.env` file that it has not, by their upper-case names."""
    return {
        name.upper(): value
        for variables in (dotenv_values(".env"), os.environ)
        for name, value in variables.items()
        if value
    }


def is_secret(field: FieldInfo) -> bool:
    """The setting's value is never shown."""
    return "Secret" in str(field.annotation)


def file_variables(fields: Mapping[str, FieldInfo]) -> list[str]:
    """The variable of each secret setting, without the suffix."""
    return [str(field.validation_alias) for field in fields.values() if is_secret(field)]


def files_named(fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """The variables `FOO_FILE` that are set, with absolute paths: a child process may have another working folder."""
    given = environment()
    return {
        name + SUFFIX: str(Path(given[name + SUFFIX]).expanduser().absolute())
        for name in file_variables(fields)
        if given.get(name + SUFFIX)
    }


def read_secret(variable: str, path: str) -> str:
    """The content of the file that `variable` names, without the line break at its end.

    Raises:
        SettingsError: the file cannot be read, is empty, or holds no text.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(
            f"{variable}: the file {path} cannot be read ({reason}): check the path, and whether this user may read it"
        ) from None
    if len(content) > LARGEST_BYTES:
        raise SettingsError(f"{variable}: the file {path} is longer than {LARGEST_BYTES} bytes: name that of a secret")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: the file {path} is no UTF-8 text: write the secret into it as text") from None
    if not text.strip():
        raise SettingsError(f"{variable}: the file {path} is empty: write the secret into it, or unset {variable}")
    return text


class SecretFiles(PydanticBaseSettingsSource):
    """Reads the secrets whose files are named, in the environment or in the `.env` file of the settings."""

    def __init__(self, settings_class: type[BaseSettings], *variables: PydanticBaseSettingsSource) -> None:
        """`variables`: the sources that know variables: environment and `.env` file, in this order."""
        super().__init__(settings_class)
        self._variables: dict[str, str] = {}
        for source in reversed(variables):
            known: Mapping[str, str | None] = getattr(source, "env_vars", {})
            self._variables |= {name.upper(): value for name, value in known.items() if value}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = str(field.validation_alias)
        path = self._variables.get(variable + SUFFIX)
        if path is None or not is_secret(field):
            return None, field_name, False
        if variable in self._variables:
            raise SettingsError(
                f"both {variable} and {variable}{SUFFIX} are set, and one of them would be ignored: unset one"
            )
        return read_secret(variable + SUFFIX, path), variable, False

    def __call__(self) -> dict[str, Any]:
        """By variable, the secrets that stand in files.

        Raises:
            SettingsError: one sentence for each file that cannot be used, and for each secret that is set twice.
        """
        found: dict[str, Any] = {}
        faults = []
        for name, field in self.settings_cls.model_fields.items():
            try:
                value, variable, _ = self.get_field_value(field, name)
            except SettingsError as error:
                faults.append(str(error))
                continue
            if value is not None:
                found[variable] = value
        if faults:
            raise SettingsError("\n".join(faults))
        return found
