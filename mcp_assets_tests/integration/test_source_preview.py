"""A database of another shape: a mapping is proposed from its catalog, and rows are shown as they would be embedded."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from mcp_assets.entities.mapping_proposal import Proposal
from mcp_assets.entities.registry import SourceTable
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.settings import Settings, read_settings, variable_of
from mcp_assets.stores.errors import StoreRefused
from mcp_assets.sync.views.source_preview import NoSource, preview_rows, propose_mapping

SITE = """
CREATE SCHEMA tracker;
CREATE TABLE tracker.projects (key text PRIMARY KEY, name text NOT NULL);
CREATE TABLE tracker.users (id uuid PRIMARY KEY, name text, email text);
CREATE TABLE tracker.issues (
    project text NOT NULL REFERENCES tracker.projects, number integer NOT NULL, summary text NOT NULL, body text,
    acceptance text, state text, labels text[], parent_project text, parent_number integer, extra jsonb, draft boolean,
    "Sprint No" integer, reporter_email text, deleted_at timestamptz, changed_at timestamptz,
    PRIMARY KEY (project, number),
    FOREIGN KEY (parent_project, parent_number) REFERENCES tracker.issues
);
CREATE TABLE tracker.issue_watchers (
    project text, number integer, user_id uuid REFERENCES tracker.users, note text,
    PRIMARY KEY (project, number, user_id),
    FOREIGN KEY (project, number) REFERENCES tracker.issues
);
CREATE VIEW tracker.decisions AS SELECT number AS decision_id, summary AS title, body FROM tracker.issues;
CREATE TABLE notes (id bigserial PRIMARY KEY, body text, "on" text, created timestamp);
CREATE TABLE settings (key text PRIMARY KEY, value jsonb);
"""


@pytest.fixture
def site(settings: Settings) -> Iterator[Settings]:
    """Settings that lead to a database of another shape; none of the platform's own tables is made in it."""
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute(SITE)
        connection.execute("INSERT INTO tracker.projects VALUES ('ABC', 'Alphabet'), ('a/b', 'Slash')")
        connection.execute(
            "INSERT INTO tracker.issues (project, number, summary, body, labels, parent_project, parent_number, extra)"
            " VALUES ('ABC', 1, 'The epic', 'Replaces [[Old page]].', '{gates, keys}', NULL, NULL, '{}'),"
            " ('ABC', 2, 'A part', 'See page:handbook', '{gates}', 'ABC', 1, '{\"priority\": \"high\"}'),"
            " ('a/b', 3, 'Long', repeat('Text about gates. ', 1000), NULL, NULL, NULL, NULL)"
        )
        yield settings
        assert connection.execute("SELECT to_regnamespace('mcp_assets')").fetchone() == (None,)


