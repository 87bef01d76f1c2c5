"""Mentions in texts: references, and the phrases before them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.graph.mentions import Mentions
from mcp_assets.graph.references import PHRASES
from mcp_assets.graph.url_references import LinkForm, LinkForms
from mcp_assets_tests.unit.graph.samples import RULES

MENTIONS = Mentions(
    RULES.type_names, LinkForms([LinkForm.of("https://wiki.example.com/pages/{slug}", "page")]), PHRASES
)


def keys(text: str) -> list[str]:
    return [mention.key.key for mention in MENTIONS.find(text)]


def phrases(text: str) -> dict[str, str | None]:
    return {mention.key.key: mention.phrase for mention in MENTIONS.find(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task:CHK-1", ["task:CHK-1"]),
        ("(see page:a_b), memory:7.", ["page:a_b", "memory:7"]),
        ("task:A,task:B;task:C", ["task:A", "task:B", "task:C"]),
        ("Task:A and PAGE:B", ["task:A", "page:B"]),
        ("card:7, wiki_page:x, node:n", ["task:7", "page:x", "memory:n"]),
        ("page:3f18c14e-4cc6-576c-9b4e-39806c562cfd's", ["page:3f18c14e-4cc6-576c-9b4e-39806c562cfd"]),
        ("task:x.y", ["task:x"]),
        ("task:page:x", ["task:page"]),
        ("task:é task:-a task: a task::a task:", []),
        ("subtask:A mytask:A my_task:A sub-task:A étask:A", []),
        ("ticket:A https://x:80 12:30", []),
        ("task:" + "x" * 512, ["task:" + "x" * 512]),
        ("task:" + "x" * 513, []),
        ("[[How the  Ledger\nworks]]", ["how the ledger works"]),
        ("[[The Ledger|our book]]", ["the ledger"]),
        ("[[task:A]] [[page:B|the plan]]", ["task:A", "page:B"]),
        ("[[task: a plan]]", ["task: a plan"]),
        ("[[Notes on task:A]]", ["notes on task:a", "task:A"]),
        ("[[]] [[ ]] [[|x]] [[a] [b]] [[open", []),
        ("[[[deep]]]", ["deep"]),
        ("https://wiki.example.com/pages/a/b and page:c", ["a/b", "page:c"]),
    ],
)
def test_what_is_a_reference_in_text(text: str, expected: list[str]) -> None:
    assert keys(text) == expected


@pytest.mark.parametrize("phrase", PHRASES)
def test_each_phrase_directly_before_a_reference_is_found(phrase: str) -> None:
    for text in (f"{phrase} task:A", f"It is {phrase.upper()}: [[task:A]].", f"{phrase.replace(' ', '  ')}\ntask:A"):
        assert phrases(text) == {"task:A": phrase}


@pytest.mark.parametrize(
    "text",
    [
        "depends on `task:A`",
        "**Depends on:** task:A",
        "_depends on_ **task:A**",
        "depends on (task:A)",
        'depends on "task:A"',
        "depends on [the first](task:A)",
        "Depends on:\n- task:A",
        "Done. Depends on\ntask:A.",
    ],
)
def test_marks_may_stand_between_phrase_and_reference(text: str) -> None:
    assert phrases(text) == {"task:A": "depends on"}


def test_a_phrase_may_stand_before_a_title_and_before_a_link() -> None:
    assert phrases("part of [[The Ledger]]") == {"the ledger": "part of"}
    assert phrases("follows [it](https://wiki.example.com/pages/it)") == {"it": "follows"}


@pytest.mark.parametrize(
    "text",
    [
        "depends on the outcome of task:A",
        "depends on. task:A",
        "thereafter task:A",
        "look-after task:A",
        "depends task:A",
        "depends on" + " " * 200 + "task:A",
        "task:A depends on",
    ],
)
def test_a_phrase_elsewhere_says_nothing_of_the_reference(text: str) -> None:
    assert phrases(text) == {"task:A": None}


@pytest.mark.parametrize(
    "text",
    [
        "depends on task:A, task:B and task:C",
        "depends on task:A, task:B, and task:C",
        "depends on task:A and task:B or task:C",
        "depends on task:A (done), task:B (in review) and task:C",
        "depends on task:A; task:B & task:C",
        "depends on `task:A`, **task:B** and [[task:C]]",
        "Depends on:\n- task:A\n- task:B\n\n* task:C",
        "Depends on:\n- [ task:A\n",
    ],
)
def test_a_phrase_holds_for_the_whole_list(text: str) -> None:
    found = phrases(text)
    assert found.keys() >= {"task:A"}
    if "task:B" in text:
        assert found == dict.fromkeys(("task:A", "task:B", "task:C"), "depends on")


@pytest.mark.parametrize(
    "text",
    [
        "depends on task:A. task:B",
        "depends on task:A task:B",
        "depends on task:A, unlike task:B",
        "part of task:A\ntask:B",
    ],
)
def test_what_is_no_list_ends_the_phrase(text: str) -> None:
    assert phrases(text)["task:A"] is not None
    assert phrases(text)["task:B"] is None


def test_letters_that_only_count_as_equal_without_case_are_no_error() -> None:
    assert phrases("dependſ on task:A") == {"task:A": "depends on"}


def test_without_phrases_no_mention_has_one() -> None:
    mentions = Mentions(RULES.type_names, LinkForms([]), [])
    assert [mention.phrase for mention in mentions.find("after task:A, (task:B)")] == [None, None]


def test_each_phrase_begins_from_the_start() -> None:
    text = "Part of task:A, depends on task:B and blocked by task:C"
    assert phrases(text) == {"task:A": "part of", "task:B": "depends on", "task:C": "blocked by"}


def test_a_link_form_that_looks_like_a_reference_by_id_is_found_beside_it() -> None:
    mentions = Mentions(RULES.type_names, LinkForms([LinkForm.of("page:{id}", "page")]), PHRASES)
    assert [mention.key.key for mention in mentions.find("page:x")] == ["page:x", "page:x"]


def test_references_inside_an_address_or_a_title_have_no_phrase() -> None:
    assert phrases("after https://wiki.example.com/pages/page:x") == {"page:x": None}
    assert phrases("after [[Notes on task:A]]") == {"notes on task:a": "after", "task:A": None}
    assert phrases("after [[Notes on task:A]], task:B")["task:B"] == "after"


PIECES = st.sampled_from(
    [
        *PHRASES,
        "task:A",
        "page:",
        ":",
        "[[",
        "]]",
        "|",
        ", ",
        " and ",
        "(",
        ")",
        "\n- ",
        " ",
        "https://wiki.example.com/pages/",
    ]
)


@given(st.lists(PIECES | st.text(st.characters(), max_size=5), max_size=30).map("".join))
def test_no_text_makes_it_raise_and_mentions_are_in_order_and_in_the_text(text: str) -> None:
    found = list(MENTIONS.find(text))
    assert [mention.start for mention in found] == sorted(mention.start for mention in found)
    for mention in found:
        assert 0 <= mention.start < mention.end <= len(text)
        assert 0 < len(mention.key.key) <= 512 + len("memory:")


ID_TEXT = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(st.lists(ID_TEXT, max_size=10), st.sampled_from([" ", ", ", ". ", "\n", ") (", "; "]))
def test_every_id_of_the_allowed_form_is_found_whatever_punctuation_parts_them(ids: list[str], between: str) -> None:
    named = [f"task:{entity_id}" for entity_id in ids]
    assert keys(between.join(named)) == named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See issue:ABC/12, and page:a/b.", ["issue:ABC/12", "page:a"]),
        ("issue:ABC/12/3 issue:a~1b/-7", ["issue:ABC/12", "issue:a~1b/-7"]),
        # Neither is the id of a key of two columns.
        ("issue:ABC issue:ABC/ issue:ABC/1~2", []),
        ("[[issue:ABC/12]] [[issue:ABC]]", ["issue:ABC/12", "issue:abc"]),
        ("issue:" + "x" * 300 + "/" + "y" * 300, []),
    ],
)
def test_an_entity_whose_key_has_several_columns_is_mentioned_by_its_whole_id(text: str, expected: list[str]) -> None:
    mentions = Mentions({"issue": "issue", "page": "page"}, LinkForms([]), PHRASES, {"issue": 2})
    assert [mention.key.key for mention in mentions.find(text)] == expected
