"""Entities and strategies that the tests of the graph rules share."""

from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.registry import SOURCE_PRESETS
from mcp_assets.graph.references import ReferenceRules

A, B, C = EntityRef("task", "A"), EntityRef("task", "B"), EntityRef("task", "C")

RULES = ReferenceRules.of(SOURCE_PRESETS["mcp"])

ANY_TEXT = st.text(st.characters(), max_size=12)
"""Any characters at all: NUL and lone surrogates too."""

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**4000, -(10**600), 1e300]) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=10,
)
