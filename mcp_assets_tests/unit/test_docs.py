"""The documentation names what exists: files, tables, and words that the code uses too."""

import re
from pathlib import Path

import pytest

import mcp_assets

ROOT = Path(mcp_assets.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text()


def code() -> str:
    files = [*(ROOT / "mcp_assets").rglob("*.py"), *(ROOT / "mcp_assets").rglob("*.sql")]
    return "\n".join(file.read_text() for file in files)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    paths = [link for link in links if "://" not in link]
    assert [path for path in paths if not (page.parent / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_source_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:mcp_assets|sync|events|stores|defs|graph|entities|unit|integration|acceptance)/[\w/]+\.\w+)`",
        page.read_text(),
    )
    places = (ROOT, ROOT / "mcp_assets", ROOT / "mcp_assets_tests")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_each_table_of_the_platform_is_described() -> None:
    versions = (ROOT / "mcp_assets/stores/postgres/migrations/versions").glob("*.py")
    upgrades = "".join(file.read_text().partition("def downgrade")[0] for file in versions)
    renamed = dict(re.findall(r"ALTER TABLE (\w+) RENAME TO (\w+)", upgrades))
    made = {renamed.get(name, name) for name in re.findall(r"CREATE TABLE (\w+)", upgrades)}
    described = set(re.findall(r"`(\w+)`", ARCHITECTURE.partition("## Tables")[2].partition("\n## ")[0]))
    assert len(made) > 20
    assert made - described == set()


def test_each_term_of_the_glossary_occurs_in_the_code() -> None:
    glossary = ARCHITECTURE.partition("## Glossary")[2].partition("\n## ")[0]
    terms = [
        term.strip()
        for row in re.findall(r"^\| ([^|]+) \|", glossary, re.MULTILINE)
        for term in row.split(",")
        if term.strip() not in ("word", "---")
    ]
    assert len(terms) > 25
    text = re.sub(r"[\s_-]+", " ", code()).lower()
    assert [term for term in terms if term.replace("-", " ").lower() not in text] == []