def proposed_settings(proposal: Proposal, site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setenv("DATABASE_URL", site.require_database_url())
    file = tmp_path / "proposed.yaml"
    file.write_text(proposal.text)
    return read_settings(sources_file=file)


def test_a_mapping_is_proposed_for_what_looks_like_entities(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = propose_mapping(site)
    types = proposed_settings(proposal, site, tmp_path, monkeypatch).entity_types

    assert set(types) == {"issue", "decision", "note"}
    issue, decision, note = types["issue"].source, types["decision"].source, types["note"].source
    assert issue == SourceTable(
        table="tracker.issues",
        id=("project", "number"),
        title="summary",
        content=("body", "acceptance"),
        metadata={"tags": "labels", "parent_id": ("parent_project", "parent_number"), "status": "state"},
        metadata_json="extra",
        alive="deleted_at IS NULL AND draft IS NOT TRUE",
        created_at=None,
        updated_at="changed_at",
    )
    assert decision is not None
    assert (decision.id, decision.title, decision.content) == ("decision_id", "title", ("body",))
    assert note is not None
    assert (note.table, note.title, note.created_at) == ("notes", None, "created")
    assert proposal.left_out.keys() == {"tracker.projects", "tracker.users", "tracker.issue_watchers", "settings"}
    assert "not mapped: Sprint No, reporter_email" in proposal.text
    assert "a guess: no key keeps it unique" in proposal.text


def test_tables_of_a_preset_are_proposed_as_the_preset(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import resources

    statements = resources.files("mcp_assets.stores").joinpath("source_tables.sql").read_text()
    with psycopg.connect(settings.require_database_url(), autocommit=True) as connection:
        connection.execute(statements.encode())
        connection.execute("DROP TABLE memory_nodes")
        connection.execute("CREATE TABLE decisions (id text PRIMARY KEY, title text, body text)")
    proposal = propose_mapping(settings)
    own = proposed_settings(proposal, settings, tmp_path, monkeypatch)

    assert list(own.entity_types) == ["task", "page", "decision"]
    assert own.entity_types["task"].source is not None
    assert "blocked_by" in own.entity_types["task"].source.metadata
    assert "preset: mcp" in proposal.text
    assert "without: [memory]" in proposal.text


def test_an_empty_database_is_proposed_nothing(settings: Settings) -> None:
    assert propose_mapping(settings).types == ()


def test_rows_are_shown_as_they_would_be_embedded_and_linked(
    site: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = proposed_settings(propose_mapping(site), site, tmp_path, monkeypatch)
    found = {one.ref.id: one for one in preview_rows(own, "issue")}

    assert set(found) == {"ABC/1", "ABC/2", "a~1b/3"}
    part = found["ABC/2"]
    assert list(part.texts) == ["A part See page:handbook"]
    assert part.metadata == {"tags": ["gates"], "parent_id": "ABC/1", "priority": "high"}
    assert [(use.relation.value, use.key) for use in part.uses] == [("conceptual_hierarchy", "issue:ABC/1")]
    assert list(part.tags) == ["gates"]
    assert [key.key for key in part.keys] == ["issue:ABC/2", "a part"]
    assert [use.key for use in found["ABC/1"].uses if use.kind == "title"] == ["old page"]
    # The entity's own text, and chunks over the whole length.
    assert len(found["a~1b/3"].texts) > 5
    assert [one.ref.id for one in preview_rows(own, "issue", ["ABC/1", "ABC/9"])] == ["ABC/1"]
    assert len(preview_rows(own, "issue", limit=2)) == 2


def test_a_prefix_of_the_model_is_part_of_what_is_shown(site: Settings) -> None:
    types = {
        "note": TypeMapping(
            source=SourceTable(table="tracker.issues", id=("project", "number"), title="summary", content=())
        )
    }
    own = site.model_copy(
        update={
            "types": types,
            "embedding_model": "e5-small-v2",
            "embedding_dimension": None,
            "openai_base_url": "http://models.example.com",
        }
    )
    own.__dict__.pop("entity_types", None)
    own.__dict__.pop("profile", None)
    (shown,) = preview_rows(own, "note", ["ABC/1"])
    assert list(shown.texts) == ["passage: The epic"]


def test_a_type_without_rows_and_a_table_that_is_not_there_are_told_apart(site: Settings) -> None:
    types = {"note": TypeMapping(), "gone": TypeMapping(source=SourceTable(table="tracker.gone"))}
    own = site.model_copy(update={"types": types})
    own.__dict__.pop("entity_types", None)
    with pytest.raises(NoSource, match="lives by its events"):
        preview_rows(own, "note")
    with pytest.raises(StoreRefused, match=r"tracker\.gone"):
        preview_rows(own, "gone")


def test_a_table_in_another_database_is_previewed_there(site: Settings) -> None:
    own = site.model_copy(
        update={
            "source_database_url": SecretStr(site.require_database_url()),
            "database_url": SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
            "types": {"task": TypeMapping(source=SourceTable(table="notes", title=None, content=("body",)))},
        }
    )
    own.__dict__.pop("entity_types", None)
    assert preview_rows(own, "task") == []
