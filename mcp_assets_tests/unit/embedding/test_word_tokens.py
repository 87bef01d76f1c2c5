"""Tokens that are put together from words: they are those that the tokenizer gives to the whole text."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_assets.embedding import word_tokens
from mcp_assets.embedding.local import load_model
from mcp_assets.embedding.word_tokens import WordTokens
from mcp_assets.entities.text import collapse

TOKENIZER = load_model().tokenizer

pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(["a", "the", "getUserName", "https://example.org/a?b=c", "日本語", "é", "e\u0301", "🙂", "0x0A"]),
    st.sampled_from([" ", "  ", "\u2581", "\u2581\u2581", "<s>", "</s>", "<unk>", "<0x0A>", "\n", "\t", "\u00a0"]),
)
texts = st.lists(pieces, min_size=1, max_size=30).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda between: between.join(parts))
)


def by_the_tokenizer(inputs: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in TOKENIZER.encode_batch_fast(inputs, add_special_tokens=False)]


def by_words(words: WordTokens, inputs: list[str]) -> list[list[int]]:
    return [tokens.tolist() for tokens in words.of(inputs)]


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
@example(["a  b", " a", "a ", "a\u2581b", "a <s> b", "a<s>b", "<s>", " ", "\u2581", "x"])
@example(["a line\nanother line\r\n", "tab\tbed", "one\u00a0word", "a \u00a0 b"])
def test_the_tokens_of_any_text_are_those_of_the_tokenizer(inputs: list[str]) -> None:
    assert by_words(WordTokens(TOKENIZER), inputs) == by_the_tokenizer(inputs)


def test_no_token_has_a_space_behind_another_character() -> None:
    """The reason why words are independent of one another."""
    assert not [token for token in TOKENIZER.get_vocab() if re.search("[^\u2581]\u2581", token)]


def test_every_token_id_fits_into_16_bits() -> None:
    assert TOKENIZER.get_vocab_size() <= 1 << 16


def test_the_tokens_of_the_sample_workspace_are_those_of_the_tokenizer() -> None:
    sample = resources.files("mcp_assets.sample").joinpath("workspace.jsonl").read_text().splitlines()
    inputs = [content for line in sample if (content := collapse(json.loads(line)["content"]))]
    words = WordTokens(TOKENIZER)

    assert by_words(words, inputs) == by_the_tokenizer(inputs)
    assert by_words(words, inputs[::-1]) == by_the_tokenizer(inputs[::-1]), "all words are known now"


def test_words_are_forgotten_when_their_memory_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tokens, "_BYTES_KEPT", 10_000)
    words = WordTokens(TOKENIZER)
    sizes = []
    for start in range(0, 2_000, 20):
        inputs = [f"the word {number} and a neighbour" for number in range(start, start + 20)]
        assert by_words(words, inputs) == by_the_tokenizer(inputs)
        sizes.append(len(words._known))
    assert max(sizes) < 100


def test_threads_that_learn_and_forget_words_get_the_right_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_tokens, "_BYTES_KEPT", 10_000)
    words = WordTokens(TOKENIZER)
    batches = [[f"text {number} of batch {batch}" for number in range(30)] for batch in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: by_words(words, batch), batches))
    assert found == [by_the_tokenizer(batch) for batch in batches]
