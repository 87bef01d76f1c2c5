"""What every system gets: a job, an embedder that costs next to nothing, and the figures of one run as a JSON line.

The interpreters of all systems run this module, so that it needs the standard library and numpy and nothing else.
"""

import hashlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIMENSION = 384

POISON = "the embedder refuses this text"
"""A text that contains this is refused, and with it the request that it is in, as providers refuse a whole request."""

TABLE = "texts"
"""Holds the texts in the database of the systems that are compared with ours: a row each, ready to be embedded."""

QUERY = f"SELECT entity_type, entity_id, piece, text, metadata FROM {TABLE} ORDER BY entity_type, entity_id, piece"


class TextRefused(ValueError):
    """A request holds a text that the embedder refuses."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a run works on, and what it does there.

    `task`: `sync`, bring the index up to date; `mend`, repair what the stores have lost, in the way that the system has
    for that; `words` and `link`, write the words for search by words, and the edges, which ours alone has.
    """

    database_url: str
    nats_url: str
    qdrant_url: str
    qdrant_api_key: str
    state_dir: str
    task: str

    @property
    def qdrant_headers(self) -> dict[str, str]:
        """The key as a header, because qdrant-client warns of its option `api_key` over plain HTTP."""
        return {"api-key": self.qdrant_api_key} if self.qdrant_api_key else {}


def vector_of(text: str) -> NDArray[np.float32]:
    """The vector of a text: a hash of it, of length 1."""
    digest = hashlib.shake_256(text.encode()).digest(DIMENSION)
    vector = np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5
    return vector / np.linalg.norm(vector)


class Stub:
    """The embedder: one hash a text. It counts the texts that it is sent, those of refused requests too."""

    def __init__(self) -> None:
        self.texts = 0
        self.children_mb = 0.0

    def embed(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """One vector a text. Raises TextRefused if one of them is poison."""
        self.texts += len(texts)
        if any(POISON in text for text in texts):
            raise TextRefused(POISON)
        return [vector_of(text) for text in texts]

    def note_children(self) -> None:
        """Remember the peak memory of the child processes that live now: called before a system ends them."""
        self.children_mb = sum(map(_peak_mb, _children()))


def main(sync: Callable[[Job, Stub], None]) -> None:
    """Do one run of a system: the job comes as JSON from standard input, the figures go to standard output.

    `seconds` and `cpu_s` (of this process and its children) are of `sync`, without the start of the interpreter and
    without imports. `error` is what the run ended with, if it failed.
    """
    job = Job(**json.load(sys.stdin))
    stub, error = Stub(), None
    cpu, began = _cpu_s(), time.perf_counter()
    try:
        sync(job, stub)
    except Exception as raised:  # noqa: BLE001  (what a system makes of a refused text is what is measured)
        error = f"{type(raised).__name__}: {' '.join(str(raised).split())[:300]}"
    seconds, cpu = time.perf_counter() - began, _cpu_s() - cpu
    figures = {
        "seconds": round(seconds, 3),
        "cpu_s": round(cpu, 3),
        "texts": stub.texts,
        "peak_rss_mb": round(_peak_mb("self") + stub.children_mb, 1),
        "error": error,
    }
    print(json.dumps(figures), flush=True)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _children() -> list[str]:
    listed = (file.read_text() for file in Path("/proc/self/task").glob("*/children"))
    return [pid for pids in listed for pid in pids.split()]


def _peak_mb(pid: str) -> float:
    # Not ru_maxrss, which a process inherits from the one that started it.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0


# A client that asks the network for news of itself would be measured with it.
os.environ.setdefault("COCOINDEX_DISABLE_USAGE_TRACKING", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "false")
