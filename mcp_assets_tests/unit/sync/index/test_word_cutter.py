"""The word cutter: the same words in both processes, whichever of the two is killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import psutil
import pytest

from mcp_assets.entities.words import words_of
from mcp_assets.sync.index import word_cutter
from mcp_assets.sync.index.word_cutter import WordCutter
from mcp_assets_tests.waiting import until

TEXTS = [
    (f"CHK-{number}", None if number % 3 else f"Title {number}", f"ERR_{number} 知识图谱 gate") for number in range(9)
]
WORDS = [words_of(*text) for text in TEXTS]

PARENT = """
import sys
from mcp_assets.sync.index import word_cutter

word_cutter._OWN_FROM = word_cutter._FEW = 0
cutter = word_cutter.WordCutter(None)
cutter.cut([("1", None, "a text")])
print(cutter._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cutter(monkeypatch: pytest.MonkeyPatch) -> Iterator[WordCutter]:
    """One that cuts nothing itself."""
    monkeypatch.setattr(word_cutter, "_OWN_FROM", 0)
    monkeypatch.setattr(word_cutter, "_FEW", 0)
    made = WordCutter(cast("Any", None))
    yield made
    made.close()


def own_process(cutter: WordCutter) -> "subprocess.Popen[bytes]":
    assert cutter._process is not None
    return cutter._process


def test_another_process_cuts_the_words_that_this_one_would_cut(cutter: WordCutter) -> None:
    assert cutter.cut(TEXTS) == WORDS
    process = own_process(cutter)
    assert cutter.cut(TEXTS) == WORDS
    assert own_process(cutter) is process


def test_few_texts_are_cut_without_another_process() -> None:
    cutter = WordCutter(cast("Any", None))
    assert cutter.cut(TEXTS) == WORDS
    assert cutter._process is None


def test_if_the_other_process_is_killed_the_texts_are_cut_here_and_the_next_ones_by_a_new_process(
    cutter: WordCutter,
) -> None:
    cutter.cut(TEXTS)
    killed = own_process(cutter)
    killed.kill()
    killed.wait()
    assert cutter.cut(TEXTS) == WORDS
    assert cutter._process is None
    assert cutter.cut(TEXTS) == WORDS
    assert own_process(cutter).pid != killed.pid


def test_an_answer_that_an_interruption_left_unread_is_not_taken_for_that_of_the_next_texts(
    cutter: WordCutter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    cutter.cut(TEXTS)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pickle.load", interrupted)
        cutter.cut([("other", None, "other words")] * len(TEXTS))
    assert cutter.cut(TEXTS) == WORDS


def test_the_other_process_ends_with_its_cutter(cutter: WordCutter) -> None:
    cutter.cut(TEXTS)
    process = own_process(cutter)
    cutter.close()
    assert process.returncode == 0


def test_the_other_process_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid), "the process that cuts words has ended")
