"""Word tokens: the tokens of a text, put together from the tokens of its words, because texts repeat their words."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = NDArray[np.uint16]
"""Token ids, shape (n,). wordllama has 32,000 tokens."""

_SPACE = "\u2581"
"""What the tokenizer makes of a space, and puts before a text."""

_WORDS_AT_ONCE = 100
"""Words that the tokenizer gets as one text: a word by itself takes three times as long, and more words take longer,
because the tokenizer orders all merges of a text."""

_BYTES_KEPT = 16_000_000
"""Memory of the words that are remembered, about; some 70,000 words. When it is used up, all words are forgotten, and
the frequent ones are soon back."""

_BYTES_A_WORD = 200
"""Memory of a remembered word without its characters: its text, its tokens and its place in the dictionary."""

_BYTES_A_CHARACTER = 4
"""Memory of a character of a remembered word and of its tokens, about."""

_Known = dict[str, bytes]
"""Words with their tokens, 16 bits each."""


class WordTokens:
    """The tokens of texts, as wordllama's tokenizer gives them. Thread-safe.

    The tokenizer merges neighbours over the whole text, which takes most of the time of an embedding. None of its
    tokens has a space behind another character, so that no merge crosses the beginning of a word: the tokens of a text
    are those of its words, one after the other.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        """`tokenizer` is wordllama's, without padding."""
        self._tokenizer = tokenizer
        self._special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._begins_word = np.zeros(tokenizer.get_vocab_size(), dtype=np.bool_)
        self._begins_word[[number for token, number in tokenizer.get_vocab().items() if token.startswith(_SPACE)]] = (
            True
        )
        self._lock = Lock()
        self._known: _Known = {}
        self._bytes_kept = 0

    def of(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text. No text is empty."""
        known = self._remembered()
        words_of = [text.split(" ") for text in texts]
        whole = [
            place
            for place, (words, text) in enumerate(zip(words_of, texts, strict=True))
            if self._is_more_than(words, text)
        ]
        for place in whole:
            words_of[place] = []
        self._learn(known, list(set[str]().union(*words_of).difference(known)))
        tokens = [b"".join(map(known.__getitem__, words)) for words in words_of]
        for place, encoded in zip(whole, self._encoded([texts[place] for place in whole]), strict=True):
            tokens[place] = encoded.tobytes()
        return [np.frombuffer(one, dtype=np.uint16) for one in tokens]

    def _is_more_than(self, words: Sequence[str], text: str) -> bool:
        """Whether the tokens of `text` are not those of `words`, which spaces separate in it.

        Several spaces in a row are one token, and the tokenizer cuts a text at its special tokens first.
        """
        return "" in words or _SPACE in text or any(special in text for special in self._special)

    def _remembered(self) -> _Known:
        with self._lock:
            if self._bytes_kept > _BYTES_KEPT:
                # Another dictionary, because other threads may still read this one.
                self._known = {}
                self._bytes_kept = 0
            return self._known

    def _learn(self, known: _Known, words: Sequence[str]) -> None:
        """Add `words` to `known`."""
        parts = [words[start : start + _WORDS_AT_ONCE] for start in range(0, len(words), _WORDS_AT_ONCE)]
        for part, encoded in zip(parts, self._encoded([" ".join(part) for part in parts]), strict=True):
            tokens = encoded.tobytes()
            starts = np.flatnonzero(self._begins_word[np.frombuffer(encoded, dtype=np.uint16)]) * encoded.itemsize
            borders = pairwise([*starts.tolist(), len(tokens)])
            known.update((word, tokens[start:end]) for word, (start, end) in zip(part, borders, strict=True))
        with self._lock:
            self._bytes_kept += _BYTES_A_WORD * len(words) + _BYTES_A_CHARACTER * sum(map(len, words))

    def _encoded(self, texts: Sequence[str]) -> Iterator["array[int]"]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return (array("H", encoding.ids) for encoding in encodings)
