"""Side by side: ours, LangChain's indexer, LlamaIndex's pipeline and CocoIndex on the same rows, stores and embedder.

Each system gets a stack of its own, the source tables of one size, and an embedder that costs one hash a text. Then
come the cases, one process each, which does what a person would start to bring the index up to date:

- `cold`: tables and collections are made, and empty. `unchanged`: nothing changed.
- `words`: after `cold`, the words for search by words; ours alone has them, and a full sync leaves them to the linker.
- `changed`, `deleted`: 1 % of the rows.
- `poison`: 1 % changed, and one row more, which the embedder refuses together with the request that it is in.
- `lost`: 2 % of the texts have lost their points in Qdrant; an ordinary run. `mend`: then the system's own repair.

For each: `seconds` and `cpu_s` (process and its children) of the run without start and imports, `process_s` with them,
`postgres_cpu_s` and `qdrant_cpu_s`, `texts` sent to the embedder, `peak_rss_mb` of the process and its children; and of
the vectors afterwards how many are `right` of `expected`, and what is `wrong` with others. Figures are those of the
round with the median seconds. CPU seconds hold on a busy machine too; seconds need an idle one (`--idle`).

All systems get the same texts: long rows are cut as ours cuts them, before the run for the others, within it for ours.
Environments of the other systems are made once, in the user's cache. QDRANT_URL (and QDRANT_API_KEY) name a Qdrant to
measure with, which has to be empty; without it the embedded engine serves all. All systems speak HTTP to it, but
CocoIndex speaks gRPC, its default, if PEERS_QDRANT_GRPC_PORT names the port.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import WORKSPACE, Bench, bench, read_workspace, say
from peers import rows as cases
from peers import stores
from peers.comparison import Vector, Vectors, compare
from peers.environments import PEERS, Peer, interpreter
from peers.rows import Row
from peers.stub import POISON, vector_of
from peers.table import in_page, markdown

from mcp_assets.entities.chunks import ChunkSpec

SIZES = ("3000", "30000", "workspace")

NOT_MEASURED = {
    "langchain": {"words": "has none"},
    "llamaindex": {"words": "has none", "mend": "has none"},
    "cocoindex": {"words": "has none"},
}
"""What a system does not do. LlamaIndex has no repair: its way is to forget all that it knows, and to run cold."""


@dataclass(slots=True)
class Bout:
    """One system at one size: its stack, what stands in the source tables, and the figures so far."""

    peer: Peer
    stores: Bench
    state_dir: Path
    spec: ChunkSpec | None
    limit_s: float
    rows: list[Row]
    figures: dict[str, dict[str, Any]]

    def case(self, name: str, rows: Sequence[Row], task: str = "sync") -> None:
        """Bring the source tables to `rows`, run the system once, and note its figures and its vectors."""
        self.write(rows)
        before = stores.cpu_seconds(self.stores)
        began = time.perf_counter()
        figures = self.run(task)
        figures["process_s"] = round(time.perf_counter() - began, 3)
        after = stores.cpu_seconds(self.stores)
        for store, used in after.items():
            was = before[store]
            figures[f"{store}_cpu_s"] = None if used is None or was is None else round(used - was, 3)
        expected, vectors = self.verdict()
        figures |= {"rows": len(rows), "expected": expected, "right": vectors.right, "wrong": vectors.wrong}
        self.figures[name] = figures
        say(f"{self.peer.title}, {name}: {figures}")

    def write(self, rows: Sequence[Row]) -> None:
        upsert, remove = cases.difference(self.rows, rows)
        stores.write_source(self.stores, upsert, remove, self.spec)
        self.rows = list(rows)

    def run(self, task: str = "sync") -> dict[str, Any]:
        """One process of the system; its figures.

        Raises:
            RuntimeError: it ended without figures, or took longer than the limit.
        """
        addresses = self.stores.addresses
        job = {
            "database_url": addresses.database_url,
            "nats_url": addresses.nats_url,
            "qdrant_url": addresses.qdrant_url,
            "qdrant_api_key": addresses.qdrant_api_key or "",
            "state_dir": str(self.state_dir),
            "task": task,
        }
        try:
            done = subprocess.run(
                [interpreter(self.peer), self.peer.script],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=self.limit_s,
                check=True,
            )
            figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired as expired:
            raise RuntimeError(f"{self.peer.title} took more than {self.limit_s:.0f} s: see --limit-s") from expired
        except (subprocess.CalledProcessError, IndexError, ValueError) as error:
            said = (getattr(error, "stderr", "") or "nothing said").strip()
            say(said)
            raise RuntimeError(f"{self.peer.title} ended without figures: {said.splitlines()[-1]}") from error
        return figures

    def verdict(self) -> tuple[int, Vectors]:
        """How many vectors there should be, and how those that Qdrant holds compare with them."""
        expected: dict[str, Vector] = {
            piece.key: vector_of(piece.text) for piece in cases.pieces(self.rows, self.spec) if POISON not in piece.text
        }
        with closing(self.stores.qdrant()) as client:
            return len(expected), compare(expected, ((held.key, held.vector) for held in stores.held_points(client)))

    def lose(self) -> int:
        """Delete cases.LOST of the vectors behind the system's back; how many there were."""
        texts = [piece.key for piece in cases.pieces(self.rows, self.spec)]
        with closing(self.stores.qdrant()) as client:
            return stores.lose(client, {texts[place] for place in cases.picked(len(texts), cases.LOST)})


