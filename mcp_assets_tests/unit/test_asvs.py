"""The table of ASVS: each item of level 1 is answered, and each test that it names is there."""

import re
from itertools import chain
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/production/asvs.md"

TESTS = Path(__file__).parents[1]

LEVEL_1 = {
    "1.2": (1, 5), "1.3": (1, 2), "1.5": (1, 1), "2.1": (1, 1), "2.2": (1, 2), "2.3": (1, 1), "3.2": (1, 2),
    "3.3": (1, 1), "3.4": (1, 2), "3.5": (1, 3), "4.1": (1, 1), "4.4": (1, 1), "5.2": (1, 2), "5.3": (1, 2),
    "6.1": (1, 1), "6.2": (1, 8), "6.3": (1, 2), "6.4": (1, 2), "7.2": (1, 4), "7.4": (1, 2), "8.1": (1, 1),
    "8.2": (1, 2), "8.3": (1, 1), "9.1": (1, 3), "9.2": (1, 1), "10.4": (1, 5), "11.3": (1, 2), "11.4": (1, 1),
    "12.1": (1, 1), "12.2": (1, 2), "13.4": (1, 1), "14.2": (1, 1), "14.3": (1, 1), "15.1": (1, 1), "15.2": (1, 1),
    "15.3": (1, 1),
}  # fmt: skip
"""By section, the first and the last item of level 1 in ASVS 5.0.0."""

ITEMS = [f"{section}.{number}" for section, (first, last) in LEVEL_1.items() for number in range(first, last + 1)]


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> list[str]:
    """The items in the first cell: one, some, or a range."""
    items = re.findall(r"\d+\.\d+\.\d+", cell)
    return ITEMS[ITEMS.index(items[0]) : ITEMS.index(items[1]) + 1] if " to " in cell else items


def test_each_item_of_level_1_is_answered_once() -> None:
    answered = list(chain.from_iterable(named(row[0]) for row in rows() if row[1] == "1"))

    assert len(ITEMS) == 70
    assert sorted(answered) == sorted(ITEMS)


def test_each_answer_is_one_of_four_and_has_a_reason() -> None:
    for item, level, _, answer, reason in rows():
        assert level in ("1", "2"), item
        assert answer in ("yes", "in part", "no", "not ours"), item
        assert reason, item


def test_each_test_that_is_named_is_there() -> None:
    text = PAGE.read_text()
    paths = re.findall(r"`((?:unit|integration|acceptance|contract)[^`]*)`", text)

    assert len(paths) > 20
    assert [path for path in paths if not (TESTS / path).exists()] == []
