"""The `mcp-assets` command as scripts and people call it: outputs, exit codes, errors, and no secrets."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets_tests.command import COMMAND, Place, bare_environment
from mcp_assets_tests.openai_stub import OpenAIStub

DIMENSION = 16

DEAD = "127.0.0.1:9"
"""Where nothing listens."""


@pytest.fixture(scope="module")
def embedder() -> Iterator[OpenAIStub]:
    with OpenAIStub(dimension=DIMENSION) as server:
        yield server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, embedder: OpenAIStub) -> Iterator[Place]:
    """A folder in which `mcp-assets up` has run; nothing of it runs on after `mcp-assets down`."""
    made = Place(
        tmp_path_factory.mktemp("place"),
        bare_environment()
        | {
            # Nothing answers there: what runs on this machine has to be reached without a proxy.
            "HTTP_PROXY": f"http://{DEAD}",
            "HTTPS_PROXY": f"http://{DEAD}",
            "ALL_PROXY": f"socks5://{DEAD}",
            "http_proxy": f"http://{DEAD}",
            "OPENAI_BASE_URL": embedder.base_url,
            "OPENAI_API_KEY": "sk-very-secret",
            "EMBEDDING_MODEL": "stub",
            "EMBEDDING_DIMENSION": str(DIMENSION),
            "MCP_ASSETS_RETRY_DELAY_MS": "1",
        },
    )
    started = made.process("up", "--json")
    assert started.code == 0, started.stderr
    assert set(json.loads(started.stdout)) == {"state_dir", "postgres", "nats", "qdrant"}
    yield made
    assert json.loads(made.process("down", "--json").stdout) == {"stopped": True}
    assert made.answer("down") == {"stopped": False}
    assert [found for found in map(arguments, psutil.process_iter()) if str(made.folder) in found] == []


def arguments(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture
def empty(tmp_path: Path) -> Place:
    """A folder without a stack or settings."""
    return Place(tmp_path, bare_environment())


def exported(place: Place) -> dict[str, str]:
    """What a shell has in its environment after `eval "$(mcp-assets env)"`."""
    dump = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        ["/bin/sh", "-euc", f'told=$({COMMAND} env); eval "$told"; exec {dump}'],
        cwd=place.folder,
        env=dict(place.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def index(place: Place, entity_type: str) -> None:
    """What a run would do, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in place.environment.items():
            patch.setenv(name, value)
        patch.chdir(place.folder)
        platform = Platform(load_settings())
    try:
        for _ in full_sync(platform, entity_type, range(4)):
            pass
    finally:
        platform.close()


def line(entity_type: str, entity_id: str, content: str) -> bytes:
    return json.dumps({"entity_type": entity_type, "entity_id": entity_id, "title": "T", "content": content}).encode()


def test_what_is_loaded_published_and_indexed_is_found(place: Place) -> None:
    (place.folder / "tasks.jsonl").write_bytes(b"\n".join([line("task", "t1", "red fox"), line("task", "t2", "oak")]))
    (place.folder / "pages.jsonl.gz").write_bytes(gzip.compress(line("page", "p1", "blue whale") + b"\n"))
    before = place.answer("status")["pending"]["unread"]["MCP_ASSETS"]

    loaded = place.process("load", "tasks.jsonl", "pages.jsonl.gz", "--publish", "--json")
    assert (loaded.code, json.loads(loaded.stdout)) == (0, {"loaded": 3, "published": 3})
    assert place.answer("load", "-", stdin=line("task", "t2", "elm tree")) == {"loaded": 1, "published": 0}
    published = place.process("publish", "mcp.task.updated", '{"taskId": "t2"}', "--json")
    assert (published.code, json.loads(published.stdout)) == (0, {"published": 1, "dead_letters": 0, "reasons": []})
    (place.folder / "events.jsonl").write_text('{"subject": "mcp.page.updated", "data": {"pageId": "p1"}}\n\n')
    assert place.answer("publish", "--file", "events.jsonl")["published"] == 1
    pending = place.answer("status")["pending"]
    assert pending["unread"]["MCP_ASSETS"] - before == 5
    assert not pending["idle"]

    index(place, "task")
    index(place, "page")
    searched = place.process("search", "T blue whale", "--json")
    best = json.loads(searched.stdout)[0]
    assert (best["entity_type"], best["entity_id"]) == ("page", "p1")
    assert best["score"] == pytest.approx(1, abs=1e-3)
    assert best["excerpt"] == "blue whale"
    of_tasks = place.answer("search", "T elm tree", "--type", "task", "--limit", "1")
    assert [hit["entity_id"] for hit in of_tasks] == ["t2"]
    assert "blue whale" in place.run("search", "T blue whale").stdout


def test_status_reports_what_runs_where(place: Place) -> None:
    told = place.answer("status")
    assert set(told["embedded"]) == {"postgres", "nats", "qdrant"}
    for part in told["embedded"].values():
        assert part["state"] == "running"
        assert psutil.pid_exists(part["pid"])
    assert told["addresses"]["nats"].startswith("nats://mcp:***@127.0.0.1:")
    assert told["embedded"]["nats"]["address"] == told["addresses"]["nats"]
    assert told["pending"]["unavailable"] == []


