"""The settings as a Markdown table, made from the class; a test compares it with the README."""

from pathlib import Path

from pydantic_core import PydanticUndefined

from mcp_assets.settings import Settings, variable_of

README = Path(__file__).parent.parent / "README.md"
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


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
