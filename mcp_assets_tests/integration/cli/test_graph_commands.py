"""`mcp-assets related` and `mcp-assets graph export`, as a person calls them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from psycopg import sql

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.settings import variable_of
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.views import export as export_module
from mcp_assets.sync.views.export import export
from mcp_assets.sync.views.graph import ExportedEdge, Format
from mcp_assets.tuning import Tuning, ViewTuning
from mcp_assets_tests.clients import key_in
from mcp_assets_tests.linking import AngleEmbedder, index, relink, write_source

A, PAGE, C = EntityRef("task", "A"), EntityRef("page", "P"), EntityRef("memory", "C")


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(embedder=AngleEmbedder())
    create_source_tables(platform)
    write_source(platform, A, "Wash the </script> car @0", "as page:P says")
    write_source(platform, PAGE, "Cars @5", "part of memory:C")
    write_source(platform, C, "Traffic @90", "")
    index(platform, A, PAGE, C)
    relink(platform)
    return platform


def call(world: Platform, *arguments: str, folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    settings = world.settings
    given = {
        "database_url": settings.require_database_url(),
        "qdrant_url": settings.require_qdrant_url(),
        "qdrant_api_key": key_in(settings),
        "nats_url": settings.require_nats_url(),
    }
    environment = {**os.environ, **{variable_of(name): value for name, value in given.items()}}
    command = [sys.executable, "-m", "mcp_assets.cli", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


def test_related_shows_an_entitys_edges_both_ways_and_further_with_depth(world: Platform) -> None:
    near = json.loads(call(world, "related", "P", "--json").stdout)
    assert near["entity"]["title"] == "Cars @5"
    shown = [(edge["source"]["entity_id"], edge["target"]["entity_id"], edge["type"]) for edge in near["edges"]]
    assert sorted(shown) == [
        ("A", "P", "cross_reference"),
        ("A", "P", "semantic_similarity"),
        ("P", "A", "semantic_similarity"),
        ("P", "C", "conceptual_hierarchy"),
        ("P", "C", "cross_reference"),
    ]  # fmt: skip
    one = json.loads(call(world, "related", "memory:C", "--type", "conceptual_hierarchy", "--json").stdout)
    assert [edge["strength"] for edge in one["edges"]] == [0.8]
    far = json.loads(call(world, "related", "memory:C", "--depth", "2", "--json").stdout)
    assert {edge["depth"] for edge in far["edges"]} == {1, 2}
    assert "Traffic" in call(world, "related", "P").stdout


def test_related_with_why_shows_words_and_place_scores_and_the_verdict(world: Platform) -> None:
    judged = call(
        world, "verdict", "accept", "A", "P", "--type", "cross_reference", "--by", "ada", "--note", "so it is"
    )
    assert (judged.returncode, judged.stdout) == (0, "task:A → page:P (cross_reference) is accepted\n"), judged.stderr
    shown = call(world, "related", "A", "--type", "cross_reference", "--why").stdout.splitlines()
    assert shown[0] == "task:A Wash the </script> car @0 → page:P Cars @5 cross_reference 1.000"
    assert [line.split(maxsplit=1)[1] for line in shown[1:5]] == [
        "text",
        "as page:P says",
        "characters 30 to 36 of task:A",
        "cosine 0.996, shared tags 0.000",
    ]
    assert shown[5].startswith("    verdict accepted by ada, ")
    assert shown[5].endswith(": so it is")


def test_verdicts_are_given_listed_and_withdrawn(world: Platform) -> None:
    rejected = json.loads(call(world, "verdict", "reject", "P", "A", "--type", "semantic_similarity", "--json").stdout)
    assert rejected["linked"]
    assert len(rejected["edges"]) == 2
    (listed,) = json.loads(call(world, "verdict", "list", "task:A", "--json").stdout)
    assert (listed["verdict"], listed["state"], listed["both_directions"]) == ("rejected", "in force", True)
    assert listed["by"]

    withdrawn = call(world, "verdict", "withdraw", "A", "P")
    assert withdrawn.stdout == "the verdict about task:A ↔ page:P (semantic_similarity) is withdrawn\n"
    again = call(world, "verdict", "withdraw", "A", "P")
    assert again.returncode == 1
    assert "nothing to judge between task:A and page:P" in again.stderr


def test_an_unknown_entity_is_a_failure_that_names_it(world: Platform) -> None:
    result = call(world, "related", "task:nobody")
    assert result.returncode == 1
    assert "task:nobody" in result.stderr


def test_duplicates_lists_pairs_and_finds_copies_of_a_text(world: Platform, tmp_path: Path) -> None:
    none = call(world, "duplicates", "--json")
    assert (none.returncode, json.loads(none.stdout)) == (1, [])

    body = "It ends in thirty days: order a new one, install it, restart the service, tell all people on call."
    copies = [EntityRef("task", "one"), EntityRef("task", "two")]
    for ref in copies:
        write_source(world, ref, f"Renew the certificate {'again' if ref.id == 'two' else ''} @40", body)
    index(world, *copies)
    relink(world)

    (pair,) = json.loads(call(world, "duplicates", "one", "--json").stdout)
    assert (pair["entity"]["entity_id"], pair["duplicate"]["title"]) == ("one", "Renew the certificate again @40")
    assert pair["strength"] == pair["shared_words"] > 0.8
    (tmp_path / "text").write_text(body)
    found = call(world, "duplicates", "--title", "Renew the certificate @40", "--text", "text", folder=tmp_path)
    # The command embeds by the local model, and the collections are those of another one.
    assert "angles" in found.stderr
    shown = call(world, "duplicates", "--type", "task")
    assert shown.returncode == 0
    assert "task:one" in shown.stdout


def test_exports_hold_every_edge_with_its_types(world: Platform, tmp_path: Path) -> None:
    for name in ("csv", "parquet", "graphml", "html"):
        result = call(world, "graph", "export", "--format", name, "--json", folder=tmp_path)
        assert json.loads(result.stdout) == {"file": f"graph.{name}", "edges": 5}, result.stderr
    frame = pd.read_parquet(tmp_path / "graph.parquet")
    assert str(frame["strength"].dtype) == "float32"
    assert str(frame["relationship_type"].dtype) == "category"
    assert frame["source_title"].str.contains("Cars").sum() == 3
    assert len(pd.read_csv(tmp_path / "graph.csv")) == 5
    space = "{http://graphml.graphdrawing.org/xmlns}"
    drawn = ElementTree.parse(tmp_path / "graph.graphml").getroot().find(f"{space}graph")
    assert drawn is not None
    assert (len(drawn.findall(f"{space}node")), len(drawn.findall(f"{space}edge"))) == (3, 5)


@pytest.mark.parametrize("rows_at_once", [2, 5])
def test_files_that_are_written_in_parts_are_whole(world: Platform, tmp_path: Path, rows_at_once: int) -> None:
    world.tuning = Tuning(views=ViewTuning(export_rows_at_once=rows_at_once))
    for format_ in (Format.CSV, Format.PARQUET):
        assert export(world, format_, tmp_path / "whole", types=[]).edges == 5
        read = pd.read_csv if format_ is Format.CSV else pd.read_parquet
        assert list(read(tmp_path / "whole")["strength"].notna()) == [True] * 5
        assert export(world, format_, tmp_path / "none", types=["no such type"]).edges == 0
        assert list(read(tmp_path / "none").columns) == list(read(tmp_path / "whole").columns)


def test_the_page_holds_the_edges_that_were_asked_for_and_links_by_the_pattern(
    world: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_ASSETS_ENTITY_URL", "https://wiki.example.org/{type}/{id}")
    path = tmp_path / "page.html"
    result = call(world, "graph", "export", "-o", str(path), "--min-strength", "0.9")
    assert result.returncode == 0, result.stderr
    page = path.read_text()
    assert "Wash the </script>" not in page
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert {one["name"] for one in data["edgeTypes"]} == {"cross_reference", "semantic_similarity"}
    assert "https://wiki.example.org/task/A" in data["vertices"]["url"]


def test_an_export_that_fails_keeps_the_old_file(
    world: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Iterator[ExportedEdge]:
        yield ExportedEdge("task", "A", "page", "P", "cross_reference", 1.0, {}, None, None, None)
        raise StoreUnavailable("PostgreSQL is away")

    monkeypatch.setattr(export_module, "exported", broken)
    path = tmp_path / "graph"
    path.write_text("old")
    for format_ in Format:
        with pytest.raises(StoreUnavailable):
            export(world, format_, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_graphml_cannot_hold_are_counted(world: Platform, tmp_path: Path) -> None:
    with world.postgres.transaction() as connection:
        connection.execute(
            sql.SQL("UPDATE {}.entities SET title = %s WHERE entity_id = 'P'").format(
                sql.Identifier(world.postgres.schema)
            ),
            ("Cars \x01",),
        )
    result = call(world, "graph", "export", "-f", "graphml", "--json", folder=tmp_path)
    assert json.loads(result.stdout) == {"file": "graph.graphml", "edges": 5, "changed_values": 1}, result.stderr
    said = call(world, "graph", "export", "-f", "graphml", folder=tmp_path).stdout
    assert "1 values hold characters that XML forbids" in said
    ElementTree.parse(tmp_path / "graph.graphml")


def test_a_file_that_cannot_be_written_is_named(world: Platform, tmp_path: Path) -> None:
    for name in ("csv", "graphml", "html", "parquet"):
        result = call(world, "graph", "export", "--format", name, "-o", str(tmp_path / "absent" / "file"))
        assert result.returncode == 1, result.stderr
        assert "absent/file cannot be written" in result.stderr.replace("\n", "")
