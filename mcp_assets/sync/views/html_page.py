"""HTML page: the graph as one self-contained page to explore: search, filters, neighbourhoods and their evidence.

force-graph (https://github.com/vasturiano/force-graph, MIT) draws it, moves and zooms it, and finds what is under the
pointer. Its file comes from the wheel of tareco (MIT), a graph library, because this package commits no copies of other
people's code and needs no network to make the page. tareco was chosen in November 2026: it has no dependencies, was
released in the month before, and ships force-graph 1.52.0, the newest, as it is on npm but for the first comment. It is
pinned by hash, and nothing of its Python code is run. Other wheels either hold widgets that cannot stand in a page
(dash-cytoscape, ipycytoscape, ipysigma, st-link-analysis), libraries that are years old (gravis, pyvis, nodo-map), many
dependencies (pyvis, ttl3d, gephi-ai), or are under the GPL or LGPL (neo4j-viz, graphinate).
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from mcp_assets.entities.entity_url import EntityUrl
from mcp_assets.sync.views.graph import ExportedEdge
from mcp_assets.sync.views.page_data import PageData

_LIBRARY = "tareco/viz/force-graph.min.js"
_LICENCE = "licenses/LICENSE-force-graph"

_ESCAPED = re.compile("[<>&\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What might end the script element, or what a person who reads the file's source would not see or see reordered."""


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """The page, and the number of rows that are in it."""

    text: str
    rows: int


def html_page_of(
    edges: Iterable[ExportedEdge], entity_url: EntityUrl | None = None, weights: Mapping[str, float] = {}
) -> HtmlPage:
    """The page of `edges`. It links each entity to its `entity_url`, if there is one.

    `weights`: of tags, to be shown with those that an edge's ends share.
    """
    data = PageData.of(edges, weights)
    library, script = _library(), _asset("page.js")
    values = {
        "POLICY": html.escape(_policy(library, script)),
        "STYLE": _asset("page.css"),
        "DATA": script_json(data.as_json(entity_url)),
        "LICENCE": _licence(),
        "LIBRARY": library,
        "SCRIPT": script,
    }
    # One pass, so that a title that looks like a mark is not replaced.
    return HtmlPage(re.sub(r"/\*([A-Z]+)\*/", lambda mark: values[mark[1]], _asset("page.html")), data.rows)


def script_json(value: object) -> str:
    """`value` as JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # These characters stand only within the strings of JSON, where an escape means the same.
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _policy(*scripts: str) -> str:
    """A content security policy: the page loads nothing, and runs these scripts only."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    # The library puts its few rules of style into the page itself.
    return f"default-src 'none'; style-src 'unsafe-inline'; script-src {hashes}"


def _asset(name: str) -> str:
    return (resources.files("mcp_assets.sync.views") / "page" / name).read_text(encoding="utf-8")


def _library() -> str:
    """force-graph, which makes `ForceGraph` known to the page."""
    return _of_wheel(_LIBRARY)


def _licence() -> str:
    return _of_wheel(_LICENCE)


def _of_wheel(name: str) -> str:
    """The file of tareco's wheel whose path ends with `name`; its Python code is not imported."""
    files = metadata.distribution("tareco").files or ()
    return Path(str(next(file for file in files if file.as_posix().endswith(name)).locate())).read_text(
        encoding="utf-8"
    )
