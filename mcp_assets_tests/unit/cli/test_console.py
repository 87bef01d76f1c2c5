"""The console of the commands: text from data is only shown, does not act on the terminal, and no pipe gets it cut."""

import io
import json

import pytest
from rich.console import Console

from mcp_assets.cli import console

NASTY = "[/x] \x1b[31mred\x1b[0m \x9b2J \u202etxt.exe\u2066 [keyword]"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard output as a terminal of 80 columns without colours."""
    written = io.StringIO()
    monkeypatch.setattr(
        console, "out", Console(file=written, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    )
    return written


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=written, width=80))
    return written


def test_characters_that_a_terminal_obeys_are_shown_as_escapes() -> None:
    assert console.shown(NASTY) == "[/x] \\x1b[31mred\\x1b[0m \\x9b2J \\u202etxt.exe\\u2066 [keyword]"


@pytest.mark.parametrize("text", ["a\tb\nc", "naïve 日本語 😀 שלום", ""])
def test_tabs_newlines_and_letters_of_all_scripts_stay(text: str) -> None:
    assert console.shown(text) == text


def test_a_sentence_keeps_its_brackets_and_is_not_wrapped_in_a_pipe(pipe: io.StringIO) -> None:
    console.say("see [tool.dagster] " + "x" * 200)
    assert pipe.getvalue() == "see [tool.dagster] " + "x" * 200 + "\n"


def test_rows_in_a_pipe_are_lines_of_values_between_tabs_without_headings(pipe: io.StringIO) -> None:
    console.print_rows(("score", "entity"), [("0.5", "task:a\tb\nc"), ("0.4", "x" * 300)], ids=("entity",))
    assert pipe.getvalue() == "0.5\ttask:a b c\n0.4\t" + "x" * 300 + "\n"


def test_rows_on_a_terminal_show_markup_of_data_as_text_and_never_cut_an_id(terminal: io.StringIO) -> None:
    entity_id = "task:" + "0123456789" * 5
    console.print_rows(("score", "entity", "title"), [("0.5", entity_id, "[/x] " + "long " * 60)], ids=("entity",))
    lines = terminal.getvalue().splitlines()
    assert "[/x]" in terminal.getvalue()
    assert all(len(line) <= 80 for line in lines)
    column = "".join(line[len("score ┃ ") - 1 :].split("│")[1 if "│" in line else 0] for line in lines if "│" in line)
    assert entity_id in column.replace(" ", "")


def test_json_has_escapes_in_place_of_what_a_terminal_obeys_and_is_the_same_to_a_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console.print_json({"title": NASTY + "\u2028é"})
    written = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e", "\u2066", "\u2028"} & set(written)
    assert json.loads(written) == {"title": NASTY + "\u2028é"}
