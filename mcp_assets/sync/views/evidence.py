"""Evidence: why an edge exists, read from its metadata for a person."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from mcp_assets.graph import KEPT

_MAX_WORDS = 500
"""Characters of the evidence of an edge: our rules keep at most 200, other programs may write more."""


class Evidence(NamedTuple):
    """Why an edge exists: the rule that made it, and the words, tags or model of the rule; either may be empty."""

    rule: str
    words: str


def evidence_of(metadata: Mapping[str, Any], weights: Mapping[str, float] = {}) -> Evidence:
    """The evidence in an edge's metadata; of an edge that another program wrote, all of its metadata.

    `weights`: of tags that are shared, to be named behind them.
    """
    rule, context, shared, model = (metadata.get(key) for key in ("rule", "context", "shared", "model"))
    if isinstance(context, str) and context:
        words = context
    elif isinstance(shared, list):
        words = ", ".join(f"{tag} ({weights[tag]:.2f})" if tag in weights else str(tag) for tag in map(str, shared))
    elif isinstance(words_shared := metadata.get("shared_words"), float | int):
        words = f"{words_shared:.0%} of the words in their order, cosine {metadata.get('similarity_score')}"
    elif isinstance(model, str):
        words = f"model {model}"
    elif metadata and not isinstance(rule, str):
        words = json.dumps(metadata, ensure_ascii=False)
    else:
        words = ""
    made_by = rule if isinstance(rule, str) else ""
    return Evidence(f"{made_by}, kept by a verdict" if KEPT in metadata else made_by, words[:_MAX_WORDS])
