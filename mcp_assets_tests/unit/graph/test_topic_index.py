"""TopicIndex: for many at once, what the rule says for each."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.ranking import ranked
from mcp_assets.graph.topical import TagWeight, TopicIndex, topical_neighbourhood, weight_of

TAGS = st.frozensets(st.sampled_from("abcdefgh"), max_size=5)
HELD = st.dictionaries(st.builds(EntityRef, st.sampled_from(["task", "page"]), st.sampled_from("0123456789")), TAGS)
WEIGHTS = st.dictionaries(
    st.sampled_from("abcdef"), st.builds(weight_of, st.integers(1, 300), st.just(200)) | st.just(TagWeight(0.25, False))
)


@given(HELD, WEIGHTS, st.sampled_from([0.0, 0.1, 0.25, 0.3333, 0.5, 1.0]), st.integers(1, 4))
def test_lists_and_neighbourhoods_are_those_of_the_rule(
    held: dict[EntityRef, frozenset[str]], weights: dict[str, TagWeight], threshold: float, limit: int
) -> None:
    index = TopicIndex(held.items(), weights, threshold)
    for ref, tags in held.items():
        by_rule = topical_neighbourhood(ref, tags, held.items(), weights, threshold)
        assert index.neighbourhood(ref, tags) == by_rule
        assert index.ranking(ref, tags, limit) == ranked(by_rule, limit)
