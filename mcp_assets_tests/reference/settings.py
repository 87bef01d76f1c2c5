"""The settings as a page of the reference and as `.env.example`, made from the class."""

from pydantic_core import PydanticUndefined

from mcp_assets.secret_files import SUFFIX, is_secret
from mcp_assets.setting_fields import GROUPS
from mcp_assets.settings import Settings, variable_of

_HEAD = """# Settings

All are environment variables, or lines of a file `.env` in the folder in which a process starts.
A setting that is unset has the default.
A wrong value is refused with a sentence that names the setting; secrets are never printed.

A **secret** may stand in a file, as containers mount them.
The variable of the same name with `_FILE` behind it names the file: `DATABASE_URL_FILE=/run/secrets/database_url`.
The line break at the end of the file is left out.
A secret that is set in both ways is refused.

`DATABASE_URL`, `NATS_URL` and `QDRANT_URL` each replace an embedded store.
`OPENAI_API_KEY` or `OPENAI_BASE_URL` replaces the local embedding model.
"""


def page() -> str:
    """The page: a table for each group of settings."""
    rows = []
    for group in GROUPS:
        title = (group.__doc__ or "").rstrip(".")
        rows.append(f"\n## {title}\n\n| variable | default | what it sets |\n|---|---|---|\n")
        for name, field in group.model_fields.items():
            default = field.default
            shown = "" if default in (None, PydanticUndefined) else f"`{_literal(default)}`"
            secret = f" Secret: or `{variable_of(name)}{SUFFIX}`." if is_secret(field) else ""
            rows.append(f"| `{variable_of(name)}` | {shown} | {field.description}{secret} |\n")
    return _HEAD + "".join(rows)


def env_example() -> str:
    """Every setting as a line of a `.env` file, commented out, with its default."""
    lines = [
        "# Settings, as a file .env has them. Remove the mark of comment from those that you change.",
        "# A setting that is unset has the default that stands here. DATABASE_URL, NATS_URL and QDRANT_URL each",
        "# replace an embedded store. OPENAI_API_KEY or OPENAI_BASE_URL replaces the local embedding model.",
        "# A variable that ends in _FILE names a file with the secret, in place of the variable above it.",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in (None, PydanticUndefined) else _literal(default)
        lines += ["", f"# {field.description}", f"#{variable_of(name)}={shown}"]
        if is_secret(field):
            lines.append(f"#{variable_of(name)}{SUFFIX}=")
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)
