"""`mcp-assets quality`: edges against explicit links, searches against a golden file."""

from pathlib import Path

import pytest

from mcp_assets.platform import Platform
from mcp_assets.settings import Settings, variable_of
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets_tests.command import Place, bare_environment
from mcp_assets_tests.observing import put, rows, sync_all

NEAR = "hinge"


@pytest.fixture
def place(settings: Settings, tmp_path: Path) -> Place:
    """A folder whose settings lead to the test's stores."""
    changed = {
        variable_of(name): getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name in Settings.model_fields
        if (value := getattr(settings, name)) != Settings.model_fields[name].get_default() and name != "state_dir"
    }
    return Place(tmp_path, bare_environment() | changed)


@pytest.fixture
def linked(platform: Platform) -> Platform:
    """Twenty-four tasks that depend on their neighbour: those of one half of the pairs share words, the others none."""
    for number in range(24):
        # 0 and 1 share their words, 2 and 3 do not, and so on.
        words = f"{NEAR}{number // 2} gate{number // 2}" if number % 4 < 2 else f"alone{number} apart{number}"
        depends_on = [f"t{number + 1:02}"] if number % 2 == 0 else []
        put(platform, "tasks", id=f"t{number:02}", title=words, depends_on=depends_on)
    sync_all(platform)
    list(link_until_done(platform))
    return platform


def test_edges_are_held_against_explicit_links_and_searches_against_the_golden_file(
    place: Place, linked: Platform, tmp_path: Path
) -> None:
    bare = place.answer("quality")
    assert bare["figures"]["links"] == 12
    assert bare["figures"]["recall"] == bare["figures"]["recall/semantic_similarity"] == 0.5
    assert bare["figures"]["recall/topical_relevance"] == 0
    assert "hit_1" not in bare["figures"]
    assert "not measured, because there is no golden file" in place.run("quality").stdout

    assert (bare["figures"]["accepted"], bare["figures"]["rejected"]) == (0, 0)
    for target, decision in (("t01", "accept"), ("t00", "reject")):
        source = "t00" if target == "t01" else "t05"
        rows(
            linked,
            "INSERT INTO {schema}.edge_verdicts (source_type, source_id, target_type, target_id, edge_type, decision,"
            " evidence, strength, decided_by) VALUES ('task', %s, 'task', %s, 'semantic_similarity', %s, '{}', 0.9,"
            " 'anna') RETURNING 1",
            source,
            target,
            f"{decision}ed",
        )
    judged = place.answer("quality")["figures"]
    assert (judged["accepted"], judged["rejected"]) == (1, 1)
    assert (judged["judged_precision"], judged["judged_recall"]) == (0.5, 1.0)

    golden = tmp_path / "golden.tsv"
    golden.write_text("hinge0 gate0\ttask:t00\ttask:t01\nalone2\ttask:t02\nnowhere\ttask:t07\nit\ttask:gone\n")
    with_file = {"MCP_ASSETS_GOLDEN_FILE": str(golden)}
    before = rows(linked, "SELECT coalesce(sum(texts), 0) FROM {schema}.embedding_costs")[0][0]
    found = place.answer("quality", given=with_file | {"MCP_ASSETS_QUALITY_HIT_5": "0.5"})
    assert found["figures"]["questions"] == 3
    assert found["figures"]["questions_absent"] == 1
    assert found["figures"]["hit_1"] == pytest.approx(2 / 3, abs=1e-4)
    assert [miss["query"] for miss in found["misses"]] == ["nowhere"]
    assert rows(linked, "SELECT sum(texts) FROM {schema}.embedding_costs")[0][0] == before + 3

    low = place.run("quality", given=with_file | {"MCP_ASSETS_QUALITY_HIT_5": "0.9"})
    assert low.code == 1
    assert "too low: 66.7% of 3 golden questions" in low.stdout
    assert "1 golden questions were not asked" in low.stdout


def test_a_wrong_golden_file_is_named_with_its_line_before_anything_is_asked(place: Place, tmp_path: Path) -> None:
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"query": "x", "expected": "tsk:1"}\n')
    done = place.run(
        "quality", given={"MCP_ASSETS_GOLDEN_FILE": str(golden), "DATABASE_URL": "postgresql://x@127.0.0.1:9/x"}
    )
    assert done.code == 2
    assert f"{golden}, line 1: the expected entity 'tsk:1' is of no entity type" in done.stderr


def test_a_search_without_meaning_is_no_measurement(place: Place, linked: Platform, tmp_path: Path) -> None:
    golden = tmp_path / "golden.tsv"
    golden.write_text("hinge0\ttask:t00\n")
    done = place.run(
        "quality",
        given={
            "MCP_ASSETS_GOLDEN_FILE": str(golden),
            "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
            "MCP_ASSETS_RETRY_ATTEMPTS": "1",
        },
    )
    assert done.code == 3
    assert "the quality of searches cannot be measured" in done.stderr
