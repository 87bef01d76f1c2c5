"""The settings as a Markdown table and as `.env.example`, made from the class; a test compares both with the files."""

from pathlib import Path

from pydantic_core import PydanticUndefined

from mcp_assets.settings import Settings, variable_of

README = Path(__file__).parent.parent / "README.md"
ENV_EXAMPLE = README.parent / ".env.example"
BEGIN = "<!-- settings: made by `python -m mcp_assets_tests.settings_table` -->"
END = "<!-- /settings -->"


def table() -> str:
    rows = ["| variable | default | what it sets |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in (None, PydanticUndefined) else f"`{_literal(default)}`"
        rows.append(f"| `{variable_of(name)}` | {shown} | {field.description} |")
    return "\n".join(rows)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)


def with_table(readme: str) -> str:
    """`readme` with the table between its two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def env_example() -> str:
    """Every setting as a line of a `.env` file, commented out, with its default."""
    lines = [
        "# Copy this file to .env, and remove the mark of comment from the settings that you change.",
        "# A setting that is unset has the default that stands here. DATABASE_URL, NATS_URL and QDRANT_URL each",
        "# replace an embedded store. OPENAI_API_KEY or OPENAI_BASE_URL replaces the local embedding model.",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in (None, PydanticUndefined) else _literal(default)
        lines += ["", f"# {field.description}", f"#{variable_of(name)}={shown}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
    ENV_EXAMPLE.write_text(env_example())
