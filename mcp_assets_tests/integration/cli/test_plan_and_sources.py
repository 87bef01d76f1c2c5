"""`mcp-assets sources` and `plan`, as a person calls them on a database of another shape."""

import json
import os
import pty
import subprocess
from pathlib import Path

import psycopg
import pytest

from mcp_assets.settings import Settings, variable_of
from mcp_assets_tests.command import COMMAND, Place, bare_environment
from mcp_assets_tests.openai_stub import OpenAIStub

SITE = """
CREATE TABLE issues (number bigint PRIMARY KEY, summary text, body text, labels text[], above bigint REFERENCES issues);
INSERT INTO issues VALUES (1, 'The epic', 'Everything about gates.', '{gates}', NULL),
    (2, 'A part', 'See issue:1.', '{gates,keys}', 1), (3, 'Another [/x] \x1b[31m', NULL, NULL, NULL);
CREATE TABLE users (id uuid PRIMARY KEY, name text);
"""


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    """A folder whose settings lead to a database of another shape, without any mapping."""
    given = {name: getattr(settings, name) for name in Settings.model_fields if name != "state_dir"}
    changed = {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name, value in given.items()
        if value != Settings.model_fields[name].get_default()
    }
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute(SITE.encode())
    return Place(tmp_path, bare_environment() | changed)


def test_a_mapping_is_proposed_written_and_used(place: Place) -> None:
    # As `mcp-assets init` leaves it.
    (place.folder / "mcp_assets.yaml").write_text("# Nothing yet\n\n#types: {}\n")
    done = place.run("sources", "init")
    assert done.code == 0, done.stderr
    assert "mcp_assets.yaml is written: 1 entity types (issue)" in done.stdout
    assert "left out: users: it has a name and no text" in done.stdout
    assert place.run("sources", "init").code == 2
    assert place.run("sources", "init", "--force").code == 0
    printed = place.run("sources", "init", "--output", "-").stdout
    assert printed == (place.folder / "mcp_assets.yaml").read_text()
    assert place.answer("sources", "init")["file"] == printed

    (place.folder / "mcp_assets.yaml").write_text("types: [")
    assert "mcp_assets.yaml, line 1: this is not YAML" in place.run("sources", "preview", "issue").stderr
    assert place.run("sources", "init", "--force").code == 0
    first, second = place.answer("sources", "preview", "issue", "--limit", "2")
    assert (first["entity_id"], first["texts"], first["tags"]) == ("1", ["The epic Everything about gates."], ["gates"])
    assert [(use["type"], use["key"]) for use in second["references"]] == [
        ("conceptual_hierarchy", "issue:1"),
        ("cross_reference", "issue:1"),
    ]


def test_a_preview_is_text_for_people_and_names_what_is_absent(place: Place) -> None:
    place.run("sources", "init")
    done = place.run("sources", "preview", "issue", "3", "77")
    assert done.code == 1
    assert "issue:3\n  text, 18 characters: Another [/x] \\x1b[31m" in done.stdout
    assert "issue:77 has no source row" in done.stderr


def test_an_empty_database_gets_no_file(place: Place, settings: Settings) -> None:
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute("DROP TABLE issues")
    done = place.run("sources", "init")
    assert done.code == 1
    assert "no table or view of the database seems to hold entities" in done.stderr
    assert not (place.folder / "mcp_assets.yaml").exists()


def test_a_plan_is_what_the_sync_does(place: Place, stub: OpenAIStub) -> None:
    place.run("sources", "init")
    planned = place.answer("plan")
    assert planned["total"]["embed"] == 3
    assert (planned["models"][0]["distinct_texts"], planned["models"][0]["seconds"]) == (3, None)
    assert place.answer("sync", "--full", "--plan") == planned
    done = place.run("plan")
    assert done.stdout.splitlines()[-4].split("\t") == ["all", "3", "0", "0", "3", "0", "0"]
    assert "stub with 16 dimensions: 3 texts to embed; about " in done.stdout
    assert "its price is not known: set EMBEDDING_PRICE" in done.stdout
    assert stub.stats()["texts"] == 0

    assert place.run("sync", "--full").code == 0
    assert stub.stats()["distinct_texts"] == 3
    assert place.run("plan").stdout == "a full sync would find nothing to do\n"
    assert place.answer("plan", "--force", "--partition", "issue-00")["total"]["update"] == 0


def test_a_forced_sync_shows_its_plan_and_asks(place: Place, stub: OpenAIStub) -> None:
    place.run("sources", "init")
    assert place.run("sync", "--full").code == 0
    sent = stub.stats()["texts"]
    refused = place.run("sync", "--full", "--force")
    assert (refused.code, "say --yes" in refused.stderr) == (2, True)

    terminal, stdin = pty.openpty()
    try:
        os.write(terminal, b"n\n")
        asked = subprocess.run(
            [COMMAND, "sync", "--full", "--force"],
            cwd=place.folder,
            env=dict(place.environment),
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(stdin)
    assert asked.returncode == 130
    assert "3 texts to embed" in asked.stdout
    assert "Embed all of that again?" in asked.stderr
    assert stub.stats()["texts"] == sent

    assert place.answer("sync", "--full", "--force", "--yes")["counts"]["embedded"] == 3
    assert stub.stats()["texts"] == sent + 3
    assert json.loads(place.run("doctor", "--json").stdout)[-1]["state"] == "ok"
