"""The side-by-side benchmark: its cases change what they say, and its comparison sees each kind of wrong vector."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import mcp_assets
from mcp_assets.entities.chunks import ChunkSpec

BENCHMARKS = Path(mcp_assets.__file__).parents[1] / "benchmarks"

SPEC = ChunkSpec(2_000, 200)


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark, which stand in no package that is installed."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(BENCHMARKS))
        yield {name: import_module(f"peers.{name}") for name in ("comparison", "environments", "rows", "stub", "table")}
    for name in [name for name in sys.modules if name.partition(".")[0] == "peers"]:
        del sys.modules[name]


@pytest.fixture
def rows(parts: dict[str, ModuleType]) -> Any:
    return parts["rows"]


def test_short_rows_are_all_different_and_come_in_the_order_of_their_ids(rows: Any) -> None:
    made = rows.short_rows(3_000)
    assert len({row.content for row in made}) == 3_000
    assert [row.entity_id for row in made] == sorted(row.entity_id for row in made)
    assert all(rows.SHORT_CHARACTERS / 2 < len(row.content) < rows.SHORT_CHARACTERS * 2 for row in made)


@pytest.mark.parametrize(("case", "written", "removed"), [("changed", 30, 0), ("thinned", 0, 30), ("poisoned", 31, 0)])
def test_each_case_touches_one_row_in_a_hundred(rows: Any, case: str, written: int, removed: int) -> None:
    before = rows.short_rows(3_000)
    upsert, remove = rows.difference(before, getattr(rows, case)(before))
    assert (len(upsert), len(remove)) == (written, removed)


def test_the_deleted_rows_are_others_than_the_changed_ones(rows: Any) -> None:
    before = rows.short_rows(1_000)
    changed, _ = rows.difference(before, rows.changed(before))
    _, deleted = rows.difference(before, rows.thinned(before))
    assert not {row.key for row in changed} & {row.key for row in deleted}


def test_the_poison_stands_in_the_middle_and_goes_without_a_trace(rows: Any, parts: dict[str, ModuleType]) -> None:
    before = rows.short_rows(1_000)
    after = rows.poisoned(before)
    (place,) = (place for place, row in enumerate(after) if parts["stub"].POISON in row.content)
    assert place == 501
    assert [row.entity_id for row in after] == sorted(row.entity_id for row in after)
    assert rows.without_poison(after) == rows.changed(before)


def test_a_long_row_is_cut_into_the_texts_that_the_platform_embeds(rows: Any) -> None:
    sentence = "A page has many sentences. "
    long, short, empty = (
        rows.Row("page", *row) for row in (("a", None, sentence * 1_000), ("b", None, sentence), ("c", None, ""))
    )
    cut = list(rows.pieces([long, short, empty], SPEC))
    assert [piece.key for piece in cut if piece.row is not long] == ["page:b#0"]
    own, *chunks = [piece for piece in cut if piece.row is long]
    assert own.key == "page:a#0"
    assert len(own.text) <= 8_000 < len(long.content)
    assert [piece.number for piece in chunks] == list(range(1, len(chunks) + 1))
    assert len(chunks) > len(long.content) / SPEC.size


def test_a_refused_request_counts_its_texts_and_a_vector_follows_from_its_text(parts: dict[str, ModuleType]) -> None:
    stub = parts["stub"].Stub()
    (first,), (second,) = stub.embed(["a text"]), stub.embed(["a text"])
    assert np.array_equal(first, second)
    assert first.shape == (parts["stub"].DIMENSION,)
    assert np.linalg.norm(first) == pytest.approx(1)
    with pytest.raises(parts["stub"].TextRefused):
        stub.embed(["another", f"and {parts['stub'].POISON}"])
    assert stub.texts == 4


def test_the_comparison_tells_missing_stale_orphaned_and_doubled_points_apart(parts: dict[str, ModuleType]) -> None:
    vector_of, compare = parts["stub"].vector_of, parts["comparison"].compare
    expected = {key: vector_of(key) for key in ("right", "missing", "stale", "both", "twice")}
    held = [
        # Qdrant scales vectors; ours are kept as the model gave them.
        ("right", vector_of("right") * 3),
        ("stale", vector_of("what it was")),
        ("both", vector_of("what it was")),
        ("both", vector_of("both")),
        ("twice", vector_of("twice")),
        ("twice", vector_of("twice")),
        ("gone", vector_of("gone")),
    ]
    found = compare(expected, held)
    assert (found.right, found.wrong) == (3, {"missing": 1, "stale": 2, "orphan": 1, "doubled": 1})
    assert compare({}, []).wrong == {}


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"entity_type": "task", "entity_id": "1", "piece": 2}, "task:1#2"),
        ({"page_content": "text", "metadata": {"entity_type": "task", "entity_id": "1", "piece": 2}}, "task:1#2"),
        ({"entity_type": "page", "entity_id": "a", "mcp_kind": "entity"}, "page:a#0"),
        ({"entity_type": "page", "entity_id": "a", "mcp_kind": "chunk", "mcp_chunk": 0}, "page:a#1"),
    ],
)
def test_the_key_of_a_text_is_found_in_the_payload_of_each_system(
    parts: dict[str, ModuleType], payload: dict[str, Any], key: str
) -> None:
    assert parts["comparison"].key_of(payload) == key


def report(*, idle: bool) -> dict[str, Any]:
    cold: dict[str, Any] = {
        "seconds": 2.7,
        "cpu_s": 1.25,
        "postgres_cpu_s": 0.5,
        "qdrant_cpu_s": None,
        "peak_rss_mb": 150.4,
    }
    cold |= {"rows": 3_000, "expected": 3_000, "texts": 3_000, "wrong": {}, "error": None}
    poison = cold | {"seconds": 0.3, "wrong": {"stale": 20, "missing": 4}, "error": "TextRefused: no"}
    return {
        "date": "2026-01-02",
        "command": "python benchmarks/side_by_side.py",
        "machine": "2 cores",
        "idle": idle,
        "qdrant": "a server",
        "versions": {"One": "1.0", "Two": "2.0"},
        "sizes": {
            "3000": {
                "one": {"title": "One", "cold": cold, "poison": poison, "not_measured": {"mend": "has none"}},
                "two": {"title": "Two", "not_measured": {"cold": "not measured: needs gRPC"}},
            }
        },
    }


def test_the_tables_show_costs_vectors_and_what_was_not_measured(parts: dict[str, ModuleType]) -> None:
    made = parts["table"].markdown(report(idle=True))
    assert "### Short rows: 3,000 rows, 3,000 texts" in made
    assert "| cold: empty stores | 2.70 s (1.2 + 0.5 + ?) | not measured: needs gRPC |" in made
    assert "| 3,000: 20 stale, 4 missing (the run failed) |" in made
    assert "| 2 % of the vectors lost: the system's own repair | has none |  |" in made
    assert "| peak memory, cold | 150 MB |  |" in made


def test_seconds_of_a_busy_machine_stand_in_no_table(parts: dict[str, ModuleType]) -> None:
    made = parts["table"].markdown(report(idle=False))
    assert "2.70 s" not in made
    assert f"{parts['table'].NOT_IDLE} (1.2 + 0.5 + ?)" in made


def test_the_tables_replace_those_that_a_page_had(parts: dict[str, ModuleType]) -> None:
    table = parts["table"]
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.in_page(page, "new") == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="no place for the tables"):
        table.in_page("a page without marks", "new")


def test_each_system_has_a_script_and_the_version_that_its_pins_name(parts: dict[str, ModuleType]) -> None:
    peers = parts["environments"].PEERS
    assert len(peers) == 4
    for peer in peers:
        assert peer.script.is_file()
        assert peer.version[0].isdigit()
