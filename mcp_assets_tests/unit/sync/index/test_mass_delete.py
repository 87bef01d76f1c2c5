"""Mass deletion: from which number of deletions on a person is asked."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_assets.sync.index.mass_delete import is_mass, may_be_mass, sentence

SHARES = st.floats(min_value=0.0, max_value=1.0, exclude_min=True)


@pytest.mark.parametrize(
    ("going", "total", "mass"),
    [
        pytest.param(0, 0, False, id="nothing of an empty type"),
        pytest.param(0, 100, False, id="nothing"),
        pytest.param(5, 5, False, id="all of a type of five"),
        pytest.param(6, 6, True, id="all of a type of six"),
        pytest.param(6, 7, False, id="all but one of a small type"),
        pytest.param(20, 21, False, id="twenty, whatever their share"),
        pytest.param(21, 22, True, id="more than twenty, and more than the share"),
        pytest.param(21, 105, False, id="more than twenty, and just the share"),
        pytest.param(21, 104, True, id="more than twenty, and a little more than the share"),
        pytest.param(200_000, 1_000_000, False, id="just the share of a large type"),
        pytest.param(200_001, 1_000_000, True, id="more than the share of a large type"),
    ],
)
def test_a_person_is_asked_for_more_than_the_share_and_twenty_or_for_all_if_they_are_more_than_five(
    going: int, total: int, mass: bool
) -> None:
    assert is_mass(going, total, 0.2) is mass


@pytest.mark.parametrize(("going", "mass"), [(99, False), (100, True)])
def test_with_a_share_of_one_a_person_is_asked_only_when_none_is_left(going: int, mass: bool) -> None:
    assert is_mass(going, 100, 1.0) is mass


@given(st.integers(0, 500), st.integers(0, 500), SHARES)
def test_one_deletion_more_never_makes_a_mass_deletion_an_ordinary_one(going: int, total: int, share: float) -> None:
    assert is_mass(going, total, share) <= is_mass(going + 1, total, share)


@given(st.integers(1, 500), st.integers(0, 500), SHARES)
@example(going=6, more=0, share=1.0)
def test_what_is_a_mass_deletion_is_suspected_to_be_one(going: int, more: int, share: float) -> None:
    assert is_mass(going, going + more, share) <= may_be_mass(going, going + more, share)


def test_a_part_is_suspected_by_its_share_alone() -> None:
    assert may_be_mass(3, 4, 0.2)
    assert not may_be_mass(20, 100, 0.2)


def test_the_refusal_says_how_many_of_what_would_go_which_setting_bounds_it_and_how_to_allow_it() -> None:
    refusal = sentence("edges", "task", 40, 60, 0.25)
    assert refusal.startswith("40 of 60 edges of the type task would be removed, more than 25% ")
    for named in ("MCP_ASSETS_MASS_DELETE_SHARE", "--allow-mass-delete", "allow_mass_delete: true"):
        assert named in refusal
