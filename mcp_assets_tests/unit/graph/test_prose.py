"""What of a Markdown text is no text: front matter, code, comments; and that finding it is linear in the text."""

import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.graph.prose import MAX_PARSED, hidden


def prose(text: str) -> str:
    """`text` with a dot in place of each character that is hidden."""
    for start, end in hidden(text):
        text = text[:start] + "".join(c if c == "\n" else "." for c in text[start:end]) + text[end:]
    return text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a `b` c", "a ... c"),
        ("a ``b ` c`` d", "a ......... d"),
        ("a `b", "a `b"),
        (r"a \`b` c", r"a \`b` c"),
        ("a `b\nc` d", "a ..\n.. d"),
        ("a `b\n\nc` d", "a `b\n\nc` d"),
        ("```toml\n[[x]]\n```\n[[y]]", ".......\n.....\n...\n[[y]]"),
        ("~~~\n[[x]]\n~~~\n[[y]]", "...\n.....\n...\n[[y]]"),
        ("```\n[[x]]", "...\n....."),
        ("> ```\n> [[x]]\n> ```\n[[y]]", ".....\n.......\n.....\n[[y]]"),
        ("- a\n\n  ```\n  [[x]]\n  ```\n- b", "- a\n\n.....\n.......\n.....\n- b"),
        ("a\n\n    [[x]]\n\nb", "a\n\n.........\n\nb"),
        ("a\n    [[x]]", "a\n    [[x]]"),
        ("- a\n\n    [[x]]", "- a\n\n    [[x]]"),
        ("a <!-- [[x]] --> b", "a .............. b"),
        ("<!-- [[x]]\n\n[[y]] --> [[z]]", "..........\n\n......... [[z]]"),
        ("<!-- [[x]]", ".........."),
        ("<div>\n[[x]]\n</div>", "<div>\n[[x]]\n</div>"),
        ("<pre>\n[[x]]\n</pre>\n\nb", ".....\n.....\n......\n\nb"),
        ("---\ntitle: a\nup: '[[x]]'\n---\n[[y]]", "...\n........\n...........\n...\n[[y]]"),
        ("+++\n[[users]]\n+++\n[[y]]", "...\n.........\n...\n[[y]]"),
        ("---\n\n[[x]]\n\n---\n", "---\n\n[[x]]\n\n---\n"),
        ("---\ntitle: a [[x]]", "---\ntitle: a [[x]]"),
        ("```\r\n[[x]]\r\n```\r\n[[y]]", "....\n......\n....\n[[y]]"),
        ("# `a` b\n\nc `d`\n===", "# ... b\n\nc ...\n==="),
        ("| `a` | [[b\\|c]] |", "| ... | [[b\\|c]] |"),
    ],
)
def test_code_comments_and_front_matter_are_hidden_and_all_else_is_prose(text: str, left: str) -> None:
    assert prose(text).replace("\r", "") == left


@given(
    st.lists(st.sampled_from(["`", "``", "a", " ", "\n", "    ", "<!--", "-->", "> ", "- ", "---\n", "\\", "\t", "<p"]))
)
def test_spans_are_in_order_and_within_the_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    ends = [0, *(position for span in hidden(text) for position in span)]
    assert ends == sorted(ends)
    assert ends[-1] <= len(text)


HOSTILE = [
    "`", "` ", "`a``b```c", "<!-- ", "<!-- -->", "<a `", "> ", ">`\n", "- `\n", "- ", "```\n", "~~~\n\n",
    "    a\n\n", "\\`", "a `\n", "# `\n", "1. a\n   `b`\n", "[[a]] `b` ", "<div>\n`\n\n",
]  # fmt: skip


def lines_run(text: str) -> int:
    """Lines of Python that run while `text` is read."""
    count = 0

    def traced(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return traced

    hidden("`a`")
    sys.settrace(traced)
    try:
        hidden(text)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("piece", HOSTILE)
def test_twice_the_text_takes_about_twice_the_work(piece: str) -> None:
    once, twice = (lines_run("`a` " + piece * (size // len(piece))) for size in (4_000, 8_000))
    assert twice < 2.3 * once + 1_000


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", ["`", "<!-- ", "`a``b```c", "<a "])
def test_the_longest_text_that_is_parsed_is_read(piece: str) -> None:
    hidden("`a` " + piece * ((MAX_PARSED - 4) // len(piece)))


def test_a_longer_text_is_all_prose() -> None:
    assert hidden("`a`" + " " * MAX_PARSED) == []
