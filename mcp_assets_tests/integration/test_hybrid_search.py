"""Search by words and by meaning: names, identifiers, phrases, scripts, conditions, and stores that are away."""

from collections.abc import Callable, Sequence

import pytest

from mcp_assets.embedding.protocol import EmbedderUnavailable
from mcp_assets.entities.conditions import conditions_of
from mcp_assets.entities.refs import EntityRef
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import StoreUnavailable
from mcp_assets.sync.consistency.end_entities import end_entities
from mcp_assets.sync.consistency.validation import validate
from mcp_assets.sync.index.search_words import write_pending_words
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.search.search import By, SearchResult, search
from mcp_assets.tuning import IndexTuning, Tuning
from mcp_assets_tests.observing import drain_all, put, put_tasks, remove, rows, send, sync_all


@pytest.fixture
def filled(platform: Platform) -> Platform:
    """A few entities of each type, with what people look for in them."""
    put_tasks(
        platform,
        {
            "CHK-104": "Renew the certificate of the gateway",
            "CHK-105": "Rotate the keys",
            "CHK-1": "Paint the gate",
            "OPS-7": "The plan",
        },
    )
    put(platform, "tasks", id="OPS-8", title="Errors at night", description="Fails with ERR_TLS_CERT in getUserName().")
    put(platform, "wiki_pages", id="1", title="Gateway", content="The gateway ends TLS. The certificate lives a year.")
    put(platform, "wiki_pages", id="2", title="知识图谱入门", content="本页介绍如何构建知识图谱并进行检索。")
    put(platform, "memory_nodes", id="m", content="the plan of the gateway is to renew each certificate in March")
    for entity_type in platform.settings.entity_types:
        sync_all(platform, entity_type)
    return platform


def found(platform: Platform, query: str, *where: str, by: By = "both", types: Sequence[str] = ()) -> list[str]:
    answer = search(platform, query, types=types, where=conditions_of(where), by=by)
    assert answer.missing == []
    return [str(result.ref) for result in answer.results]


def test_an_entity_whose_id_or_title_is_the_question_comes_first(filled: Platform) -> None:
    assert found(filled, "CHK-104")[0] == "task:CHK-104"
    assert found(filled, "chk-1")[0] == "task:CHK-1"
    assert found(filled, "the  PLAN")[0] == "task:OPS-7"
    assert found(filled, "gateway")[0] == "page:1"
    first = search(filled, "Rotate the keys").results[0]
    assert (str(first.ref), first.is_name, first.score) == ("task:CHK-105", True, 1.0)


def test_the_beginning_of_an_id_finds_all_that_begin_with_it(filled: Platform) -> None:
    assert set(found(filled, "CHK-10", by="words")[:2]) == {"task:CHK-104", "task:CHK-105"}


@pytest.mark.parametrize("query", ["ERR_TLS_CERT", "err_tls_cert", "getUserName", "getUserName()"])
def test_an_identifier_in_a_text_finds_it(filled: Platform, query: str) -> None:
    assert found(filled, query)[0] == "task:OPS-8"
    assert found(filled, query, by="words")[0] == "task:OPS-8"


def test_a_part_of_an_identifier_finds_it_by_words(filled: Platform) -> None:
    assert found(filled, "cert", by="words") == ["task:OPS-8"]


def test_words_of_a_script_without_spaces_are_found_inside_of_sentences(filled: Platform) -> None:
    assert found(filled, "图谱", by="words") == ["page:2"]
    assert found(filled, "构建知识图谱")[0] == "page:2"


def test_words_that_stand_in_quotes_have_to_stand_together(filled: Platform) -> None:
    assert set(found(filled, "renew certificate", by="words")) >= {"task:CHK-104", "memory:m"}
    assert found(filled, '"renew the certificate"') == ["task:CHK-104"]
    assert found(filled, '"certificate the renew"') == []
    assert found(filled, '"知识图谱"') == ["page:2"]


def test_a_question_of_other_words_is_answered_by_meaning(filled: Platform) -> None:
    results = search(filled, "gate").results

    by_ref = {str(result.ref): result for result in results}
    assert results[0].ref == EntityRef("task", "CHK-1")
    # Shares no word with the question; only its vector is compared.
    assert by_ref["task:CHK-105"].cosine is not None
    assert [part.ranking for part in by_ref["task:CHK-105"].contributions] == ["meaning"]


def test_a_result_says_what_each_ranking_added(filled: Platform) -> None:
    result = search(filled, "renew the certificate of the gateway soon").results[0]

    assert str(result.ref) == "task:CHK-104"
    assert {part.ranking for part in result.contributions} == {"words", "meaning"}
    assert result.score == pytest.approx(sum(part.added for part in result.contributions))


