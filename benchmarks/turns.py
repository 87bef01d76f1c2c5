"""Turns: checkouts whose code is measured take turns, each with a stack of its own that stays from round to round.

A benchmark that is called with --serve is one side: it prepares its stack, prints a line, and then measures one round
for each line of its standard input, and prints its figures as JSON.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import CHECKOUT, say

Figures = dict[str, float]
"""Of one round, by name."""


class Side:
    """A checkout whose code is measured, in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.rounds: list[Figures] = []

    def answer(self) -> Figures:
        """Its next line. Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a side has ended: its last lines say why")
        figures: Figures = json.loads(line)
        return figures

    def take_turn(self, *, counts: bool) -> None:
        """One round; with `counts` false it only warms files and caches."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        figures = self.answer()
        say(" ".join(f"{name} {value:.2f}" for name, value in figures.items()))
        if counts:
            self.rounds.append(figures)

    def median(self, *names: str) -> float:
        return statistics.median(sum(figures[name] for name in names) for figures in self.rounds)


@contextmanager
def side(script: str, checkout: Path, arguments: Sequence[str]) -> Iterator[Side]:
    """A benchmark, called with --serve, as one side, with the code of `checkout`."""
    interpreter = Path(sys.executable) if checkout == CHECKOUT else checkout / ".venv" / "bin" / "python"
    command = [str(interpreter), str(Path(script).resolve()), "--serve", *arguments]
    # In its folder, because what it starts by `python -m` loads the code that lies there.
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        started = Side(process)
        started.answer()
        yield started
        assert process.stdin is not None
        process.stdin.close()