def test_status_says_what_is_indexed_and_that_no_sensor_ticks(place: Place) -> None:
    place.answer("load", "-", stdin=line("task", "t9", "grey heron"))
    index(place, "task")
    found = place.answer("status")
    (of_tasks,) = [one for one in found["types"] if one["entity_type"] == "task"]
    assert of_tasks["living"] == of_tasks["points"] > 0
    assert of_tasks["model"] == f"stub, {DIMENSION} dimensions"
    assert found["dagster"] == {"ui": None, "sensors_s_ago": None}
    said = place.run("status").stdout
    assert f"task\t{of_tasks['living']}\t0\t{of_tasks['points']}\t" in said
    assert "sensors: none has ever ticked" in said


def test_status_with_nothing_running_says_so_in_json_too(empty: Place) -> None:
    found = empty.answer("status", code=3)
    assert [part["state"] for part in found["embedded"].values()] == ["down"] * 3
    assert "mcp-assets up" in found["pending"]["unavailable"][0]
    assert not found["pending"]["idle"]


def test_up_again_leaves_the_running_stack_as_it_is(place: Place) -> None:
    before = place.answer("status")["embedded"]
    place.answer("up")
    assert place.answer("status")["embedded"] == before


def test_what_env_prints_leads_a_shell_in_another_folder_to_the_same_services(place: Place, tmp_path: Path) -> None:
    elsewhere = Place(tmp_path, exported(place))
    assert elsewhere.answer("status")["addresses"] == place.answer("status")["addresses"]


def test_env_quotes_what_a_shell_would_take_apart(tmp_path: Path) -> None:
    hostile = 'it\'s $HOME; echo `id` "x"'
    found = exported(
        Place(tmp_path, bare_environment() | {"EMBEDDING_MODEL": hostile, "MCP_ASSETS_STREAMS": '["A B", "C"]'})
    )
    assert found["EMBEDDING_MODEL"] == hostile
    assert json.loads(found["MCP_ASSETS_STREAMS"]) == ["A B", "C"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"entity_type": "task"', "delimiter"),
        (b'["task", "1"]', "object"),
        (b'{"entity_type": "widget", "entity_id": "1"}', "widget"),
        (b'{"entity_type": "task"}', "entity_id"),
        (b"\x80", "codec"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number_and_the_command_fails(
    place: Place, content: bytes, complaint: str
) -> None:
    (place.folder / "bad.jsonl").write_bytes(line("task", "ok", "fine") + b"\n\n" + content + b"\n")
    done = place.run("load", "bad.jsonl")
    assert done.code == 1
    assert "bad.jsonl, line 3" in done.stderr
    assert complaint in done.stderr


def test_a_file_that_cannot_be_read_is_named(place: Place) -> None:
    (place.folder / "plain.gz").write_bytes(line("task", "ok", "not compressed"))
    (place.folder / "cut.gz").write_bytes(gzip.compress(line("task", "ok", "x" * 1000))[:-12])
    for name in ("absent.jsonl", "plain.gz", "cut.gz"):
        done = place.run("load", name)
        assert done.code == 1
        assert f"{name} cannot be read" in done.stderr


def test_a_bad_event_file_is_named_by_file_and_line(place: Place) -> None:
    (place.folder / "bad-events.jsonl").write_text('{"subject": "mcp.task.updated", "data": {}}\n{"data": {}}\n')
    done = place.run("publish", "--file", "bad-events.jsonl")
    assert done.code == 1
    assert "bad-events.jsonl, line 2" in done.stderr


def test_a_wrong_call_of_the_process_exits_with_2_and_its_usage(empty: Place) -> None:
    done = empty.process("no-such-command")
    assert done.code == 2
    assert "Usage" in done.stderr
    assert "no-such-command" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("publish",),
        ("publish", "mcp.task.created"),
        ("publish", "mcp.task.created", "{}", "--file", "x"),
        ("search", "x", "--type", "widget"),
        ("search", "x", "--limit", "0"),
        ("load",),
    ],
)
def test_a_wrong_call_exits_with_2(empty: Place, words: tuple[str, ...]) -> None:
    assert empty.run(*words).code == 2


def test_a_wrong_setting_exits_with_2_and_is_named(empty: Place) -> None:
    done = empty.run("status", given={"MCP_ASSETS_SHARDS": "none"})
    assert done.code == 2
    assert "MCP_ASSETS_SHARDS" in done.stderr


@pytest.mark.parametrize("words", [("search", "x"), ("publish", "mcp.task.created", "{}")])
def test_without_a_stack_or_settings_a_command_exits_with_2_and_says_what_to_run(
    empty: Place, words: tuple[str, ...]
) -> None:
    done = empty.run(*words)
    assert done.code == 2
    assert "mcp-assets up" in done.stderr


