"""Word process: cuts texts into search words for the process that started it, so that an indexer may go on meanwhile.

Run as `python -m mcp_assets.sync.index.word_process`. It reads lists of texts from standard input and writes the words
of each to standard output, both pickled, and ends with its input: so it outlives no parent, however that ends.
"""

import pickle
import signal
import sys

from mcp_assets.entities.words import words_of


def main() -> None:
    # Ctrl-C goes to each process of a terminal. The parent decides, and closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            texts = pickle.load(given)  # noqa: S301  (the parent alone writes there)
        except EOFError:
            return
        pickle.dump([words_of(*text) for text in texts], answers)
        answers.flush()


if __name__ == "__main__":
    main()