def test_the_excerpt_shows_and_marks_the_words_of_the_question(filled: Platform) -> None:
    passage = search(filled, "ERR_TLS_CERT").results[0].passage

    assert [passage.excerpt[mark.start : mark.end] for mark in passage.marks] == ["ERR_TLS_CERT"]


def test_pages_continue_each_other_and_a_score_may_be_demanded(filled: Platform) -> None:
    every = search(filled, "the certificate", limit=6).results

    assert (
        search(filled, "the certificate", limit=3).results
        + search(filled, "the certificate", limit=3, offset=3).results
        == every
    )
    bound = every[2].score
    assert search(filled, "the certificate", min_score=bound).results == [one for one in every if one.score >= bound]


@pytest.fixture
def tracked(platform: Platform) -> Platform:
    """Tasks of one text, which differ by their metadata."""
    for number, (status, tags, points, due) in enumerate(
        [
            ("open", ["urgent", "tls"], 3, "2026-11-20"),
            ("open", ["tls"], 8, "2026-12-24"),
            ("done", [], 3.5, None),
            (None, ["urgent"], "3", "2026-12-01"),
        ]
    ):
        put(
            platform, "tasks", id=f"t{number}", title="renew certificate", status=status, tags=tags, due_date=due,
            metadata={"points": points, "flag": number == 0, "a.b": "x y", "at": f"2026-11-2{number}T10:00:00+02:00"},
        )  # fmt: skip
    sync_all(platform)
    return platform


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        (["status=open"], "01"),
        (["status!=open"], "23"),
        (["status=nothing"], ""),
        (["tags=urgent"], "03"),
        (["tags!=urgent"], "12"),
        (["tags=urgent", "status=open"], "0"),
        (["points=3"], "03"),
        (["points>3"], "12"),
        (["points<=3.5"], "02"),
        (["due_date<2026-12-01"], "0"),
        (["due_date<=2026-12-01"], "03"),
        (["due_date>2026-11-20"], "13"),
        (["at>=2026-11-21T08:00:00Z"], "123"),
        (["at>2026-11-21T08:00:00Z"], "23"),
        (["flag=true"], "0"),
        (["a.b='x y'"], "0123"),
        (["absent=1"], ""),
        (["absent!=1"], "0123"),
        (["absent>1"], ""),
    ],
)
@pytest.mark.parametrize("by", ["words", "meaning", "both"])
def test_conditions_hold_for_what_is_found_by_words_and_by_meaning(
    tracked: Platform, by: By, where: list[str], numbers: str
) -> None:
    assert set(found(tracked, "renew certificate", *where, by=by)) == {f"task:t{number}" for number in numbers}


def test_words_follow_each_change_of_an_entity(platform: Platform) -> None:
    send(platform, ("mcp.memory.stored", {"memoryId": "1", "title": "first", "content": "alpha"}))
    drain_all(platform)
    assert found(platform, "alpha", by="words") == ["memory:1"]

    send(platform, ("mcp.memory.updated", {"memoryId": "1", "title": "second", "content": "beta"}))
    drain_all(platform)
    assert found(platform, "alpha", by="words") == []
    assert found(platform, "beta", by="words") == ["memory:1"]
    assert found(platform, "first", by="words") == []

    end_entities(platform, [EntityRef("memory", "1")])
    assert found(platform, "beta", by="words") == []
    assert rows(platform, "SELECT * FROM {schema}.search_words") == []


@pytest.mark.tuning(Tuning(index=IndexTuning(words_cut_at_once=0)))
def test_words_of_a_large_batch_are_written_when_it_is_linked(platform: Platform) -> None:
    put_tasks(platform, {"1": "alpha", "2": "beta"})
    sync_all(platform)
    assert found(platform, "alpha", by="words") == []
    assert words_found_wrong(platform) == {}

    link_to_the_end(platform)
    assert found(platform, "alpha", by="words") == ["task:1"]

    put_tasks(platform, {"1": "gamma"})
    sync_all(platform)
    assert found(platform, "alpha", by="words") == ["task:1"]
    assert words_found_wrong(platform) == {}

    link_to_the_end(platform)
    assert found(platform, "alpha", by="words") == []
    assert found(platform, "gamma", by="words") == ["task:1"]
    assert words_found_wrong(platform) == {}


@pytest.mark.tuning(Tuning(index=IndexTuning(words_cut_at_once=0)))
def test_an_entity_that_ends_before_it_is_linked_has_no_words(platform: Platform) -> None:
    send(platform, ("mcp.memory.stored", {"memoryId": "1", "title": "first", "content": "alpha"}))
    drain_all(platform)

    assert end_entities(platform, [EntityRef("memory", "1")]).left == []

    assert rows(platform, "SELECT * FROM {schema}.search_words") == []
    assert validate(platform, entity_types=["memory"], deep=True).found == {}


