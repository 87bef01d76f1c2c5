"""docs/production and deploy: each file that they name exists, each command parses, and each page is to be found."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from mcp_assets_tests.commands import ROOT, faults_of

PAGES = sorted((ROOT / "docs/production").glob("*.md"))
DEPLOY = sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file())
SCRIPTS_OF_DEPLOY = [path for path in DEPLOY if path.suffix == ".sh" or path.read_bytes().startswith(b"#!")]

MADE_BY_A_PERSON = {
    "deploy/compose/secrets",
    "deploy/compose/.env",
}
"""What `prepare` and people make: it is in no checkout."""

OURS = ("mcp-assets", "dagster", "dagster-daemon", "dagster-webserver")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_blocks(page: Path) -> list[str]:
    """Every block of shell commands, also those that no test runs."""
    tokens = MarkdownIt().parse(page.read_text())
    return [token.content for token in tokens if token.type == "fence" and token.info.strip() == "sh"]


@pytest.mark.parametrize("file", [*PAGES, *DEPLOY], ids=name_of)
def test_each_file_that_it_names_exists(file: Path) -> None:
    named = {
        path.rstrip(".") for path in re.findall(r"(?<![\w/])((?:deploy|docs|benchmarks)/[\w./-]+)", file.read_text())
    }
    missing = {path for path in named if not (ROOT / path).exists()}
    assert {path for path in missing if not any(path.startswith(made) for made in MADE_BY_A_PERSON)} == set()


@pytest.mark.parametrize(
    ("page", "folders"),
    [
        ("kubernetes.md", ["deploy/kubernetes"]),
        ("compose.md", ["deploy/compose"]),
        ("services.md", ["deploy/systemd", "deploy/proxy"]),
        ("image.md", ["deploy/docker", "."]),
        ("security.md", ["deploy/postgres", "deploy/nats"]),
    ],
)
def test_each_file_of_its_folder_that_a_page_names_exists(page: str, folders: list[str]) -> None:
    text = (ROOT / "docs/production" / page).read_text()
    named = set(re.findall(r"`([\w-]+\.(?:ya?ml|conf|sql|service|example|toml))`", text))
    own = {"compose.override.yaml", "mcp-assets-webserver-readers.service"}
    assert named
    assert [
        name for name in named - own if not any((ROOT / folder / name).exists() for folder in (*folders, "."))
    ] == []


@each_page
def test_each_command_parses_and_knows_its_options(page: Path) -> None:
    for block in shell_blocks(page):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, (block, checked.stderr)
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for at, word in enumerate(words):
                # At its start, or behind another command, such as `docker compose exec daemon`.
                if word in OURS and (at == 0 or words[at - 1] in ("--", "daemon", "&&", "||")):
                    rest = words[at:]
                    end = next((at for at, word in enumerate(rest) if word in ("||", "&&", "|", ">", ";")), len(rest))
                    assert faults_of(rest[:end]) == [], line


def reached_from(page: Path) -> set[Path]:
    """Every page to which links lead from `page`, over any number of pages."""
    reached: set[Path] = set()
    left = [page]
    while left:
        page = left.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s:]+\.md)(?:#[^)]*)?\)", page.read_text())
        left += {(page.parent / link).resolve() for link in links} - reached
    return reached


@each_page
def test_each_page_is_reached_from_the_index_and_is_on_the_site(page: Path) -> None:
    assert name_of(page) in (ROOT / "mkdocs.yml").read_text()
    assert page in reached_from(ROOT / "docs/production/README.md")


@pytest.mark.parametrize("script", SCRIPTS_OF_DEPLOY, ids=name_of)
def test_each_script_parses(script: Path) -> None:
    shell = "sh" if script.suffix == ".sh" else "bash"
    assert subprocess.run([shell, "-n", script], capture_output=True, check=False).stderr == b""


@pytest.mark.parametrize("file", [file for file in DEPLOY if file.suffix in (".yaml", ".yml")], ids=name_of)
def test_each_yaml_file_is_read(file: Path) -> None:
    assert [document for document in yaml.safe_load_all(file.read_text()) if document]
