"""Link rules: a fingerprint of the rules and settings that edges depend on."""

import hashlib
import json

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform

RULES_VERSION = 3
"""A part of the fingerprint: raise it when a rule makes other edges of the same entities, so that all are re-linked."""


def rules_fingerprint(platform: Platform, profile: ModelProfile) -> str:
    """A hash of all that edges depend on beside ledger, vectors and tag weights; the column `linked.linked_by`.

    `profile`: that of the model that serves.
    """
    parts = [
        RULES_VERSION,
        profile.name,
        profile.similarity_threshold,
        platform.settings.topical_threshold,
        *(platform.settings.duplicate_similarity, platform.settings.duplicate_shared_words),
        sorted(platform.settings.link_forms.items()),
        sorted(platform.reference_rules.type_names.items()),
    ]
    if platform.reference_rules.key_columns:
        # Only then, so that the entities of other sites are not linked again because of this rule.
        parts.append(sorted(platform.reference_rules.key_columns.items()))
    return hashlib.md5(json.dumps(parts).encode(), usedforsecurity=False).hexdigest()
