"""Word cutter: the search words of many texts, in a process of its own when they are very many.

Cutting is pure computation, and takes a sixth of the time of a full sync by the local model, because Python computes in
one thread at a time. In another process it costs the indexer next to nothing.
"""

import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence

from mcp_assets.entities.words import Words, words_of
from mcp_assets.platform import Platform

logger = logging.getLogger(__name__)

_OWN_FROM = 1_000_000
"""Characters that a process cuts itself before it starts another one, which takes as long as to cut so many: most
drains never do."""

_FEW = 20_000
"""Characters that are not worth a message to the other process."""

_PATIENCE_S = 5.0
"""Seconds that the other process has to end by itself."""


class WordCutter:
    """Cuts the texts of one platform; may be called from several threads."""

    def __init__(self, platform: Platform) -> None:
        del platform  # A companion is made with it.
        self._cut_here = 0
        self._using = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def cut(self, texts: Sequence[tuple[str, str | None, str]]) -> list[Words]:
        """The search words of entities: id, title and content of each; in the same order."""
        characters = sum(len(content) for _, _, content in texts)
        if characters >= _FEW and self._cut_here >= _OWN_FROM:
            with self._using:
                words = self._ask(texts)
            if words is not None:
                return words
        self._cut_here += characters
        return [words_of(*text) for text in texts]

    def close(self) -> None:
        """End the other process, if there is one."""
        with self._using:
            self._end()

    def _ask(self, texts: Sequence[tuple[str, str | None, str]]) -> list[Words] | None:
        """What the other process answers; None: it was ended by somebody, and the next call starts another one."""
        answered = False
        try:
            process = self._process = self._process or _start()
            assert process.stdin is not None and process.stdout is not None  # noqa: S101  (both are pipes)
            pickle.dump(texts, process.stdin)
            process.stdin.flush()
            words: list[Words] = pickle.load(process.stdout)  # noqa: S301  (our own process writes there)
            answered = True
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("the process that cuts search words ended (%s): they are cut here", error or "no answer")
            return None
        finally:
            # Also after an interruption: otherwise the next call would read the answer to this one.
            if not answered:
                self._end()
        return words

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            try:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(_PATIENCE_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "mcp_assets.sync.index.word_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
