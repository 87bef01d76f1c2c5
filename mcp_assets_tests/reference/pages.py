"""Which file each reference page is written to."""

from collections.abc import Callable, Mapping
from pathlib import Path

import mcp_assets
from mcp_assets_tests.reference import command_line, dagster_objects, licences, metrics, prometheus, settings, subjects

ROOT = Path(mcp_assets.__file__).parents[1]
REFERENCE = ROOT / "docs/reference"
TABLES = REFERENCE / "tables.md"
"""Made from a database, and so apart from the others."""


PAGES: Mapping[Path, Callable[[], str]] = {
    ROOT / ".env.example": settings.env_example,
    REFERENCE / "settings.md": settings.page,
    REFERENCE / "command-line.md": command_line.page,
    REFERENCE / "dagster.md": dagster_objects.page,
    REFERENCE / "licences.md": licences.page,
    REFERENCE / "metrics.md": metrics.page,
    REFERENCE / "prometheus.md": prometheus.page,
    REFERENCE / "subjects.md": subjects.page,
}
"""The files that the code alone makes, and how."""
