"""Wrong input: whatever a command is given, it ends with a sentence that says what to do, never with a traceback."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_assets.embedded import stack
from mcp_assets_tests.clients import key_of
from mcp_assets_tests.command import Done, Place, bare_environment
from mcp_assets_tests.conftest import settings_on

COMMANDS = {
    "search": ["search", "a question"],
    "related": ["related", "task:7"],
    "duplicates": ["duplicates", "--title", "Renew the certificate"],
    "status": ["status"],
    "doctor": ["doctor"],
    "plan": ["plan"],
    "quality": ["quality"],
    "sources init": ["sources", "init", "--output", "-"],
    "sources preview": ["sources", "preview", "task"],
    "env": ["env"],
    "publish": ["publish", "mcp.task.updated", '{"entity_id": "7"}'],
    "load": ["load", "no-such-file.jsonl"],
    "sync": ["sync", "task:7"],
    "sync --full": ["sync", "--full"],
    "validate": ["validate"],
    "end": ["end", "task:7"],
    "accept": ["accept", "qdrant"],
    "graph export": ["graph", "export", "--format", "csv", "--output", "/dev/null"],
    "dlq list": ["dlq", "list"],
    "dlq show": ["dlq", "show", "7"],
    "dlq replay": ["dlq", "replay", "--all"],
    "dlq purge": ["dlq", "purge", "--all", "--yes"],
    "model show": ["model", "show"],
    "model approve": ["model", "approve"],
    "model abandon": ["model", "abandon", "--yes"],
    "collections adopt": ["collections", "adopt", "kanban_tasks", "--yes"],
}
"""Each command that reads settings and starts nothing."""

WRONG_SETTINGS = {
    "a dimension that the model does not have": ({"EMBEDDING_DIMENSION": "100"}, "EMBEDDING_DIMENSION"),
    "a number that is none": ({"MCP_ASSETS_SHARDS": "many"}, "MCP_ASSETS_SHARDS"),
    "a model that nothing serves": ({"EMBEDDING_MODEL": "[/x] \x1b[31m"}, "EMBEDDING_MODEL"),
    "broken JSON": ({"MCP_ASSETS_TYPES": "{'task'"}, "MCP_ASSETS_TYPES"),
    "a field that a mapping does not have": (
        {"MCP_ASSETS_TYPES": '{"task": {"source": {"table": "tasks", "alve": "true"}}}'},
        "did you mean alive?",
    ),
    "a mapping file that is absent": (
        {"MCP_ASSETS_SOURCES_FILE": "/no/such/[/x].yaml"},
        "the mapping file /no/such/[/x].yaml cannot be read",
    ),
    "no address of a database": ({"DATABASE_URL": "db:5432"}, "DATABASE_URL"),
    "no address of NATS": ({"NATS_URL": "localhost"}, "NATS_URL"),
    "no address of Qdrant": ({"QDRANT_URL": "localhost:6333"}, "QDRANT_URL"),
}

SILENT = {
    "postgres": {"DATABASE_URL": "postgresql://someone:secret@127.0.0.1:1/x"},
    "nats": {"NATS_URL": "nats://127.0.0.1:1"},
    "qdrant": {"QDRANT_URL": "http://127.0.0.1:1"},
}


@pytest.fixture(scope="module")
def place(addresses: stack.StackAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder without a stack of its own; its settings lead to that of the tests, and to the local model."""
    # The commands make collections of the local model, which the next test must not find.
    with settings_on(addresses) as settings:
        made = Place(
            tmp_path_factory.mktemp("place"),
            bare_environment()
            | {
                "DATABASE_URL": settings.require_database_url(),
                "NATS_URL": settings.require_nats_url(),
                "QDRANT_URL": settings.require_qdrant_url(),
                "QDRANT_API_KEY": key_of(addresses),
                "MCP_ASSETS_SCHEMA": "wrong_input",
                "MCP_ASSETS_RETRY_ATTEMPTS": "1",
                "MCP_ASSETS_RETRY_DELAY_MS": "1",
            },
        )
        assert made.answer("load", "/dev/null", "--create-tables") == {"loaded": 0, "published": 0}
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """A folder without a stack or settings."""
    return Place(tmp_path, bare_environment())


