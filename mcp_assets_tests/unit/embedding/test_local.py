"""The local provider: wordllama without network, the same vector for the same text in whatever company."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_assets.embedding.local import LocalEmbedder, load_model
from mcp_assets.embedding.profiles import profile_for
from mcp_assets.embedding.protocol import Embedder, TextRefused, Vector
from mcp_assets.embedding.vectors import unit

TEXTS = [
    "Fix the login timeout in the auth service",
    "Users are logged out of the authentication service by a timeout",
    "Buy drinks and food for the summer party",
    "日本語のページ",
    "🙂",
    "x",
    "word " * 1200,
]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


def vectors_of(embedder: Embedder, inputs: list[str]) -> list[Vector]:
    outcomes = embedder.embed(inputs).outcomes
    assert [outcome.refusal for outcome in outcomes] == [None] * len(inputs)
    return [outcome.vector for outcome in outcomes if outcome.vector is not None]


def by_the_library(inputs: list[str]) -> NDArray[np.float32]:
    from wordllama.inference import WordLlamaInference  # type: ignore[import-untyped]

    model = load_model()
    library = WordLlamaInference(model.token_vectors, type(model.tokenizer).from_str(model.tokenizer.to_str()))
    vectors: NDArray[np.float32] = library.embed(inputs)
    return vectors


def test_vectors_are_those_of_the_library_bit_by_bit() -> None:
    assert np.array_equal(np.stack(vectors_of(LocalEmbedder(), TEXTS)), by_the_library(TEXTS))


@pytest.mark.parametrize("dimension", [128, 64])
def test_a_cut_vector_is_the_beginning_of_the_whole_one(dimension: int) -> None:
    cut = vectors_of(LocalEmbedder(profile_for("wordllama", dimension=dimension)), TEXTS)
    whole = vectors_of(LocalEmbedder(), TEXTS)
    assert [len(vector) for vector in cut] == [dimension] * len(TEXTS)
    assert np.allclose(np.stack(cut), np.stack(whole)[:, :dimension], rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(texts, min_size=1, max_size=8), st.data())
def test_a_text_has_the_same_vector_in_any_batch(batch: list[str], data: st.DataObject) -> None:
    embedder = LocalEmbedder()
    alone = [vectors_of(embedder, [text])[0].tobytes() for text in batch]
    order = data.draw(st.permutations(range(len(batch))))
    together = vectors_of(embedder, [*TEXTS, *(batch[position] for position in order)])[len(TEXTS) :]
    assert [vector.tobytes() for vector in together] == [alone[position] for position in order]


def test_threads_get_the_same_vectors_as_one_thread() -> None:
    embedder = LocalEmbedder()
    batches = [[f"{text} {number}" for text in TEXTS] for number in range(12)]
    expected = [np.stack(vectors_of(embedder, batch)) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: np.stack(vectors_of(embedder, batch)), batches))
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_related_texts_are_nearer_than_unrelated_ones_and_the_threshold_lies_between() -> None:
    embedder = LocalEmbedder()
    login, timeout, party = unit(np.stack(vectors_of(embedder, TEXTS[:3])))
    assert login @ timeout > embedder.profile.similarity_threshold > login @ party


def test_a_text_longer_than_one_sum_of_token_vectors_is_embedded_whole() -> None:
    long = " ".join(f"word {number}" for number in range(6000))
    np.testing.assert_allclose(vectors_of(LocalEmbedder(), [long])[0], by_the_library([long])[0], atol=1e-4)


def test_blank_and_broken_texts_are_refused_and_their_neighbours_embedded() -> None:
    outcomes = LocalEmbedder().embed(["", "fine", " \n\t", "a\ud800", "fine"]).outcomes
    assert [outcome.refusal and outcome.refusal.error_kind for outcome in outcomes] == [
        "empty_text",
        None,
        "empty_text",
        "invalid_text",
        None,
    ]
    assert [outcome.vector is None for outcome in outcomes] == [True, False, True, True, False]


def test_no_texts_give_no_outcomes() -> None:
    result = LocalEmbedder().embed([])
    assert (result.outcomes, result.tokens) == ([], None)


def test_a_query_has_the_vector_of_its_text_and_a_blank_one_is_refused() -> None:
    embedder: Embedder = LocalEmbedder()
    assert np.array_equal(embedder.embed_query("a task"), vectors_of(embedder, ["a task"])[0])
    with pytest.raises(TextRefused, match="empty"):
        embedder.embed_query(" ")


def test_the_profile_of_another_model_is_refused_with_the_setting_to_change() -> None:
    with pytest.raises(ValueError, match=r"the model wordllama, not bge-m3: unset EMBEDDING_MODEL"):
        LocalEmbedder(profile_for("bge-m3"))


def test_loading_writes_nothing_and_leaves_logging_as_it_was() -> None:
    code = (
        "import logging; from mcp_assets.embedding.local import LocalEmbedder; import sys; "
        "assert 'wordllama' not in sys.modules; LocalEmbedder().embed(['x']); "
        "assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert logging.getLogger("wordllama.inference").getEffectiveLevel() >= logging.WARNING
