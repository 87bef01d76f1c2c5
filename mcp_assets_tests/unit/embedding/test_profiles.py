"""Model profiles: known models, overrides, and errors that name the setting at fault."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.embedding.profiles import profile_for


@pytest.mark.parametrize(
    ("model", "dimension", "threshold"),
    [
        ("text-embedding-ada-002", 1536, 0.7),
        ("text-embedding-3-small", 1536, 0.5),
        ("text-embedding-3-large", 3072, 0.5),
        ("wordllama", 256, 0.45),
        ("sentence-transformers/all-MiniLM-L6-v2", 384, 0.45),
        ("BAAI/bge-small-en-v1.5", 384, 0.7),
        ("intfloat/e5-base-v2", 768, 0.85),
        ("nomic-embed-text:latest", 768, 0.65),
    ],
)
def test_known_models_need_no_dimension(model: str, dimension: int, threshold: float) -> None:
    profile = profile_for(model)
    assert (profile.name, profile.dimension, profile.similarity_threshold) == (model, dimension, threshold)
    assert not profile.dimension_requested


def test_openai_models_carry_openai_limits() -> None:
    profile = profile_for("text-embedding-3-small")
    assert (profile.max_input_tokens, profile.max_inputs_per_request, profile.max_tokens_per_request) == (
        8191,
        2048,
        300_000,
    )


def test_e5_models_are_given_the_prefixes_they_were_trained_with() -> None:
    profile = profile_for("e5-small-v2")
    assert (profile.text_prefix, profile.query_prefix) == ("passage: ", "query: ")


def test_an_unknown_model_needs_a_dimension_and_the_error_names_the_setting() -> None:
    with pytest.raises(ValueError, match=r"'acme/embed-9' is not known here: set EMBEDDING_DIMENSION"):
        profile_for("acme/embed-9")
    assert profile_for("acme/embed-9", dimension=640).dimension == 640


def test_a_shortened_model_asks_the_server_for_its_dimension() -> None:
    profile = profile_for("text-embedding-3-large", dimension=1024)
    assert profile.dimension == 1024
    assert profile.dimension_requested
    assert not profile_for("text-embedding-3-large", dimension=3072).dimension_requested


@pytest.mark.parametrize(("dimension", "threshold"), [(256, 0.45), (128, 0.47), (64, 0.55)])
def test_the_local_model_can_be_cut_and_then_has_a_threshold_of_its_own(dimension: int, threshold: float) -> None:
    profile = profile_for("wordllama", dimension=dimension)
    assert (profile.dimension, profile.similarity_threshold) == (dimension, threshold)
    assert not profile.dimension_requested


def test_another_cut_of_the_local_model_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"EMBEDDING_DIMENSION=100, but .* wordllama have 256 or 128 or 64 dim"):
        profile_for("wordllama", dimension=100)


@pytest.mark.parametrize(
    ("model", "dimension"), [("text-embedding-ada-002", 512), ("text-embedding-3-small", 3072), ("bge-m3", 0)]
)
def test_a_dimension_that_the_model_does_not_have_is_refused(model: str, dimension: int) -> None:
    with pytest.raises(ValueError, match=f"EMBEDDING_DIMENSION={dimension}"):
        profile_for(model, dimension=dimension)


def test_a_threshold_overrides_the_profile_and_is_a_cosine() -> None:
    assert profile_for("wordllama", similarity_threshold=0.0).similarity_threshold == 0.0
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="cosine from 0 to 1"):
            profile_for("wordllama", similarity_threshold=threshold)


def test_slugs_are_readable() -> None:
    assert profile_for("text-embedding-ada-002").slug == "text-embedding-ada-002"
    assert profile_for("BAAI/bge-small-en-v1.5").slug == "baai-bge-small-en-v1-5"


@given(st.text(min_size=1))
def test_a_slug_is_safe_for_collection_names_or_the_model_is_refused(model: str) -> None:
    try:
        profile = profile_for(f"{model}?", dimension=8)
    except ValueError as error:
        assert "no letter or digit" in str(error)
    else:
        assert re.fullmatch(r"[a-z0-9_-]+", profile.slug)