def assert_is_a_sentence(done: Done) -> None:
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "This is a fault of mcp-assets" not in said
    assert "\x1b" not in said
    assert "hunter2" not in said
    assert done.code in (0, 1, 2, 3), said


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
@pytest.mark.parametrize(
    "command", ["search", "status", "doctor", "plan", "sources preview", "sync --full", "graph export", "dlq list"]
)
def test_a_wrong_setting_is_named_with_what_to_give(command: str, wrong: str, place: Place) -> None:
    changed, named = WRONG_SETTINGS[wrong]
    done = place.run(*COMMANDS[command], given=changed)
    assert_is_a_sentence(done)
    if "EMBEDDING" not in named or command in ("search", "doctor", "plan", "sync --full"):
        assert named in done.stdout + done.stderr
        assert done.code != 0


@pytest.mark.parametrize("command", COMMANDS)
def test_without_settings_and_stack_each_command_says_what_to_start(command: str, empty: Place) -> None:
    done = empty.run(*COMMANDS[command])
    assert_is_a_sentence(done)
    if command not in ("env", "load"):
        assert "mcp-assets up" in done.stdout + done.stderr


@pytest.mark.parametrize("store", SILENT)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_does_not_answer_is_named(command: str, store: str, place: Place) -> None:
    done = place.run(*COMMANDS[command], given=SILENT[store])
    assert_is_a_sentence(done)
    assert "secret" not in done.stdout.replace("Secrets", "") + done.stderr
    if done.code == 3:
        assert re.search("127.0.0.1|DATABASE_URL|NATS_URL|QDRANT_URL", done.stdout + done.stderr)


def test_a_subject_that_no_stream_takes_is_named(place: Place) -> None:
    done = place.run("publish", "no.such.subject", "{}")
    assert done.code == 1
    assert "no stream takes messages on the subject no.such.subject" in done.stderr


BAD_ARGUMENTS = [
    ["search", ""],
    ["search", "   "],
    ["search", "\ufffe\u202e[/x]"],
    ["search", "x" * 100_000],
    ["search", "x", "--type", "[/x]"],
    ["search", "x", "--limit", "0"],
    ["search", "x", "--min-score", "2"],
    ["related", "[/x]"],
    ["related", "task:[/x]"],
    ["related", "task:1", "--type", "[/x]"],
    ["duplicates", "[/x]"],
    ["duplicates", "task:1", "--title", "x"],
    ["duplicates", "--text", "/"],
    ["publish", "with space", "{}"],
    ["publish", "mcp.task.updated", "{"],
    ["publish", "only-a-subject"],
    ["publish", "--file", "/no/such/file"],
    ["publish", "--file", "/"],
    ["load", "/no/such/file"],
    ["load", "/"],
    ["load", "/dev/null"],
    ["sync"],
    ["sync", "[/x]"],
    ["sync", "--full", "--type", "[/x]"],
    ["sync", "--full", "--force"],
    ["sync", "task:1", "--plan"],
    ["plan", "--type", "[/x]"],
    ["plan", "--partition", "[/x]"],
    ["plan", "--partition", "task-99"],
    ["plan", "--model", "[/x]"],
    ["plan", "--model", "text-embedding-3-small", "--dimension", "5000"],
    ["plan", "--dimension", "5"],
    ["sources"],
    ["sources", "init", "--output", "/no/such/folder/[/x].yaml"],
    ["sources", "init", "--output", "/"],
    ["sources", "preview", "[/x]"],
    ["sources", "preview", "task", "[/x]"],
    ["sources", "preview", "task", "--limit", "0"],
    ["validate", "--type", "[/x]"],
    ["validate", "--export", "report.xls"],
    ["validate", "--type", "task", "--export", "/no/such/folder/report.csv"],
    ["end", "[/x]"],
    ["end", "nothing:1"],
    ["accept", "[/x]"],
    ["graph", "export", "--format", "pdf"],
    ["graph", "export", "--output", "/no/such/folder/graph.html"],
    ["dlq", "list", "--stage", "[/x]"],
    ["dlq", "list", "--type", "[/x]"],
    ["dlq", "show", "0"],
    ["dlq", "show", "99999999999999999999"],
    ["dlq", "replay"],
    ["dlq", "purge", "--all"],
    ["collections", "adopt", "[/x]", "--yes"],
    ["no-such-command"],
]


@pytest.mark.parametrize("words", BAD_ARGUMENTS, ids=lambda words: " ".join(words)[:50])
def test_bad_arguments_end_with_a_sentence(words: list[str], place: Place) -> None:
    done = place.run(*words)
    assert_is_a_sentence(done)
    assert done.code != 0 or words[:2] in (["load", "/dev/null"], ["publish", "mcp.task.updated"])
    said = "".join((done.stdout + done.stderr).split())
    assert "[/x]" not in words or "[/x]" in said
