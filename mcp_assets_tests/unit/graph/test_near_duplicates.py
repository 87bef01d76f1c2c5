"""possible_duplicate: which pairs of near vectors are copies by their words, and which only look like copies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph.edges import Edge, EdgeType
from mcp_assets.graph.near_duplicates import (
    COMPARED_CHARACTERS,
    DuplicateRule,
    Wording,
    duplicate_edges,
    shared_words,
    wording_of,
)
from mcp_assets.graph.ranking import Neighbour
from mcp_assets_tests.unit.graph.samples import A, B, C

RULE = DuplicateRule(0.85, 0.7)
TITLE = "Renew the certificate of the gateway"
BODY = (
    "The certificate ends in thirty days. Order a new one from the authority, install it and restart the service. "
    "Check the expiry date with openssl afterwards, and tell the people on call. The alert has to be gone by then."
)


def share(one: tuple[str | None, str], other: tuple[str | None, str]) -> float:
    found = shared_words(wording_of(*one), wording_of(*other))
    assert found == shared_words(wording_of(*other), wording_of(*one)), "it is the same both ways"
    return found


@pytest.mark.parametrize(
    ("title", "body"),
    [
        (TITLE, BODY),
        (TITLE.upper(), BODY.lower().replace(" ", "\n\n ")),
        ("Gateway: renew its certificate", BODY),
        ("", f"{TITLE}\n{BODY}"),
        (TITLE, BODY.replace("afterwards", "aftrewards").replace("authority", "authorty")),
        (TITLE, BODY.partition(". ")[2]),
        (TITLE, "The alert has to be gone by then. " + BODY.removesuffix(" The alert has to be gone by then.")),
        (TITLE, f"{BODY} Ask for help in the channel."),
        (f"{TITLE} (2)", BODY),
        (TITLE, f"**{BODY}**"),
    ],
)
def test_a_near_copy_shares_most_pairs_of_words(title: str, body: str) -> None:
    assert share((TITLE, BODY), (title, body)) >= RULE.shared_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Two tasks of one template.
        ((f"Onboard kim. {TITLE}", f"{BODY} Tell kim."), (f"Onboard lee. {TITLE}", f"{BODY} Tell lee.")),
        (("Minutes 2025", BODY), ("Minutes 2026", BODY)),
        (("Release 1.27", BODY), ("Release 1.28", BODY)),
        # The same title above another body, and a next version.
        ((TITLE, BODY), (TITLE, "The key of the database is lost. Ask the two people who keep its parts in the safe.")),
        ((TITLE, BODY), (TITLE, BODY[: len(BODY) // 2] + "Since March the authority does all of this by itself.")),
        # Too short to tell.
        (("Meeting notes", ""), ("Meeting notes", "")),
        (("Fix the login of the shop", ""), ("Fix the logout of the shop", "")),
        ((None, ""), (None, "")),
    ],
)
def test_what_only_looks_like_a_copy_is_none(one: tuple[str | None, str], other: tuple[str | None, str]) -> None:
    assert share(one, other) < RULE.shared_words


def test_a_short_text_is_a_copy_of_one_with_the_same_words() -> None:
    assert share(("Fix the login page", ""), ("fix the  LOGIN page", "")) == 1.0


def test_a_title_that_names_a_subject_which_the_other_text_mentions_too_may_be_a_copy() -> None:
    assert share((TITLE, BODY), ("Restart the service, and certificate", BODY)) >= RULE.shared_words


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    text = "知识图谱把任务和页面连接起来,每个节点都有一个向量,相似的节点之间有一条边。"
    assert share((None, text), (None, text.replace("每个", "各个"))) >= RULE.shared_words
    assert share((None, text), (None, "今天的会议推迟到下星期,请大家把议题写在页面上,并且通知没有来的人。")) < 0.1


def test_only_the_beginning_of_a_very_long_text_is_compared() -> None:
    long = "".join(f"word{n} " for n in range(COMPARED_CHARACTERS))
    assert share((None, long), (None, long[:COMPARED_CHARACTERS] + "and something else")) == 1.0


@given(st.text(alphabet="ab \n1.日本", max_size=40), st.text(alphabet="ab \n1.日本", max_size=40))
def test_the_share_is_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    assert 0.0 <= share((one[:5], one), (other[:5], other)) <= 1.0


def wordings(**texts: str) -> dict[EntityRef, Wording]:
    return {ref: wording_of(None, texts[ref.id]) for ref in (A, B, C) if ref.id in texts}


def test_an_edge_needs_a_near_vector_and_shared_words_and_has_the_smaller_as_its_strength() -> None:
    same = wordings(A=BODY, B=BODY, C="something else that has nothing to do with the matter")
    near = (Neighbour(B, 0.9), Neighbour(C, 0.89))

    (edge,) = duplicate_edges(A, near, same, RULE)

    evidence = {"rule": "copy", "shared_words": 1.0, "similarity_score": 0.9}
    assert edge.of_type(EdgeType.POSSIBLE_DUPLICATE) == Edge(A, B, EdgeType.POSSIBLE_DUPLICATE, 0.9, evidence)
    assert json.loads(edge.evidence) == evidence
    assert duplicate_edges(A, (Neighbour(B, 0.8499),), same, RULE) == []
    assert duplicate_edges(A, near, wordings(A=BODY), RULE) == []
    assert duplicate_edges(A, near, wordings(B=BODY), RULE) == []
