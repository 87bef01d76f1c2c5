"""Model profiles: dimension, limits, prefixes and similarity threshold of each embedding model.

A similarity threshold belongs to a model: ada-002 and e5 give unrelated texts a cosine of 0.7 to 0.8, others of
about 0. The thresholds here are starting points; a setting overrides them.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

Distance = Literal["Cosine", "Dot", "Euclid"]


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """The properties of an embedding model.

    `name` is sent to the server as it is. `dimension`: length of a vector. `similarity_threshold`: cosine, 0..1, at
    and above which two entities count as similar. Limits are in tokens of the model and in inputs a request.
    `dimension_requested`: the server is asked for `dimension`, because the model has more of its own.
    `text_prefix` and `query_prefix` stand before what is embedded, for models that were trained so.
    """

    name: str
    dimension: int
    distance: Distance
    similarity_threshold: float
    max_input_tokens: int
    max_inputs_per_request: int
    max_tokens_per_request: int
    dimension_requested: bool = False
    text_prefix: str = ""
    query_prefix: str = ""
    usd_per_million_tokens: float | None = None
    """The provider's list price when this was written; None: not known. EMBEDDING_PRICE overrides it."""

    @property
    def key(self) -> str:
        """Name and dimension: vectors, costs, rates and outages of one key belong together."""
        return f"{self.name}/{self.dimension}"

    @property
    def slug(self) -> str:
        """The name in the characters a collection name may hold: [a-z0-9_-]."""
        return re.sub(r"[^a-z0-9_]+", "-", self.name.lower()).strip("-")


def _openai(name: str, dimension: int, threshold: float, usd_per_million_tokens: float) -> ModelProfile:
    return ModelProfile(
        name, dimension, "Cosine", threshold, 8191, 2048, 300_000, usd_per_million_tokens=usd_per_million_tokens
    )


def _open(
    name: str, dimension: int, threshold: float, max_input_tokens: int, text_prefix: str = "", query_prefix: str = ""
) -> ModelProfile:
    """A model that sites serve themselves; 32 inputs a request is the default limit of text-embeddings-inference."""
    return ModelProfile(
        name,
        dimension,
        "Cosine",
        threshold,
        max_input_tokens,
        max_inputs_per_request=32,
        max_tokens_per_request=300_000,
        text_prefix=text_prefix,
        query_prefix=query_prefix,
    )


WORDLLAMA = ModelProfile("wordllama", 256, "Cosine", 0.45, 1_000_000, 4096, 1_000_000_000, usd_per_million_tokens=0.0)
"""It pools token vectors, and so has no limit of its own. It runs in this process, not behind HTTP."""

# The prefixes of texts and of queries with which a family of models was trained.
_E5 = ("passage: ", "query: ")
_NOMIC = ("search_document: ", "search_query: ")
_BGE_EN = ("", "Represent this sentence for searching relevant passages: ")

_KNOWN = {
    profile.name: profile
    for profile in (
        WORDLLAMA,
        _openai("text-embedding-ada-002", 1536, 0.7, 0.10),
        _openai("text-embedding-3-small", 1536, 0.5, 0.02),
        _openai("text-embedding-3-large", 3072, 0.5, 0.13),
        _open("all-minilm-l6-v2", 384, 0.45, 256),
        _open("all-minilm", 384, 0.45, 256),  # as Ollama names it
        _open("all-mpnet-base-v2", 768, 0.45, 384),
        _open("bge-small-en-v1.5", 384, 0.7, 512, *_BGE_EN),
        _open("bge-base-en-v1.5", 768, 0.7, 512, *_BGE_EN),
        _open("bge-large-en-v1.5", 1024, 0.7, 512, *_BGE_EN),
        _open("bge-m3", 1024, 0.6, 8192),
        _open("e5-small-v2", 384, 0.85, 512, *_E5),
        _open("e5-base-v2", 768, 0.85, 512, *_E5),
        _open("e5-large-v2", 1024, 0.85, 512, *_E5),
        _open("multilingual-e5-small", 384, 0.87, 512, *_E5),
        _open("multilingual-e5-base", 768, 0.85, 512, *_E5),
        _open("multilingual-e5-large", 1024, 0.85, 512, *_E5),
        _open("nomic-embed-text", 768, 0.65, 8192, *_NOMIC),
        _open("nomic-embed-text-v1.5", 768, 0.65, 8192, *_NOMIC),
        _open("mxbai-embed-large", 1024, 0.65, 512, *_BGE_EN),
        _open("mxbai-embed-large-v1", 1024, 0.65, 512, *_BGE_EN),
    )
}

_SHORTENABLE = {"text-embedding-3-small", "text-embedding-3-large"}
"""The models whose server takes the parameter `dimensions` and shortens its vectors to it."""

_LOCAL_THRESHOLDS = {128: 0.47, 64: 0.55}
"""Dimensions to which the local model can be cut, with the thresholds at which as many pairs of entities count as
similar as at 256 dimensions and 0.45: 4.8 % of all pairs of a workspace of 8,821 entities."""


def model_key(name: str) -> str:
    """The name by which a model is known here: lower case, without vendor and tag."""
    return name.lower().rpartition("/")[2].partition(":")[0]


def profile_for(model: str, *, dimension: int | None = None, similarity_threshold: float | None = None) -> ModelProfile:
    """The profile of `model`, known by its name without vendor ("BAAI/") and tag (":latest").

    `dimension` is needed for a model that is not known. It may shorten a model of the text-embedding-3 family, and the
    local one to 128 or 64.
    `similarity_threshold` (cosine, 0..1) overrides the profile's own. Raises ValueError naming the setting at fault.
    """
    key = model_key(model)
    profile = _KNOWN.get(key)
    if dimension is not None and dimension < 1:
        raise ValueError(f"EMBEDDING_DIMENSION={dimension}: a vector has at least one dimension")
    if profile is None:
        if dimension is None:
            raise ValueError(
                f"the embedding model {model!r} is not known here: set EMBEDDING_DIMENSION to the length of its vectors"
            )
        profile = _open(key, dimension, 0.7, 8192)
    elif dimension is not None and dimension != profile.dimension:
        profile = _shortened(profile, dimension, model)
    if similarity_threshold is not None:
        if not 0 <= similarity_threshold <= 1:
            raise ValueError(f"the similarity threshold is a cosine from 0 to 1, not {similarity_threshold}")
        profile = replace(profile, similarity_threshold=similarity_threshold)
    profile = replace(profile, name=model)
    if not profile.slug:
        raise ValueError(f"the model name {model!r} has no letter or digit to name a collection by")
    return profile


def _shortened(profile: ModelProfile, dimension: int, model: str) -> ModelProfile:
    if profile.name == WORDLLAMA.name and dimension in _LOCAL_THRESHOLDS:
        return replace(profile, dimension=dimension, similarity_threshold=_LOCAL_THRESHOLDS[dimension])
    if profile.name in _SHORTENABLE and dimension < profile.dimension:
        return replace(profile, dimension=dimension, dimension_requested=True)
    choices = [profile.dimension, *(_LOCAL_THRESHOLDS if profile.name == WORDLLAMA.name else ())]
    raise ValueError(
        f"EMBEDDING_DIMENSION={dimension}, but the vectors of {model} have {' or '.join(map(str, choices))} "
        "dimensions: unset EMBEDDING_DIMENSION or choose another model"
    )
