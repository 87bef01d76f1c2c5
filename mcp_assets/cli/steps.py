"""Steps: each part that starts, with what it does and the seconds so far; a table on a terminal, lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mcp_assets.cli.console import err, say_progress, shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.spinner import Spinner

_LATE_S = 3.0
"""Seconds without a word after which a person wonders whether anything happens."""

_SAY_EVERY_S = 10.0
"""How often a line repeats what is waited for, where no table shows the seconds."""


@dataclass(slots=True)
class _Step:
    does: str
    is_up: bool
    began: float
    said_at: float
    took_s: float | None = None

    def seconds(self, now: float) -> float:
        return now - self.began if self.took_s is None else self.took_s


class Steps:
    """What is waited for, shown on standard error until the block ends. `look` is an `OnLook` of `embedded.stack`."""

    def __init__(
        self, *, quiet: bool = False, table: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`table`: default: on a terminal. Lines are for where other programs write to the terminal, too."""
        self._quiet = quiet
        self._table = err.is_terminal if table is None else table
        self._clock = clock
        self._steps: dict[str, _Step] = {}
        self._saying = threading.Lock()
        self._ended = threading.Event()
        self._live: Live | None = None
        self._spinner: Spinner

    def look(self, name: str, does: str, is_up: bool) -> None:
        """Part `name` does this now, and is up or not."""
        with self._saying:
            self._look(name, does, is_up)

    def _look(self, name: str, does: str, is_up: bool) -> None:
        now = self._clock()
        step = self._steps.get(name)
        changed = step is None or (step.does, step.is_up) != (does, is_up)
        if step is None or (step.is_up and not is_up):
            step = self._steps[name] = _Step(does, is_up, began=now, said_at=now)
        step.does, step.is_up = does, is_up
        if is_up and step.took_s is None:
            step.took_s = now - step.began
        if self._quiet:
            return
        if self._table:
            self._refresh()
        elif changed:
            self._say(name, step, now)
        else:
            self._repeat(now)

    def _repeat(self, now: float) -> None:
        """Say again what has been waited for since its last line."""
        for name, step in self._steps.items():
            if not step.is_up and now - step.said_at >= _SAY_EVERY_S:
                self._say(name, step, now)

    def _say(self, name: str, step: _Step, now: float) -> None:
        step.said_at = now
        say_progress(_line(name, step, now))

    def _keep_saying(self) -> None:
        """Repeat lines while the command looks at no part. Rich's table has a thread of its own for this."""
        while not self._ended.wait(1.0):
            with self._saying:
                self._repeat(self._clock())

    def __enter__(self) -> Self:
        if not self._quiet and not self._table:
            threading.Thread(target=self._keep_saying, name="steps", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()

    def _refresh(self) -> None:
        """Show the table. From its first appearance on, a thread of Rich's draws it again, so that seconds pass."""
        if self._live is None:
            from rich.live import Live
            from rich.spinner import Spinner

            self._spinner = Spinner("dots")
            self._live = Live(get_renderable=self._drawn, console=err, refresh_per_second=8)
            self._live.start()

    def _drawn(self) -> "RenderableType":
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True)
        now = self._clock()
        for name, step in list(self._steps.items()):
            mark = Text("✓", style="green") if step.is_up else self._spinner.render(now)
            seconds = Text(f"{step.seconds(now):.0f} s", style="dim")
            table.add_row(mark, Text(shown(name)), seconds, Text(shown(step.does), style="dim"))
        return table


@contextmanager
def loading() -> Iterator[None]:
    """Say, if the block takes long, that the command loads what it works with: minutes on a very busy machine."""
    late = threading.Timer(
        _LATE_S, say_progress, ["mcp-assets loads the platform, which takes its time on a busy machine"]
    )
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _line(name: str, step: _Step, now: float) -> str:
    seconds = step.seconds(now)
    if step.is_up:
        return f"{name}: {step.does}, after {seconds:.0f} s"
    return f"{name}: {step.does}" + (f", {seconds:.0f} s so far" if seconds >= 1 else "")
