"""The HTML page in Chromium: it draws, opens with the entity of its address, and reports no error."""

import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.sync.views.graph import ExportedEdge
from mcp_assets.sync.views.html_page import html_page_of
from mcp_assets_tests.look.browser import CHROMIUM

EVIL = "</script><script>document.title = 'broken into'</script><img src=x onerror=alert(1)>"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def opened(tmp_path: Path, edges: list[ExportedEdge], fragment: str = "") -> str:
    """The page as it stands after its scripts have run."""
    path = tmp_path / "page.html"
    path.write_text(html_page_of(edges, EntityUrl.of("https://wiki.example.org/{type}/{id}")).text)
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
        "--virtual-time-budget=5000", "--dump-dom", f"{path.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


def edge(source: str, target: str, title: str, strength: float = 1.0) -> ExportedEdge:
    metadata = {"rule": "text", "context": f"see {EVIL}"}
    return ExportedEdge(
        "task", source, "page", target, "cross_reference", strength, metadata, "mcp_assets", EVIL, title
    )


def test_the_page_opens_with_its_strongest_edges(tmp_path: Path) -> None:
    edges = [edge(f"t{number}", f"p{number % 90}", "A page", 1 - number / 1000) for number in range(600)]
    page = opened(tmp_path, edges)
    body = re.search("<body[^>]*>", page)
    assert body is not None
    assert 'data-shown-edges="500"' in body[0]
    assert 'data-shown-entities="590"' in body[0]
    assert "500 of 600 edges, 590 entities" in page
    assert "<canvas" in page
    assert re.search('<p id="failure"[^>]*hidden', page)
    assert "<title>Relationships</title>" in page


def test_the_page_opens_with_the_entity_of_its_address_and_the_reasons_of_its_edges(tmp_path: Path) -> None:
    target = "a/../b?#"
    page = opened(tmp_path, [edge("t", target, EVIL), edge("u", "other", "Other")], f"#entity=page:{quote(target)}")
    panel = page.partition('<aside id="panel"')[2].partition("</aside>")[0]
    assert "hidden" not in panel.partition(">")[0]
    assert 'href="https://wiki.example.org/page/a%2F..%2Fb%3F%23"' in panel
    assert panel.count("<li>") == 1
    assert 'aria-label="from"' in panel
    assert "text · see &lt;/script&gt;" in panel
    assert "<img" not in panel
    assert "<title>Relationships</title>" in page


def test_a_page_without_edges_says_so(tmp_path: Path) -> None:
    assert "There are no edges." in opened(tmp_path, [])