def measure(bout: Bout, rows: list[Row]) -> dict[str, dict[str, Any]]:
    """All cases of one system at one size."""
    not_measured = NOT_MEASURED.get(bout.peer.name, {})
    # Tables and collections are made once in the life of an index, by a run that finds no row.
    bout.write([])
    bout.run()
    bout.case("cold", rows)
    if "words" not in not_measured:
        bout.case("words", rows, "words")
    bout.case("unchanged", rows)
    bout.case("changed", cases.changed(bout.rows))
    bout.case("deleted", cases.thinned(bout.rows))
    bout.case("poison", cases.poisoned(bout.rows))
    # What a refused text has left behind is no part of what comes next.
    bout.write(cases.without_poison(bout.rows))
    bout.run()
    if bout.peer.name == "ours":
        # A repair also links what waits for it, and here all entities do.
        bout.run("link")
    lost = bout.lose()
    bout.case("lost", bout.rows)
    bout.figures["lost"]["lost"] = lost
    if "mend" not in not_measured:
        bout.case("mend", bout.rows, "mend")
    return bout.figures


@contextmanager
def bout_of(peer: Peer, server: stores.Server | None, limit_s: float) -> Iterator[Bout]:
    """A stack of its own for `peer`, with empty stores."""
    with bench() as own:
        served = stores.on_server(own, server)
        state_dir = own.folder / "state"
        state_dir.mkdir()
        try:
            yield Bout(peer, served, state_dir, served.settings().chunks, limit_s, [], {})
        finally:
            stores.empty(served)


def rows_of(size: str, workspace: Path) -> list[Row]:
    if size == "workspace":
        return [
            Row(line.entity_type, line.entity_id, line.title, line.content, line.metadata)
            for line in read_workspace(workspace)
        ]
    return cases.short_rows(int(size))


def median_round(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """For each case the figures of the round whose seconds are the median; of an even number the lower one."""
    names = rounds[0]
    ordered = {name: sorted((one[name] for one in rounds), key=lambda figures: figures["seconds"]) for name in names}
    return {name: figures[(len(figures) - 1) // 2] for name, figures in ordered.items()}


def measure_size(
    size: str, peers: Sequence[Peer], arguments: argparse.Namespace, server: stores.Server | None
) -> dict[str, Any]:
    """The figures of each system at one size; the systems take turns in each round."""
    rows = rows_of(size, arguments.workspace)
    rounds: dict[str, list[dict[str, dict[str, Any]]]] = {peer.name: [] for peer in peers}
    failures: dict[str, str] = {}
    for _ in range(arguments.rounds):
        for peer in peers:
            if peer.name not in failures:
                try:
                    with bout_of(peer, server, arguments.limit_s) as bout:
                        rounds[peer.name].append(measure(bout, rows))
                except RuntimeError as error:
                    failures[peer.name] = str(error)
                    say(str(error))
    found: dict[str, Any] = {}
    for peer in peers:
        measured = {} if peer.name in failures else median_round(rounds[peer.name])
        not_measured = dict(NOT_MEASURED.get(peer.name, {}))
        if peer.name in failures:
            not_measured["cold"] = f"not measured: {failures[peer.name]}"
        found[peer.name] = {"title": peer.title, **measured, "not_measured": not_measured}
    return found


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def qdrant_name(server: stores.Server | None) -> str:
    """The Qdrant that the figures are of, as the table says it."""
    if server is not None:
        return f"a server of version {server.version()}"
    return f"the embedded engine (qdrant-edge-py {metadata.version('qdrant-edge-py')}), over HTTP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [peer.name for peer in PEERS]
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="numbers of short rows, or `workspace`")
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=1, help="the systems take turns; medians are reported")
    parser.add_argument("--workspace", type=Path, default=WORKSPACE, help="entities, JSON lines, gzipped")
    parser.add_argument("--limit-s", type=float, default=1800, help="seconds after which a run is given up")
    parser.add_argument("--idle", action="store_true", help="the machine does nothing else: the tables show seconds")
    parser.add_argument("--markdown", action="store_true", help="print the tables after the JSON line")
    parser.add_argument("--page", type=Path, help="write the tables into this page, between its marks")
    arguments = parser.parse_args()
    server = stores.named_server()
    if server is not None and (names := server.collections()):
        raise SystemExit(
            f"the Qdrant at {server.url} holds the collections {', '.join(names)}: set QDRANT_URL to an empty one, "
            "because the benchmark deletes all collections that are there"
        )
    peers = [peer for peer in PEERS if peer.name in arguments.peers]
    for peer in peers:
        interpreter(peer)
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python benchmarks/side_by_side.py " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "idle": arguments.idle,
        "qdrant": qdrant_name(server),
        "versions": {peer.title: peer.version for peer in peers},
        "sizes": {size: measure_size(size, peers, arguments, server) for size in arguments.sizes},
    }
    print(json.dumps(found))
    if arguments.markdown:
        print(markdown(found))
    if arguments.page:
        arguments.page.write_text(in_page(arguments.page.read_text(), markdown(found)))


if __name__ == "__main__":
    main()
