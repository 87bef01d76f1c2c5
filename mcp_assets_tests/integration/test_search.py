"""Search: one question to all collections, answered by entities, best first, to the end of long texts."""

from collections.abc import Callable, Sequence

import pytest

from mcp_assets.embedding.protocol import TextRefused
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import build_text
from mcp_assets.platform import Platform
from mcp_assets.setting_fields.values import TypeMapping
from mcp_assets.stores.errors import CollectionMismatch
from mcp_assets.sync.search.search import SearchResult, search
from mcp_assets_tests.observing import drain_all, put, put_tasks, remove, send, sync_all

FILLER = " ".join(f"Paragraph {n} speaks of apples and of pears." for n in range(1400))


def fill(platform: Platform) -> None:
    put_tasks(platform, {"1": "mend the garden gate", "2": "order new hinges"})
    put(platform, "wiki_pages", id="1", title="garden gate", content="plans and measures")
    put(platform, "memory_nodes", id="1", content="the gate was painted green in May")
    for entity_type in ("task", "page", "memory"):
        sync_all(platform, entity_type)


def nearest(platform: Platform, query: str, *, types: Sequence[str] = (), limit: int = 10) -> list[SearchResult]:
    """What a search by meaning alone finds."""
    return search(platform, query, types=types, limit=limit, by="meaning").results


def test_the_answers_of_all_collections_are_merged_by_score(platform: Platform) -> None:
    fill(platform)

    found = nearest(platform, "garden gate")

    assert {str(entity.ref) for entity in found[:2]} == {"page:1", "task:1"}
    assert {str(entity.ref) for entity in found} == {"task:1", "task:2", "page:1", "memory:1"}
    scores = [entity.score for entity in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]


def test_the_same_words_are_found_with_score_one_and_their_title(platform: Platform) -> None:
    fill(platform)

    best = nearest(platform, "order new hinges")[0]

    assert (best.ref, best.title, best.chunk) == (EntityRef("task", "2"), "order new hinges", None)
    assert best.score == pytest.approx(1, abs=1e-5)


def test_a_search_may_be_limited_to_types_and_to_a_number(platform: Platform) -> None:
    fill(platform)

    assert {entity.ref.type for entity in nearest(platform, "gate", types=["page", "memory"])} == {
        "page",
        "memory",
    }
    assert [entity.ref.type for entity in nearest(platform, "gate", types=["memory"])] == ["memory"]
    every = nearest(platform, "gate")
    assert nearest(platform, "gate", limit=2) == every[:2]


def test_equal_scores_stand_in_the_order_of_type_and_id(platform: Platform) -> None:
    put_tasks(platform, dict.fromkeys(("b", "a", "c"), "the very same words"))
    put(platform, "wiki_pages", id="a", title="the very same words")
    sync_all(platform)
    sync_all(platform, "page")

    found = nearest(platform, "the very same words")

    assert [str(entity.ref) for entity in found] == ["page:a", "task:a", "task:b", "task:c"]


def test_a_phrase_at_the_end_of_a_long_page_is_found_with_the_place_where_it_stands(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = make_platform(embedding_provider="local", embedding_model=None, embedding_dimension=None)
    phrase = "the quorum for emergency elections is nine members"
    content = f"{FILLER}\n\n{phrase}"
    assert len(content) > 60_000
    put(own, "wiki_pages", id="long", title="Fruit", content=content)
    for n in range(30):
        put(own, "wiki_pages", id=f"other {n}", title=f"Other {n}", content=f"Paragraph {n} speaks of pears.")
    sync_all(own, "page")

    best = nearest(own, phrase)[0]

    assert best.ref == EntityRef("page", "long")
    assert best.chunk is not None
    start, end = best.chunk
    built = build_text("Fruit", content)
    assert start > 55_000
    assert end == len(built)
    assert phrase in built[start:end]
    assert best.passage.excerpt == " ".join(built[start:end].split())[: len(best.passage.excerpt)]


def test_a_long_text_is_one_answer_however_many_of_its_chunks_match(platform: Platform) -> None:
    put(platform, "wiki_pages", id="long", title="Apples", content=FILLER)
    put(platform, "wiki_pages", id="short", title="Pears")
    sync_all(platform, "page")

    found = nearest(platform, "apples and pears", limit=5)

    assert sorted(entity.ref.id for entity in found) == ["long", "short"]


def test_two_types_in_one_collection_may_have_entities_of_the_same_id(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    own = make_platform(types={"note": TypeMapping(), "idea": TypeMapping()}, drain_linger_s=0)
    send(
        own,
        ("mcp.note.created", {"noteId": "1", "title": "a note on gates"}),
        ("mcp.idea.created", {"ideaId": "1", "title": "an idea on gates"}),
    )
    drain_all(own)

    assert {str(entity.ref) for entity in nearest(own, "gates")} == {"note:1", "idea:1"}
    assert [(str(entity.ref), entity.title) for entity in nearest(own, "gates", types=["idea"])] == [
        ("idea:1", "an idea on gates")
    ]


def test_what_was_deleted_is_not_found(platform: Platform) -> None:
    fill(platform)
    remove(platform, "tasks", "1")
    sync_all(platform)

    assert "task:1" not in {str(entity.ref) for entity in nearest(platform, "mend the garden gate")}


def test_a_search_before_anything_was_indexed_finds_nothing(platform: Platform) -> None:
    assert nearest(platform, "anything") == []


def test_an_empty_question_is_refused(platform: Platform) -> None:
    with pytest.raises(TextRefused, match="empty"):
        nearest(platform, "  \n ")


def test_a_collection_of_another_model_is_not_searched(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    fill(platform)

    with pytest.raises(CollectionMismatch, match="EMBEDDING_MODEL"):
        nearest(make_platform(embedding_model="other"), "gate")
