"""Passages: the part of a text that shows why it was found."""

from mcp_assets.sync.search.passages import EXCERPT, best_passage

FILLER = "Nothing is to be read here, and more of it follows. " * 40


def marked(text: str, **weights: float) -> tuple[str, list[str]]:
    passage = best_passage(text, weights)
    return passage.excerpt, [passage.excerpt[mark.start : mark.end] for mark in passage.marks]


def test_the_passage_is_where_most_words_of_the_question_stand_together() -> None:
    text = f"certificate {FILLER} Renew the certificate in March, says the plan. {FILLER} renew"

    excerpt, marks = marked(text, renew=2.0, certificate=2.0)

    assert "Renew the certificate in March" in excerpt
    assert marks == ["Renew", "certificate"]
    assert len(excerpt) <= EXCERPT


def test_a_rare_word_outweighs_two_common_ones() -> None:
    text = f"the plan of the team {FILLER} error ERR_TLS_CERT {FILLER}"

    assert "ERR_TLS_CERT" in marked(text, plan=0.5, team=0.5, err_tls_cert=5.0)[0]


def test_words_are_marked_whole_and_in_scripts_without_spaces_inside_of_runs() -> None:
    assert marked("art and party", art=1.0)[1] == ["art"]
    assert marked("基于知识图谱的检索", 图谱=1.0)[1] == ["图谱"]


def test_the_place_of_a_passage_leads_to_it_in_the_text() -> None:
    text = f"{FILLER}A   gate\n\nis painted. {FILLER}"
    passage = best_passage(text, {"gate": 1.0})

    assert " ".join(text[passage.place.start : passage.place.end].split()).startswith(passage.excerpt)
    assert "A gate is painted." in passage.excerpt


def test_without_words_of_the_question_the_passage_is_the_nearest_chunk_or_the_beginning() -> None:
    text = f"first {FILLER}second"

    assert best_passage(text, {}).excerpt.startswith("first")
    assert best_passage(text, {"absent": 1.0}, (text.index("second"), len(text))).excerpt == "second"


def test_signs_of_patterns_in_a_word_are_plain_characters() -> None:
    assert marked("c++ and a.b", **{"a.b": 1.0})[1] == ["a.b"]


def test_an_empty_text_has_an_empty_passage() -> None:
    assert best_passage("", {"gate": 1.0}).excerpt == ""