@pytest.mark.tuning(Tuning(index=IndexTuning(words_cut_at_once=0)))
def test_words_that_wait_for_a_linker_which_knows_nothing_of_them_are_found_and_written(platform: Platform) -> None:
    put_tasks(platform, {"1": "alpha"})
    sync_all(platform)
    with platform.postgres.transaction() as connection:
        connection.execute(b"DELETE FROM mcp_assets.relink_marks")

    assert words_found_wrong(platform) == {"wrong_search_words": 1}
    validate(platform, entity_types=["task"], repair=True)

    assert found(platform, "alpha", by="words") == ["task:1"]
    assert words_found_wrong(platform) == {}


@pytest.mark.tuning(Tuning(index=IndexTuning(words_cut_at_once=0)))
def test_the_linker_leaves_words_to_another_round_whose_ledger_row_is_locked(platform: Platform) -> None:
    """It holds marks that the transaction with the row may wait for, so that it must not wait for the row."""
    put_tasks(platform, {"1": "alpha", "2": "beta"})
    sync_all(platform)
    refs = [EntityRef("task", "1"), EntityRef("task", "2")]
    with platform.postgres.transaction() as other, platform.postgres.transaction() as connection:
        other.execute(b"SELECT FROM mcp_assets.entities WHERE entity_id = '1' FOR UPDATE")

        assert write_pending_words(platform, connection, refs) == {EntityRef("task", "1")}

    assert found(platform, "beta", by="words") == ["task:2"]
    link_to_the_end(platform)
    assert found(platform, "alpha", by="words") == ["task:1"]


def link_to_the_end(platform: Platform) -> None:
    for _ in link_until_done(platform):
        pass


def words_found_wrong(platform: Platform) -> dict[str, int]:
    found_of_all = validate(platform, entity_types=["task"], deep=True).found
    return {kind: number for kind, number in found_of_all.items() if kind == "wrong_search_words"}


def test_a_deleted_row_has_no_words(filled: Platform) -> None:
    remove(filled, "tasks", "OPS-8")
    sync_all(filled)

    assert found(filled, "getUserName", by="words") == []


def test_a_full_sync_makes_the_words_of_entities_that_older_rules_prepared(filled: Platform) -> None:
    embedded = rows(filled, "SELECT entity_id, embedded_at FROM {schema}.embedded ORDER BY 1")
    with filled.postgres.transaction() as connection:
        connection.execute(b"DELETE FROM mcp_assets.search_words")
        connection.execute(b"UPDATE mcp_assets.entities SET prepared_by = 'text-2/2000-200/older'")
    assert found(filled, "getUserName", by="words") == []

    for entity_type in filled.settings.entity_types:
        sync_all(filled, entity_type)

    assert found(filled, "getUserName", by="words") == ["task:OPS-8"]
    assert rows(filled, "SELECT entity_id, embedded_at FROM {schema}.embedded ORDER BY 1") == embedded


def test_while_qdrant_is_away_words_alone_answer_and_the_answer_says_so(
    filled: Platform, make_platform: Callable[..., Platform]
) -> None:
    away = make_platform(qdrant_url="http://127.0.0.1:1", retry_attempts=1)

    answer = search(away, "getUserName")

    assert [str(result.ref) for result in answer.results] == ["task:OPS-8"]
    assert len(answer.missing) == 1
    assert "Qdrant" in answer.missing[0]
    with pytest.raises(StoreUnavailable):
        search(away, "ERR_TLS_CERT", by="meaning")


def test_while_the_provider_is_away_words_alone_answer_and_the_answer_says_so(
    filled: Platform, make_platform: Callable[..., Platform]
) -> None:
    away = make_platform(openai_base_url="http://127.0.0.1:1", retry_attempts=1)

    answer = search(away, "getUserName")

    assert [str(result.ref) for result in answer.results] == ["task:OPS-8"]
    assert "searched by meaning" in answer.missing[0]
    with pytest.raises(EmbedderUnavailable):
        search(away, "ERR_TLS_CERT", by="meaning")


def test_hostile_questions_are_plain_words(filled: Platform) -> None:
    for query in ("'; DROP TABLE tasks --", "a & !b | (c", ":*", "\\", "''", '"', "=", "x" * 5_000, "\u202e"):
        results: list[SearchResult] = search(filled, query).results
        assert all(0 <= result.score <= 1 for result in results)
