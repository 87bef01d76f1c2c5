"""A small vault: links as people write them make one edge to the page, or none, and no false dangling reference."""

from collections import defaultdict
from unicodedata import normalize

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType
from mcp_assets.graph.keys import ReferenceKey, keys_of
from mcp_assets.graph.references import MAX_CONTEXT, resolve
from mcp_assets_tests.unit.graph.samples import RULES

SOURCE = EntityRef("page", "source")
HARBOUR, TIDES, CSHARP = (EntityRef("page", name) for name in ("harbour", "tides", "csharp"))
VAULT = {
    HARBOUR: ("Harbour Café", {"slug": "places/harbour-cafe"}),
    TIDES: ("Tides", {"slug": "science/tides"}),
    CSHARP: ("C#", {}),
    SOURCE: ("Diary", {}),
}
HOLDERS: dict[ReferenceKey, list[EntityRef]] = defaultdict(list)
for ref, (title, metadata) in VAULT.items():
    for key in keys_of(ref, title, metadata):
        HOLDERS[key].append(ref)


def edges(content: str) -> list[Edge]:
    return list(resolve(SOURCE, RULES.uses(SOURCE, "Diary", content, {}), HOLDERS))


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("[[Tides]]", TIDES),
        ("[[Tides#Spring tides]]", TIDES),
        ("[[Tides#Spring#More]]", TIDES),
        ("[[Tides#^a1b2]]", TIDES),
        ("[[Tides|the sea]]", TIDES),
        ("[[Tides#Neap|neap tides]]", TIDES),
        ("| a | [[Tides\\|sea]] |", TIDES),
        ("![[Tides]]", TIDES),
        ("![[Tides#Neap|300]]", TIDES),
        ("[[Tides.md]]", TIDES),
        ("[[Tides.md#Neap]]", TIDES),
        ("[[science/Tides]]", TIDES),
        ("[[science/tides.md|x]]", TIDES),
        ("[[../science/Tides]]", TIDES),
        ("[[/science/tides/]]", TIDES),
        ("[[ tides ]]", TIDES),
        (f"[[{normalize('NFC', 'Harbour Café')}]]", HARBOUR),
        (f"[[{normalize('NFD', 'harbour CAFÉ')}#Menu]]", HARBOUR),
        ("[[places/harbour-cafe]]", HARBOUR),
        ("[[C#]]", CSHARP),
        ("[[C#|sharp]]", CSHARP),
    ],
)
def test_a_link_to_a_page_is_one_edge_to_it(content: str, target: EntityRef) -> None:
    assert [(edge.target, edge.type) for edge in edges(content)] == [(target, EdgeType.CROSS_REFERENCE)]


@pytest.mark.parametrize(
    "content",
    [
        "[[#Heading]] [[#^block]] [[^block]] [[#Heading|shown]]",
        "![[tide-table.png]] ![[chart.pdf#page=3]] [[map.canvas]]",
        "[[https://example.org/Tides]]",
        "```toml\n[[Tides]]\ntask:build\n```",
        "`[[Tides]]` and `task:build`",
        "<!-- [[Tides]] -->",
        "---\nup: '[[Tides]]'\n---\n",
        "text\n\n    [[ -f x ]]\n    [[Tides]]\n",
    ],
)
def test_what_links_to_no_page_is_no_reference_at_all(content: str) -> None:
    assert RULES.uses(SOURCE, "Diary", content, {}) == ()


def test_code_at_the_very_beginning_is_code_though_the_text_is_trimmed() -> None:
    assert RULES.uses(SOURCE, "Diary", "\n    task:build\n\ntask:X", {})[0].key == "task:X"


def test_the_names_of_a_reference_to_nothing_are_one_reference() -> None:
    found = RULES.uses(SOURCE, None, "[[lost/Page.md#Part]]", {})
    assert [(use.kind, use.key) for use in found] == [
        ("title", "lost/page.md#part"),
        ("title", "lost/page.md"),
        ("title", "lost/page"),
        ("slug", "lost/page"),
        ("title", "page"),
    ]
    assert len({use.group for use in found}) == 1
    assert {use.places for use in found} == {5}


def test_an_edge_says_which_words_made_it_and_how_they_are_written() -> None:
    (edge,) = edges("Before.\nThe  moon drives [[Tides#Neap|neap tides]], they say.\nAfter.")
    assert edge.metadata == {
        "rule": "text",
        "reference_type": "title",
        "context": "The moon drives [[Tides#Neap|neap tides]], they say.",
    }
    (edge,) = edges("![[Tides]]")
    assert edge.metadata["reference_type"] == "embed"


def test_the_words_are_bounded_and_of_several_mentions_the_first_counts() -> None:
    (edge,) = edges("word " * 100 + "[[Tides]]" + " word" * 100 + "\n[[Tides]]")
    assert "[[Tides]]" in edge.metadata["context"]
    assert edge.metadata["context"].startswith("word word")
    assert len(edge.metadata["context"]) <= MAX_CONTEXT


def test_metadata_keys_are_read_in_both_spellings() -> None:
    (use,) = RULES.uses(EntityRef("task", "A"), None, "", {"dependsOn": ["B"]})
    assert (use.key, use.rule, use.form, use.context) == ("task:B", "metadata:depends_on", "metadata", "dependsOn: B")
