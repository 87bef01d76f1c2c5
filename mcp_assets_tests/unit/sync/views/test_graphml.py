"""GraphML: every title makes a file that readers take, and a file that could not be written whole is an error."""

import multiprocessing
import resource
import signal
from pathlib import Path
from xml.etree import ElementTree

import igraph
import pytest

from mcp_assets.sync.views.export import Written, graph_of, write_graphml
from mcp_assets.sync.views.graph import ExportedEdge

SPACE = "{http://graphml.graphdrawing.org/xmlns}"


def edge(source_title: str | None, target_title: str | None, source: str = "a", target: str = "b") -> ExportedEdge:
    return ExportedEdge(
        "task", source, "page", target, "cross_reference", 0.5, {}, "mcp_assets", source_title, target_title
    )


def titles_in(path: Path) -> list[str]:
    keys = {
        key.get("attr.name"): key.get("id")
        for key in ElementTree.parse(path).getroot().findall(f"{SPACE}key")
        if key.get("for") == "node"
    }
    return [
        data.text or ""
        for data in ElementTree.parse(path).getroot().iter(f"{SPACE}data")
        if data.get("key") == keys["title"]
    ]


@pytest.mark.parametrize(
    "character", ["\0", "\x01", "\x08", "\x0b", "\x0c", "\x1f", "\ud800", "\udfff", "\ufffe", "\uffff"], ids=ascii
)
def test_a_character_that_xml_forbids_is_replaced_and_counted(tmp_path: Path, character: str) -> None:
    path = tmp_path / "graph.graphml"
    written = write_graphml(graph_of([edge(f"a{character}b{character}", "sound")]), path)
    assert written == Written(edges=1, changed_values=1)
    assert titles_in(path) == ["a\ufffdb\ufffd", "sound"]
    assert igraph.Graph.Read_GraphML(str(path)).vs["title"] == ["a\ufffdb\ufffd", "sound"]


def test_what_xml_allows_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "graph.graphml"
    title = "tab\tline\n<&\"'> \x7f é \ud7ff\ue000\ufffd \U00010000\U0010ffff"
    assert write_graphml(graph_of([edge(title, None)]), path) == Written(edges=1)
    assert titles_in(path) == [title, ""]


def test_entities_whose_ids_differ_only_in_such_characters_stay_two(tmp_path: Path) -> None:
    path = tmp_path / "graph.graphml"
    written = write_graphml(graph_of([edge("", "", "a\1", "b"), edge("", "", "a\2", "b")]), path)
    assert written == Written(edges=2, changed_values=4)  # of each: the id, and the name, which holds the id
    assert igraph.Graph.Read_GraphML(str(path)).vcount() == 3


@pytest.mark.parametrize("edges", [1, 2000], ids=["in its last block", "on the way"])
def test_a_full_disk_is_an_error(tmp_path: Path, edges: int) -> None:
    graph = graph_of([edge("x" * 20, "", "a", str(number)) for number in range(edges)])
    process = multiprocessing.get_context("fork").Process(
        target=write_a_thousand_bytes, args=(graph, tmp_path / "file")
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0


def write_a_thousand_bytes(graph: igraph.Graph, path: Path) -> None:
    """Write `graph` where files end after 1,000 bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(OSError, match="disk may be full"):
        write_graphml(graph, path)
    assert path.stat().st_size == 1000
