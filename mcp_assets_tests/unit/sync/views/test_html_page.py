"""The HTML page: it loads nothing, no text of data can run in it, and its library comes from the pinned wheel."""

import json
import re

from mcp_assets.sync.views.graph import ExportedEdge
from mcp_assets.sync.views.html_page import html_page_of, script_json

EVIL = "</script><script>alert(1)</script><!-- /*SCRIPT*/ & \u2028 \u202e \ud800 \x00"


def page(title: str = EVIL) -> str:
    evidence = {"rule": "text", "context": EVIL}
    edge = ExportedEdge("task", EVIL, "page", "b", "cross_reference", 1.0, evidence, EVIL, title, "B")
    return html_page_of([edge]).text


def test_no_text_of_data_can_end_the_script_or_hide_in_the_source() -> None:
    held = script_json([EVIL])
    assert json.loads(held) == [EVIL]
    assert re.search("[<>&\u2028\u202e\ud800\x00]", held) is None
    text = page()
    text.encode()  # a lone surrogate would raise an error
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["vertices"]["title"] == ["B", EVIL]
    assert "alert(1)</script>" not in text
    assert text.count("const BUDGETS") == 1  # a text that looks like a mark of the template is none


def test_the_page_loads_nothing_and_runs_only_its_own_scripts() -> None:
    text = page()
    assert re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=", text) is None
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src &#x27;none&#x27;;")
    assert policy[1].count("sha256-") == len(re.findall(r"<script>", text)) == 2
    assert "unsafe-eval" not in policy[1]


def test_the_library_is_force_graph_with_its_licence() -> None:
    text = page()
    assert "// force-graph 1.52.0" in text
    assert "Copyright (c) 2018 Vasco Asturiano" in text
    assert "THE SOFTWARE IS PROVIDED" in text


def test_the_same_edges_give_the_same_page() -> None:
    assert page() == page()
