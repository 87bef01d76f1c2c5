"""Prose: which parts of a Markdown text are not prose: front matter, code blocks, inline code, HTML comments.

References in these parts do not count. markdown-it-py decides what a block is, by CommonMark; within a paragraph, one
pass finds runs of backticks and comments. The time is linear in the text.
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

MAX_PARSED = 1_000_000
"""Characters; a longer text counts as prose throughout, because parsing it would hold up the linker."""

_MAY_HIDE = re.compile(r"[`\t]|~~~|<[!a-z]| {4}|\A\s*(?:---|\+\+\+)", re.IGNORECASE)

# An opening line before a blank line is a horizontal rule; front matter begins with a key or a comment.
_FRONT_MATTER = re.compile(r"\s*(---|\+\+\+)[ \t]*\n(?=#|\1|[\w\"'-][^\n]*[:=]|\[)")
_FRONT_MATTER_END = {
    "---": re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE),
    "+++": re.compile(r"^\+\+\+[ \t]*$", re.MULTILINE),
}
_RAW_HTML = re.compile(r"\s*<(?:script|pre|style|textarea)\b", re.IGNORECASE)
_INLINE = re.compile(r"\\[^\n]|`+|<!--")
_BACKTICKS = re.compile("`+")


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


def hidden(text: str) -> list[Span]:
    """The parts of `text` that are not prose, in order, none inside another."""
    if len(text) > MAX_PARSED or not _MAY_HIDE.search(text):
        return []
    # Positions stay the same: each replacement has the length of the original.
    text = text.replace("\r\n", " \n").replace("\r", "\n")
    begin = _front_matter_end(text)
    found = [Span(0, begin)] if begin else []
    lines = [begin, *accumulate((len(line) + 1 for line in text[begin:].split("\n")), initial=begin)][1:]
    for token in _blocks(text[begin:]):
        if token.map is None:
            continue
        start, end = lines[token.map[0]], min(lines[token.map[1]], len(text))
        is_html = token.type == "html_block"
        if token.type in ("fence", "code_block") or (is_html and _RAW_HTML.match(text, start, end)):
            found.append(Span(start, end))
        elif is_html or token.type == "inline":
            found += _in_block(text, start, end, is_html=is_html)
    return found


def _front_matter_end(text: str) -> int:
    opened = _FRONT_MATTER.match(text)
    if opened is None:
        return 0
    closed = _FRONT_MATTER_END[opened[1]].search(text, opened.end())
    return 0 if closed is None else closed.end()


def _parser() -> MarkdownIt:
    # Rules of inline elements (links, emphasis) are off: they are not needed, and some take quadratic time.
    parser = MarkdownIt("zero", {"html": True})
    return parser.enable(["fence", "code", "blockquote", "list", "html_block", "heading", "lheading", "hr"])


_PARSER = _parser()


def _blocks(text: str) -> list[Token]:
    tokens: list[Token] = []
    _PARSER.block.parse(text, _PARSER, {}, tokens)
    return tokens


def _in_block(text: str, start: int, end: int, *, is_html: bool) -> Iterator[Span]:
    """The code and comments in one paragraph, heading or block of HTML, which has the characters [start, end)."""
    runs: dict[int, list[int]] = {}
    if not is_html:
        for run in reversed(list(_BACKTICKS.finditer(text, start, end))):
            runs.setdefault(run.end() - run.start(), []).append(run.start())
    position, comments_end = start, True
    while (match := _INLINE.search(text, position, end)) is not None:
        position = match.end()
        if match[0] == "<!--":
            closed = text.find("-->", match.start() + 2, end) if comments_end else -1
            comments_end = closed >= 0
            if closed >= 0 or is_html:
                position = closed + 3 if closed >= 0 else end
                yield Span(match.start(), position)
        elif match[0][0] == "`" and not is_html:
            length = len(match[0])
            later = runs.get(length, [])
            while later and later[-1] < position:
                later.pop()
            if later:
                position = later.pop() + length
                yield Span(match.start(), position)
