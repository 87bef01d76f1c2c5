"""The sample workspace: what a demo may rely on, from the form of each entity to what a search finds."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_assets.embedding.local import LocalEmbedder
from mcp_assets.entities.chunks import ChunkSpec
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import POINT_CHARACTERS, build_text, collapse, prepare
from mcp_assets.sample import SEARCHES, entities

ENTITIES = {EntityRef(entity["entity_type"], entity["entity_id"]): entity for entity in entities()}
PAGE_TITLES = {entity["title"]: ref for ref, entity in ENTITIES.items() if ref.type == "page"}

LIST_KEYS = ("depends_on", "blocked_by", "replaces", "superseded_by")
PARENT_KEYS = ("parent_id", "parent_page_id", "epic_id")
TASK_COLUMNS = "board_id status priority assignee_id tags parent_id depends_on blocked_by due_date"
METADATA_KEYS = {
    "task": {*TASK_COLUMNS.split(), "epic_id", "estimate_days", "quarter"},
    "page": {"slug", "category", "author_id", "tags", "parent_page_id", "replaces", "superseded_by"},
    "memory": {"context", "concepts", "tags", "author_id"},
}
REQUIRED_KEYS = {
    "task": {"board_id", "status", "priority", "assignee_id", "tags"},
    "page": {"slug", "category", "author_id", "tags"},
    "memory": {"context", "concepts", "tags", "author_id"},
}

HANDBOOK = EntityRef("page", "engineering-handbook")
INCIDENT_REVIEW = EntityRef("page", "incident-review-first-warm-saturday")

CHUNKS = ChunkSpec(size=2000, overlap=200)

# Referred to before they are written: a demo creates them and sees their edges appear.
NOT_WRITTEN_YET = {EntityRef("page", "adr-011-account-updater"), EntityRef("task", "CHK-158")}

# (entity, start of the chunk in its text; 0 for the entity's own point) and the unit vectors, a row a point
Points = tuple[list[tuple[EntityRef, int]], NDArray[np.float32]]


def references_in_text(entity: dict[str, Any]) -> Iterator[EntityRef]:
    for kind, entity_id in re.findall(r"\b(task|page|memory):([A-Za-z0-9][A-Za-z0-9_-]*)", entity["content"]):
        yield EntityRef(kind, entity_id)
    for title in re.findall(r"\[\[([^\]]+)\]\]", entity["content"]):
        yield PAGE_TITLES.get(title, EntityRef("page", f"[[{title}]]"))


def references_in_metadata(entity: dict[str, Any]) -> Iterator[EntityRef]:
    metadata = entity["metadata"]
    for key in LIST_KEYS:
        for entity_id in metadata.get(key, []):
            yield EntityRef(entity["entity_type"], entity_id)
    for key in PARENT_KEYS:
        if key in metadata:
            yield EntityRef(entity["entity_type"], metadata[key])


def references(entity: dict[str, Any]) -> list[EntityRef]:
    return [*references_in_text(entity), *references_in_metadata(entity)]


def sections(content: str) -> list[str]:
    return re.split(r"^## ", content, flags=re.MULTILINE)


def test_each_line_is_one_entity_with_the_keys_of_the_shared_format() -> None:
    lines = files("mcp_assets.sample").joinpath("workspace.jsonl").read_bytes().splitlines()
    rows = list(entities())
    assert len(rows) == len(lines)
    for row in rows:
        assert list(row) == [
            "entity_type", "entity_id", "title", "content", "metadata", "created_at", "updated_at"
        ]  # fmt: skip
        assert row["title"].strip() == row["title"] != ""
        assert row["content"].strip() == row["content"] != ""


def test_there_are_55_tasks_40_pages_and_25_memories_and_no_two_share_an_id() -> None:
    assert Counter(entity["entity_type"] for entity in entities()) == {"task": 55, "page": 40, "memory": 25}
    assert len(ENTITIES) == 120


def test_ids_are_short_and_can_be_referred_to_in_text() -> None:
    assert [ref for ref in ENTITIES if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", ref.id)] == []


def test_titles_are_distinct_so_that_each_title_link_means_one_page() -> None:
    assert len({entity["title"].casefold() for entity in ENTITIES.values()}) == len(ENTITIES)
    slugs = [entity["metadata"]["slug"] for entity in ENTITIES.values() if entity["entity_type"] == "page"]
    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize("entity_type", ["task", "page", "memory"])
def test_metadata_has_the_columns_of_its_source_table_and_no_empty_value(entity_type: str) -> None:
    for ref, entity in ENTITIES.items():
        if ref.type == entity_type:
            metadata = entity["metadata"]
            assert REQUIRED_KEYS[entity_type] <= set(metadata) <= METADATA_KEYS[entity_type], str(ref)
            assert all(metadata.values()), str(ref)
            lists = {key for key, value in metadata.items() if isinstance(value, list)}
            assert lists == set(metadata) & {"tags", "concepts", *LIST_KEYS}, str(ref)


def test_tags_are_few_and_each_is_shared_by_several_entities() -> None:
    tags = Counter(tag for entity in ENTITIES.values() for tag in entity["metadata"]["tags"])
    assert 18 <= len(tags) <= 26
    assert min(tags.values()) >= 3


def test_every_reference_resolves_except_the_two_that_are_not_written_yet() -> None:
    unresolved = [ref for entity in ENTITIES.values() for ref in references(entity) if ref not in ENTITIES]
    assert Counter(unresolved) == dict.fromkeys(NOT_WRITTEN_YET, 1)


def test_nothing_refers_to_itself() -> None:
    assert [ref for ref, entity in ENTITIES.items() if ref in references(entity)] == []


@pytest.mark.parametrize(
    "form",
    [
        r"\btask:CHK-\d+",
        r"\bpage:[a-z]",
        r"\bmemory:mem-\d+",
        r"\[\[[^\]]+\]\]",
        r"[Dd]epends on task:",
        r"[Bb]locked by task:",
        r"[Aa]fter task:",
        r"[Ff]ollows task:",
        r"[Pp]art of task:",
        r"[Ss]ubtask of task:",
    ],
)
def test_every_form_of_reference_occurs_in_some_text(form: str) -> None:
    assert any(re.search(form, entity["content"]) for entity in ENTITIES.values())


@pytest.mark.parametrize("key", [*LIST_KEYS, *PARENT_KEYS])
def test_every_kind_of_reference_occurs_in_some_metadata(key: str) -> None:
    assert any(key in entity["metadata"] for entity in ENTITIES.values())


def test_a_replaced_page_and_its_replacement_name_each_other() -> None:
    replaced = {(new.id, old) for new, entity in ENTITIES.items() for old in entity["metadata"].get("replaces", [])}
    superseded = {
        (new, old.id) for old, entity in ENTITIES.items() for new in entity["metadata"].get("superseded_by", [])
    }
    assert replaced == superseded


def test_no_entity_is_its_own_ancestor() -> None:
    for ref, entity in ENTITIES.items():
        seen = {ref.id}
        while parent := next((entity["metadata"][key] for key in PARENT_KEYS[:2] if key in entity["metadata"]), None):
            assert parent not in seen, str(ref)
            seen.add(parent)
            entity = ENTITIES[EntityRef(ref.type, parent)]


def test_timestamps_are_utc_lie_in_2025_and_2026_and_entities_come_oldest_first() -> None:
    created = []
    for ref, entity in ENTITIES.items():
        begin, end = (datetime.fromisoformat(entity[key]) for key in ("created_at", "updated_at"))
        assert begin.utcoffset() == end.utcoffset() == timedelta(0), str(ref)
        assert 2025 <= begin.year <= end.year <= 2026, str(ref)
        assert begin <= end, str(ref)
        created.append(begin)
    assert created == sorted(created)


def test_nothing_refers_to_what_was_written_after_its_own_last_change() -> None:
    early = [
        f"{ref} -> {target}"
        for ref, entity in ENTITIES.items()
        for target in references(entity)
        if target in ENTITIES and ENTITIES[target]["created_at"] > entity["updated_at"]
    ]
    assert early == []


def test_texts_have_the_length_of_their_type() -> None:
    for ref, entity in ENTITIES.items():
        words = len(entity["content"].split())
        if ref.type == "memory":
            assert 15 <= words <= 80, str(ref)
        elif ref.type == "task":
            assert 40 <= words <= 140, str(ref)
        elif ref not in (HANDBOOK, INCIDENT_REVIEW):
            assert 150 <= words <= 700, str(ref)
    assert len(ENTITIES[INCIDENT_REVIEW]["content"]) > 9_000
    assert len(ENTITIES[HANDBOOK]["content"]) > 12_000


def test_no_paragraph_is_used_twice() -> None:
    paragraphs = Counter(
        paragraph
        for entity in ENTITIES.values()
        for paragraph in entity["content"].split("\n\n")
        if len(paragraph) > 60
    )
    assert [paragraph for paragraph, uses in paragraphs.items() if uses > 1] == []


@pytest.mark.parametrize(
    ("page", "fact"),
    [
        (INCIDENT_REVIEW, "emergency telephone numbers"),
        (INCIDENT_REVIEW, "red biscuit tin"),
        (HANDBOOK, "brass bell"),
        (HANDBOOK, "poppy-seed cake"),
    ],
)
def test_the_last_section_of_a_long_page_holds_a_fact_that_stands_nowhere_else(page: EntityRef, fact: str) -> None:
    assert [ref for ref, entity in ENTITIES.items() if fact in entity["content"]] == [page]
    entity = ENTITIES[page]
    assert fact in sections(entity["content"])[-1]
    assert collapse(build_text(entity["title"], entity["content"])).index(fact) > POINT_CHARACTERS


def test_the_file_is_clean_utf_8_in_normal_form_c() -> None:
    text = files("mcp_assets.sample").joinpath("workspace.jsonl").read_bytes().decode("utf-8")
    assert text.endswith("}\n")
    assert text.isascii() is False, "letters beyond ASCII belong to the demonstration"
    assert unicodedata.is_normalized("NFC", text)
    for ref, entity in ENTITIES.items():
        for value in (entity["title"], entity["content"]):
            odd = {c for c in value if not (c.isprintable() or c == "\n") or c in "\ufeff\ufffdÃÂâ"}
            assert odd == set(), str(ref)
            assert not re.search(r"[ \t]+$", value, flags=re.MULTILINE), str(ref)


def test_code_blocks_are_closed() -> None:
    assert [ref for ref, entity in ENTITIES.items() if entity["content"].count("```") % 2] == []


@pytest.fixture(scope="module")
def workspace_vectors() -> Points:
    points: list[tuple[EntityRef, int]] = []
    texts: list[str] = []
    for ref, entity in ENTITIES.items():
        prepared = prepare(entity["title"], entity["content"], CHUNKS)
        points += [(ref, 0), *((ref, chunk.start) for chunk in prepared.chunks)]
        texts += [prepared.text, *(chunk.text for chunk in prepared.chunks)]
    vectors = np.array([outcome.vector for outcome in LocalEmbedder().embed(texts).outcomes], dtype=np.float32)
    return points, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (SEARCHES[0], ["memory:mem-0018", "task:CHK-138", "memory:mem-0025"]),
        (SEARCHES[1], ["page:postmortem-webhook-stall", "task:CHK-128", "page:runbook-webhook-backlog"]),
        (SEARCHES[2], [str(INCIDENT_REVIEW)]),
    ],
)
def test_each_search_finds_its_answer_first(
    workspace_vectors: Points,
    query: str,
    expected: list[str],
) -> None:
    points, vectors = workspace_vectors
    best_first = np.argsort(-(vectors @ np.asarray(LocalEmbedder().embed_query(query))))
    found = list(dict.fromkeys(str(points[index][0]) for index in best_first))
    assert found[: len(expected)] == expected


def test_the_last_search_is_answered_by_the_end_of_a_page_which_its_first_point_does_not_reach(
    workspace_vectors: Points,
) -> None:
    points, vectors = workspace_vectors
    ref, start = points[int(np.argmax(vectors @ np.asarray(LocalEmbedder().embed_query(SEARCHES[2]))))]
    assert ref == INCIDENT_REVIEW
    assert start > POINT_CHARACTERS
