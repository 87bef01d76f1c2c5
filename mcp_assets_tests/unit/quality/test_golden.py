"""The golden file: what a line may say, and that a wrong one is named by file and line."""

from pathlib import Path

import pytest

from mcp_assets.entities.refs import EntityRef
from mcp_assets.events.type_names import DEFAULT_TYPE_NAMES
from mcp_assets.quality import GoldenFileError, Question, read_golden

SEVEN, HOME = EntityRef("task", "7"), EntityRef("page", "a:b")


def read(tmp_path: Path, content: bytes, name: str = "golden.jsonl") -> list[Question]:
    path = tmp_path / name
    path.write_bytes(content)
    return read_golden(path, DEFAULT_TYPE_NAMES.canonical)


def test_json_lines_and_a_file_with_tabs_say_the_same(tmp_path: Path) -> None:
    as_json = (
        b"\xef\xbb\xbf# ours\n"
        b'{"query": "renew it ", "expected": "task:7"}\r\n\n'
        b'{"query": "home", "expected": ["Wiki:a:b", "task:7"]}'
    )
    as_tsv = b"# ours\nrenew it\ttask:7\n\nhome\tpage:a:b\tcard:7\t\n"
    expected = [
        Question("golden", "renew it", frozenset({SEVEN})),
        Question("golden", "home", frozenset({HOME, SEVEN})),
    ]
    assert read(tmp_path, as_json) == expected
    assert read(tmp_path, as_tsv, "golden.tsv") == expected


def test_a_query_on_two_lines_is_one_question_with_both_answers(tmp_path: Path) -> None:
    assert read(tmp_path, b"home\ttask:7\nhome\tpage:a:b\n", "golden.tsv") == [
        Question("golden", "home", frozenset({SEVEN, HOME}))
    ]


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("g.jsonl", b"renew\ttask:7", "this is not JSON"),
        ("g.jsonl", b"[" * 100_000, "this is not JSON"),
        ("g.jsonl", b"[1]", "not a JSON object"),
        ("g.jsonl", b'{"query": "renew"}', "there is no 'expected'"),
        ("g.jsonl", b'{"query": "x", "expected": "task:7", "answer": "task:8"}', "'answer' means nothing"),
        ("g.jsonl", b'{"query": 7, "expected": "task:7"}', "the query is no text"),
        ("g.jsonl", b'{"query": "\\ud800", "expected": "task:7"}', "lone surrogate"),
        ("g.jsonl", b'{"query": "x", "expected": []}', "no entity is expected"),
        ("g.jsonl", b'{"query": "x", "expected": [7]}', "7 is no text"),
        ("g.jsonl", b'{"query": "x", "expected": "7"}', "'7' has no type"),
        ("g.jsonl", b'{"query": "x", "expected": "tsk:7"}', "'tsk:7' is of no entity type"),
        ("g.jsonl", b'{"query": "x", "expected": "task:' + b"7" * 600 + b'"}', "has 600 characters"),
        ("g.tsv", b"renew", "no entity is expected"),
        ("g.tsv", b" \ttask:7", "the query is no text"),
        ("g.tsv", b"x" * 2_001 + b"\ttask:7", "2,001 characters"),
        ("g.tsv", b"\xff\ttask:7", "not UTF-8"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_line(tmp_path: Path, name: str, line: bytes, said: str) -> None:
    with pytest.raises(GoldenFileError, match=rf"{name}, line 3: .*{said}"):
        read(tmp_path, b"# ours\n\n" + line + b"\n", name)


def test_a_file_without_a_question_or_that_is_away_says_so(tmp_path: Path) -> None:
    with pytest.raises(GoldenFileError, match=r"golden\.jsonl: the golden file holds no question"):
        read(tmp_path, b"# to be written\n")
    with pytest.raises(GoldenFileError, match=r"none\.tsv: the golden file cannot be read"):
        read_golden(tmp_path / "none.tsv", DEFAULT_TYPE_NAMES.canonical)
