"""Words: what of a text and of a question is searched, in several scripts."""

import pytest

from mcp_assets.entities.words import LONGEST_WORD, question_of, words_of


def lexemes(text: str, title: str | None = None, entity_id: str = "0") -> dict[str, str]:
    """The search words of a text, each with its weight."""
    vector = words_of(entity_id, title, text).vector
    return {word.rpartition(":")[0][1:-1]: word.rpartition(":1")[2] for word in vector.split(" '") for word in [
        word if word.startswith("'") else "'" + word
    ]}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("ERR_TLS_CERT", {"err_tls_cert", "err", "tls", "cert"}),
        ("CHK-104", {"chk-104", "chk", "104"}),
        ("getHTTPServer2", {"gethttpserver2", "get", "http", "server", "2"}),
        ("--max-pods", {"max-pods", "max", "pods"}),
        ("/etc/ssl/openssl.cnf", {"etc/ssl/openssl.cnf", "etc", "ssl", "openssl", "cnf"}),
        ("Über-Straße", {"über-strasse", "über", "strasse"}),
        ("ＡＢＣ", {"abc"}),
        ("知识图谱", {"知识", "识图", "图谱"}),
        ("Python教程", {"python教程", "python", "教程"}),
        ("กราฟ", {"กร", "รา", "าฟ"}),
        ("हिन्दी", {"हिन्दी"}),
        ("don't", {"don", "t"}),
        ("end.", {"end"}),
    ],
)
def test_a_run_gives_itself_and_its_parts(written: str, words: set[str]) -> None:
    assert set(question_of(written).words) == words
    assert set(lexemes(written)) - {"=0", "0"} == words


def test_a_text_is_found_by_each_word_of_each_question_that_quotes_it() -> None:
    text = 'See ERR_TLS_CERT in getUserName(); 知识图谱 and "naïve" plans: v2.1.'

    assert set(question_of(text).words) <= set(lexemes(text))


def test_a_word_weighs_by_how_often_it_occurs_and_most_in_the_title() -> None:
    weights = lexemes("once twice twice four four four four Title", title="the title", entity_id="CHK-1")

    assert {word: weights[word] for word in ("once", "twice", "four", "title", "chk-1", "=the title", "=chk-1")} == {
        "once": "", "twice": "C", "four": "B", "title": "A", "chk-1": "A", "=the title": "A", "=chk-1": "A",
    }  # fmt: skip


def test_a_title_is_a_name_whatever_its_case_and_spaces() -> None:
    assert "=garden gate" in lexemes("", title="  Garden\n Gate ")
    assert question_of("garden  GATE").name == "garden gate"


def test_quotes_and_backslashes_in_a_title_stay_in_its_name() -> None:
    assert "'=it''s a \\\\ path':1A" in words_of("0", "It's a \\ path", "").vector


def test_a_very_long_run_is_searched_by_its_parts_only() -> None:
    key = "x" * LONGEST_WORD + "-tail"

    assert set(question_of(key).words) == {"x" * LONGEST_WORD, "tail"}


def test_a_text_of_very_many_words_stays_within_what_a_row_can_hold() -> None:
    vector = words_of("0", None, " ".join(f"word{number}" for number in range(300_000))).vector

    assert len(vector.encode()) < 1 << 20


def test_a_question_knows_its_phrases_and_that_their_words_are_in_each_text() -> None:
    question = question_of('how does "Pod  Security" work with "知识图谱"')

    assert question.phrases == ("pod security", "知识图谱")
    assert {"pod", "security"} <= set(question.phrase_words) <= set(question.words)
    assert {"how", "pod", "security"} <= set(question.words)


@pytest.mark.parametrize(("text", "is_one_run"), [("CHK-1", True), ("CHK-1 late", False), ("", False), ("?!", False)])
def test_a_question_of_one_run_may_be_the_beginning_of_a_name(text: str, is_one_run: bool) -> None:
    assert question_of(text).is_one_run == is_one_run
