"""Words: the search words of an entity and of a question, cut by the same rules. Pure.

A run of letters, digits and connectors, such as `ERR_TLS_CERT` or `getUserName`, gives itself and its parts, so that it
is found as a whole and by a part. Text of scripts that are written without spaces gives pairs of neighbouring
characters. Case and width are folded; nothing is stemmed, because a stem belongs to one language.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

WORD_RULES_VERSION = "1"
"""To be raised with each change of the rules here: a full sync then makes all words again."""

_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3\u3099\u309a"
)
"""Accents and vowel signs that Python does not count as parts of a word, although they stand inside of words."""

_RUN = re.compile(rf"[\w{_MARKS}][\w{_MARKS}\-./:+#@]*")
"""A word, or several that connectors hold together."""

_NOT_FIRST = "-./:+#@"
"""Connectors that begin no word."""

_CONNECTORS = _NOT_FIRST + "_"

_RUNS_OF_ASCII = "".join(
    letter if letter.isalnum() or letter in _CONNECTORS else " " for letter in map(chr, range(128))
)
"""By code point: what does not belong to a run becomes a space."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""A part of a run of ASCII: `getHTTPServer2` has get, HTTP, Server, 2."""

_BORDER = re.compile(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[0-9][A-Za-z]|[A-Za-z][0-9]")
"""Where a part ends though no connector stands there."""

_AS_SPACES = str.maketrans(_CONNECTORS, " " * len(_CONNECTORS))

_SPACELESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts that are written without spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese. Korean has spaces, and its
particles are joined to the word before, so that pairs of characters find it, too."""

_WITHOUT_SPACES = re.compile(f"[{_SPACELESS}]+")

_PIECE = re.compile(rf"[{_SPACELESS}]+|[^{_SPACELESS}\-./:+#@_]+")
"""A piece of a run: of a script without spaces, or of another one and between connectors."""

_ASCII_WORD = re.compile(r"[a-z0-9]+")

_ANY_WORD = re.compile(rf"[{_SPACELESS}]+|(?:[^\W_{_SPACELESS}]|[{_MARKS}])+")
"""A run of a script without spaces, or a word of another script, which ends at each connector."""

LONGEST_WORD = 64
"""Characters. A longer run, such as a key or a data URL, is not searched as a whole; its parts are."""

LONGEST_NAME = 300
"""Characters of a title that are compared with a question as a whole."""

_MOST_BYTES = 900_000
"""Bytes of words of one entity: PostgreSQL stores 1,048,575 in a tsvector. Words behind them are not searched."""

_MOST_BYTES_A_CHARACTER = 4
"""Of UTF-8."""

_WORD_BYTES = 8
"""Bytes that PostgreSQL adds to a word, at most: its place and its weight."""

NAME_MARK = "="
"""Begins the search words that are an id or a title as a whole; no other word begins with it."""

SEVERAL, MANY, IN_NAME = "C", "B", "A"
"""Weights of PostgreSQL's text search: the word occurs two or three times in the text, more often, or in title or id. A
word that occurs once has no weight."""

_SEVERAL_FROM = 2
_MANY_FROM = 4


@dataclass(frozen=True, slots=True)
class Words:
    """The search words of an entity."""

    vector: str
    """As PostgreSQL reads a tsvector. Each word has one place, 1, whose weight says how often the word occurs."""
    length: int
    """How many words the title and the text have, repetitions included."""


@dataclass(frozen=True, slots=True)
class CutQuestion:
    """A question, cut by the rules by which texts are cut."""

    words: tuple[str, ...]
    """Each once, in the order of the question."""
    phrases: tuple[str, ...]
    """What stands in double quotes, folded: a text has to contain each of them."""
    phrase_words: tuple[str, ...]
    """Words that each text with the phrases holds."""
    name: str
    """The question as a whole, folded: it may be the id or title of an entity."""
    is_one_run: bool
    """The question is a single run, which may be the beginning of an id or of a word."""


def words_of(entity_id: str, title: str | None, content: str) -> Words:
    """The search words of an entity."""
    # Of ASCII, the same runs as by the expression, with connectors before them, in half the time.
    runs = Counter(content.translate(_RUNS_OF_ASCII).split() if content.isascii() else _RUN.findall(content))
    length = 0
    counts: dict[str, int] = {}
    for raw, count in runs.items():
        words = _quoted_words(raw)
        for word in words:
            counts[word] = counts.get(word, 0) + count
        if words or raw.lstrip(_NOT_FIRST):
            length += count
    in_name: dict[str, None] = {}
    for name in (entity_id, title or ""):
        for raw in _RUN.findall(name):
            length += 1
            in_name.update(dict.fromkeys(_quoted_words(raw)))
    names = dict.fromkeys(quoted(name_word(folded)) for folded in (fold(entity_id), fold(title or "")) if folded)
    return Words(_as_vector([*names, *in_name], counts), length)


def _as_vector(names: list[str], counts: dict[str, int]) -> str:
    written = [f"{word}:1{IN_NAME}" for word in dict.fromkeys(names)]
    for name in names:
        counts.pop(name, None)
    written += [f"{word}:1" if count < _SEVERAL_FROM else f"{word}:1{_weight(count)}" for word, count in counts.items()]
    vector = " ".join(written)
    if len(vector) * _MOST_BYTES_A_CHARACTER + len(written) * _WORD_BYTES <= _MOST_BYTES:
        return vector
    return " ".join(_within_limit(written))


def _weight(count: int) -> str:
    return MANY if count >= _MANY_FROM else SEVERAL


def _within_limit(written: list[str]) -> Iterator[str]:
    room = _MOST_BYTES
    for word in written:
        room -= len(word.encode()) + _WORD_BYTES
        if room < 0:
            return
        yield word


def question_of(text: str) -> CutQuestion:
    """Cut a question. A part in double quotes is a phrase, whose words are words of the question, too."""
    phrases = tuple(dict.fromkeys(fold(found) for found in re.findall(r'"([^"]+)"', text) if fold(found)))
    plain = text.replace('"', " ")
    runs = _RUN.findall(plain)
    words = dict.fromkeys(word for raw in runs for word in _words_of_run(raw))
    of_phrases = dict.fromkeys(
        # A text may hold the phrase inside of a longer run, which is another word as a whole.
        word
        for phrase in phrases
        for raw in _RUN.findall(phrase)
        for word in (_words_of_run(raw)[1:] or _words_of_run(raw))
    )
    return CutQuestion(
        words=tuple(words),
        phrases=phrases,
        phrase_words=tuple(of_phrases),
        name=fold(plain),
        is_one_run=len(runs) == 1,
    )


def word_sequence(text: str) -> list[str]:
    """The words of a text in their order, folded, each connector between two words; nothing is searched by these.

    A run of a script that is written without spaces gives its pairs of neighbouring characters.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    found: list[str] = []
    for piece in _ANY_WORD.findall(folded):
        if _WITHOUT_SPACES.match(piece):
            found += ["".join(pair) for pair in pairwise(piece)] or [piece]
        else:
            found.append(piece)
    return found


def fold(text: str) -> str:
    """A name or phrase as it is compared: one space between words, case and width folded, at most LONGEST_NAME long."""
    return fold_whole(text)[:LONGEST_NAME].strip()


def fold_whole(text: str) -> str:
    """As `fold`, at any length."""
    return unicodedata.normalize("NFKC", " ".join(text.split())).casefold()


def quoted(word: str) -> str:
    """A word as PostgreSQL's text search reads it."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def name_word(folded: str) -> str:
    """The search word that an id or title is as a whole."""
    return NAME_MARK + folded


# Texts repeat their words: the cache answers nine of ten calls, and takes some 20 MB when it is full.
@lru_cache(maxsize=60_000)
def _quoted_words(raw: str) -> tuple[str, ...]:
    # A run has neither quotes nor backslashes, so that nothing in it is to be escaped.
    return tuple([f"'{word}'" for word in _words_of_run(raw)])


def _words_of_run(raw: str) -> tuple[str, ...]:
    """The words of a run; the run as a whole stands first, unless it is too long."""
    raw = raw.lstrip(_NOT_FIRST)
    raw = raw.rstrip(_CONNECTORS) or raw
    if raw.isascii():
        folded = raw.lower()
        if not raw or (raw.isalpha() and (raw == folded or raw[1:] == folded[1:])):
            return (folded,) if 0 < len(raw) <= LONGEST_WORD else ()
        words = [folded, *folded.translate(_AS_SPACES).split()]
        if _BORDER.search(raw):
            words += [part.lower() for part in _PART.findall(raw)]
    else:
        folded = unicodedata.normalize("NFKC", raw).casefold()
        words = _pieces(folded)
        if not _WITHOUT_SPACES.fullmatch(folded):
            words.insert(0, folded)
    return tuple([word for word in dict.fromkeys(words) if len(word) <= LONGEST_WORD])


def _pieces(folded: str) -> list[str]:
    """The parts of a run that is not ASCII; of scripts without spaces, pairs of characters."""
    parts = []
    for piece in _PIECE.findall(folded):
        if _WITHOUT_SPACES.match(piece):
            parts += ["".join(pair) for pair in pairwise(piece)] or [piece]
        else:
            parts.append(piece)
    return parts