def test_a_silent_store_or_provider_exits_with_3(place: Place) -> None:
    (place.folder / "one.jsonl").write_bytes(line("task", "t9", "x"))
    dead_postgres = f"postgresql://someone@{DEAD}/nothing"
    assert place.run("load", "one.jsonl", given={"DATABASE_URL": dead_postgres}).code == 3
    assert place.run("status", "--json", given={"DATABASE_URL": dead_postgres}).code == 3
    assert place.run("search", "x", given={"QDRANT_URL": f"http://{DEAD}"}).code == 3
    assert place.run("search", "x", given={"OPENAI_BASE_URL": f"http://{DEAD}/v1"}).code == 3


def test_a_search_that_finds_nothing_exits_with_1(place: Place) -> None:
    without_collections = {"MCP_ASSETS_TYPES": '{"note": {"collection": "no_notes"}}'}
    assert place.answer("search", "x", code=1, given=without_collections) == []


def findings(place: Place, code: int, **environment: str) -> dict[str, tuple[bool, str]]:
    told = place.answer("doctor", code=code, given=environment)
    return {finding["name"]: (finding["ok"], finding["message"]) for finding in told}


def wrong(found: Mapping[str, tuple[bool, str]]) -> set[str]:
    return {name for name, (ok, _) in found.items() if not ok}


def test_doctor_finds_nothing_wrong_with_a_sound_platform(place: Place) -> None:
    assert wrong(findings(place, 0)) == set()


def test_doctor_names_each_service_that_is_silent_by_its_setting_and_without_its_password(place: Place) -> None:
    found = findings(
        place,
        1,
        DATABASE_URL=f"postgresql://someone:pa55word@{DEAD}/nothing",
        NATS_URL=f"nats://someone:pa55word@{DEAD}",
        QDRANT_URL=f"http://{DEAD}",
        OPENAI_BASE_URL=f"http://{DEAD}/v1",
    )
    not_tried = {name for name in found if name not in ("settings", "postgres", "nats", "qdrant", "embedder")}
    assert wrong(found) == {"postgres", "nats", "qdrant", "embedder", *not_tried}
    assert {found[name][1] for name in not_tried} == {"it needs postgres", "it needs collections"}
    assert "DATABASE_URL" in found["postgres"][1]
    assert "NATS_URL" in found["nats"][1]
    assert "QDRANT_URL" in found["qdrant"][1]
    assert DEAD in found["embedder"][1]
    assert "pa55word" not in str(found)


def test_doctor_names_a_source_table_that_is_not_there(place: Place) -> None:
    found = findings(place, 1, MCP_ASSETS_SOURCE_PRESET="cards")
    assert wrong(found) == {"source task", "source page", "source memory"}
    assert "cards" in found["source task"][1]
    assert "MCP_ASSETS_SOURCE_PRESET" in found["source task"][1]


def test_doctor_names_a_collection_that_was_made_for_another_model(place: Place) -> None:
    assert place.answer("load", "-", stdin=line("memory", "m1", "something")) == {"loaded": 1, "published": 0}
    index(place, "memory")
    found = findings(place, 1, EMBEDDING_MODEL="another-stub")
    assert wrong(found) == {"collections", "search"}
    assert "another-stub" in found["collections"][1]


def test_doctor_names_a_setting_that_contradicts_another(place: Place) -> None:
    found = findings(place, 1, EMBEDDING_MODEL="unknown-model", EMBEDDING_DIMENSION="")
    assert wrong(found) == {"settings"}
    assert "EMBEDDING_DIMENSION" in found["settings"][1]


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_no_command_prints_a_key_or_a_password(place: Place, embedder: OpenAIStub) -> None:
    addresses = place.answer("status")["addresses"]
    environment = {
        # The embedded PostgreSQL asks for no password: this leads there.
        "DATABASE_URL": addresses["postgres"].replace("mcp@", "mcp:pa55word@"),
        "QDRANT_API_KEY": "qdrant-very-secret",
    }
    refused = {"NATS_URL": "nats://someone:pa55word@" + addresses["nats"].rpartition("@")[2]}
    calls: list[tuple[tuple[str, ...], dict[str, str], int]] = [
        (("env",), environment, 0),
        (("status",), environment, 0),
        (("status", "--json"), environment, 0),
        (("up",), environment, 0),
        (("publish", "mcp.task.created", "{}"), environment, 0),
        (("publish", "mcp.task.created", "{}"), environment | refused, 1),
        (("load", "absent.jsonl"), environment, 1),
        # The provider's error quotes the key it was sent.
        (("doctor",), environment, 1),
        (("search", "x"), environment, 3),
        (("status",), {"DATABASE_URL": f"postgresql://mcp:pa55word@{DEAD}/mcp"}, 3),
        (("search", "x"), {"QDRANT_URL": f"http://someone:pa55word@{DEAD}"}, 2),
        (("env",), {"QDRANT_URL": f"http://someone:pa55word@{DEAD}"}, 2),
    ]
    embedder.add_fault("unauthorized", times=None)
    try:
        for words, given, code in calls:
            done = place.run(*words, given=given)
            assert done.code == code, (words, done)
            for secret in ("pa55word", "very-secret"):
                assert secret not in done.stdout + done.stderr, words
    finally:
        embedder.clear_faults()
