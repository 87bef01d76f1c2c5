"""Linking devices: what each device of the linker that reserves queries or reading earns, with it and without it.

A workspace of real paragraphs, embedded in 64 dimensions, is linked once. Then, in each round of each kind of update,
the same marks are linked from the same state: with all devices, and without one device at a time. The state is a copy
of the database, and Qdrant does not change while marks are linked. The kinds of update:

- `texts`: each hundredth entity gets the text of another one beside its own;
- `deletions`: each hundredth entity is deleted;
- `many`: each third entity gets the text of another one beside its own, so that all lists are rebuilt.

A device is switched off here, by a patch in the process that links; the product has no switch for it:

- cut-offs: a changed entity that is similar enough to be in a list is compared with this list, which is read for it;
- reserves: a list that loses a member is asked for again;
- prefetch: Qdrant is asked for a batch of lists when it is the batch's turn, and the linker waits;
- rebuild: each change is compared with the lists of others, however many have changed.

For each kind and device the report has medians over the rounds: `seconds`; `list_queries`, the entities whose list
Qdrant was asked for; `reach_queries`, the entities that Qdrant was asked for all neighbours of; `lists_read` and
`lists_written`, in PostgreSQL. `ratio`: seconds without the device over seconds with it. `edges_equal`: in each round
every variant made the same edges.
"""

import argparse
import hashlib
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any, ParamSpec, TypeVar

import psycopg
from harness import WORKSPACE, Bench, bench, load_entities, peak_rss_mb, read_workspace, report, say
from psycopg import sql
from pydantic import SecretStr

from mcp_assets.cli.load_entities import Line
from mcp_assets.embedding.local import LocalEmbedder
from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import EmbeddingOutcome, EmbeddingResult, Vector
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import LIST_LENGTH, ranking
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets.stores.qdrant_search import QdrantSearches
from mcp_assets.sync.collections.serving import serving_profile
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link import changes, linker, semantic_neighbours, stored_lists
from mcp_assets.sync.link.counts import LinkCounts
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.prefetch import Prefetch
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.sync.link.settling import Answers
from mcp_assets.sync.link.stored_lists import StoredLists
from mcp_assets.tuning import LinkTuning

P = ParamSpec("P")
T = TypeVar("T")

ENTITY_TYPE = "memory"
DIMENSION = 64

THRESHOLD = 0.6
"""At 64 dimensions of this model most entities then have full lists, and some hundreds of neighbours beyond them. The
whole texts of the real workspace, at 256 dimensions and the model's own threshold, have more of both."""

_SHORTEST_PARAGRAPH = 80

_TAGS_EACH = 3
_TAG_HOLDERS = range(20, 400)
"""Paragraphs that have a word, if it may be a tag."""


class ShortVectors:
    """The local model, its vectors cut to DIMENSION: exact searches then leave time to measure everything else."""

    concurrency = LocalEmbedder.concurrency

    def __init__(self) -> None:
        self.profile = ModelProfile("wordllama-64", DIMENSION, "Cosine", THRESHOLD, 1_000_000, 4096, 1_000_000_000)
        self._model = LocalEmbedder()

    def embed(
        self, texts: Sequence[str], *, stopping: Event | None = None, background: bool = False
    ) -> EmbeddingResult:
        whole = self._model.embed(texts, stopping=stopping, background=background)
        return replace(whole, outcomes=[_cut(outcome) for outcome in whole.outcomes])

    def embed_query(self, text: str) -> Vector:
        return self._model.embed_query(text)[:DIMENSION]

    def stop(self) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


def _cut(outcome: EmbeddingOutcome) -> EmbeddingOutcome:
    return outcome if outcome.vector is None else replace(outcome, vector=outcome.vector[:DIMENSION])


def paragraphs(file: Path, wanted: int) -> list[Line]:
    """`wanted` entities: each paragraph of the workspace, then each two, three and more that follow one another.

    The tags of an entity are the rarest words of its text that some other entities have, too.
    """
    documents = [
        [part for part in line.content.split("\n\n") if len(part) >= _SHORTEST_PARAGRAPH]
        for line in read_workspace(file)
    ]
    texts: dict[str, None] = {}
    for together in range(1, max(map(len, documents)) + 1):
        for parts in documents:
            for start in range(len(parts) - together + 1):
                texts.setdefault("\n\n".join(parts[start : start + together]))
        if len(texts) >= wanted:
            break
    # Not in the order of the documents, so that a part of the entities has all kinds of text.
    chosen = sorted(list(texts)[:wanted], key=hash_of)
    assert len(chosen) == wanted, f"the workspace gives {len(chosen)} texts"
    words = [sorted({word for word in text.lower().split() if word.isalpha() and len(word) > 3}) for text in chosen]
    holders = Counter(word for some in words for word in some)
    made = []
    for number, (text, some) in enumerate(zip(chosen, words, strict=True)):
        tags = sorted((word for word in some if holders[word] in _TAG_HOLDERS), key=lambda word: (holders[word], word))
        made.append(Line(ENTITY_TYPE, f"m-{number:06}", None, text, {"tags": tags[:_TAGS_EACH]}, None, None))
    return made


def hash_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def with_other_texts(entities: Sequence[Line], numbers: Iterable[int]) -> list[Line]:
    return [
        replace(entities[number], content=f"{entities[number].content}\n\n{_other(entities, number).content}")
        for number in numbers
    ]


def _other(entities: Sequence[Line], number: int) -> Line:
    return entities[(number + len(entities) // 2) % len(entities)]


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a process that has loaded this module and nothing else, because Dagster takes long to load."""
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        return pool.apply(function, args, kwargs)


def index(settings: Settings) -> None:
    """A full sync, without links."""
    with closing(Platform(settings, embedder=ShortVectors())) as platform:
        for _ in full_sync(platform, ENTITY_TYPE, range(settings.shards)):
            pass


# How each device is switched off, in the process that links.


def _without_cut_offs() -> None:
    resolve = SemanticNeighbours._resolve

    def resolve_only(*args: Any) -> Mapping[str, tuple[EntityRef, float | None]]:
        return {point: (ref, None) for point, (ref, _) in resolve(*args).items()}

    SemanticNeighbours._resolve = resolve_only  # type: ignore[assignment]


def _without_reserves() -> None:
    for module in (ranking, stored_lists, semantic_neighbours):
        module.LIST_AND_RESERVES = LIST_LENGTH  # type: ignore[attr-defined]


class _AnswerWhenRead(Future[Answers]):
    """Asks Qdrant when its result is read."""

    def __init__(self, ask: Callable[[], Answers]) -> None:
        super().__init__()
        self._asking = ask

    def result(self, timeout: float | None = None) -> Answers:  # noqa: ARG002
        return self._asking()


class _InTurn(Prefetch):
    def ask_early(self, refs: Collection[EntityRef]) -> None:
        pass

    def _submit(self, points: Mapping[EntityRef, str]) -> Iterator[tuple[Mapping[EntityRef, str], Future[Answers]]]:
        for part in self._semantic.requests(points):
            yield part, _AnswerWhenRead(partial(self._answer, part, self._blocks))


def _without_prefetch() -> None:
    linker.Prefetch = _InTurn  # type: ignore[misc]


def _without_rebuild() -> None:
    linker._Linker._begin_rebuild_if_cheaper = lambda *_: False  # type: ignore[method-assign]


ALL = "all"
SWITCH_OFF: dict[str, Callable[[], None]] = {
    ALL: lambda: None,
    "cut-offs": _without_cut_offs,
    "reserves": _without_reserves,
    "prefetch": _without_prefetch,
    "rebuild": _without_rebuild,
}

STATE_WITHOUT = {
    # The lists as a linker without reserves writes them: all others score no higher than the last of a full list.
    "reserves": """
        UPDATE mcp_assets.linked SET semantic_cut_off = round(last.strength::numeric, 4)
        FROM mcp_assets.reserves, LATERAL (
            SELECT min(strength) AS strength FROM relationships
            WHERE source_type = reserves.entity_type AND source_id = reserves.entity_id
              AND relationship_type = 'semantic_similarity' AND origin = 'mcp_assets'
        ) AS last
        WHERE linked.entity_type = reserves.entity_type AND linked.entity_id = reserves.entity_id
          AND reserves.neighbours <> '[]';
        UPDATE mcp_assets.reserves SET neighbours = '[]' WHERE neighbours <> '[]';
        VACUUM ANALYZE mcp_assets.linked;
        VACUUM ANALYZE mcp_assets.reserves
    """
}


@dataclass(frozen=True)
class Linked:
    """One run that links all marks."""

    seconds: float
    counts: Mapping[str, int]
    peak_rss_mb: float
    edges: object = None


def count_work() -> Counter[str]:
    """Count, from here on, what the linker asks, reads and writes."""
    counts: Counter[str] = Counter(list_queries=0, reach_queries=0, lists_read=0, lists_written=0)
    nearest, read, write = QdrantSearches.nearest, StoredLists._read, stored_lists.write_cut_offs_and_reserves

    def counted_nearest(self: QdrantSearches, collection: str, queries: Sequence[Any], **how: Any) -> Any:
        counts["list_queries" if how["limit"] == LinkTuning().list_hits else "reach_queries"] += len(queries)
        return nearest(self, collection, queries, **how)

    def counted_read(self: StoredLists, sources: Collection[EntityRef], **how: Any) -> None:
        known = len(self._cut_offs)
        read(self, sources, **how)
        counts["lists_read"] += len(self._cut_offs) - known

    def counted_write(platform: Platform, connection: Any, *lists: Mapping[EntityRef, Any]) -> None:
        counts["lists_written"] += sum(map(len, lists))
        write(platform, connection, *lists)

    QdrantSearches.nearest = counted_nearest  # type: ignore[method-assign]
    StoredLists._read = counted_read  # type: ignore[method-assign]
    for module in (changes, linker):
        module.write_cut_offs_and_reserves = counted_write  # type: ignore[attr-defined]
    return counts


def link_all(settings: Settings, without: str) -> Linked:
    """Link all marks without one device; connecting to the stores does not count."""
    SWITCH_OFF[without]()
    counts = count_work()
    with closing(Platform(settings, embedder=ShortVectors())) as platform:
        serving_profile(platform)
        began = time.perf_counter()
        total = LinkCounts()
        for linked in link_until_done(platform):
            total.add(linked.total())
        seconds = time.perf_counter() - began
    say(f"    added {total.added.total()}, changed {total.changed.total()}, removed {total.removed.total()}")
    return Linked(seconds, dict(counts), peak_rss_mb())


class Copies:
    """Copies of the stack's database, each of which is linked once."""

    def __init__(self, stack: Bench) -> None:
        self._stack = stack
        self._url = psycopg.conninfo.conninfo_to_dict(stack.database_url)
        self._name = str(self._url["dbname"])

    def settings(self, database: str) -> Settings:
        url = self._stack.database_url
        assert url.count(f"/{self._name}?") == 1, url
        changed = SecretStr(url.replace(f"/{self._name}?", f"/{database}?"))
        return self._stack.settings().model_copy(update={"database_url": changed})

    def make(self, database: str) -> None:
        self.drop(database)
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", database, self._name)
        # Otherwise the copy is refused, because it is not the database that works with this Qdrant.
        self.query(database, "DELETE FROM mcp_assets.store_marks WHERE store = 'postgres'")

    def drop(self, database: str) -> None:
        self._run("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    def become(self, database: str) -> None:
        """From here on `database` is the stack's own."""
        self.drop(self._name)
        self._run("ALTER DATABASE {} RENAME TO {}", database, self._name)

    def query(self, database: str, statements: str) -> list[tuple[Any, ...]]:
        url = psycopg.conninfo.make_conninfo(**{**self._url, "dbname": database})
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements.split(";"):
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, statement: str, *databases: str) -> None:
        composed = sql.SQL(statement).format(*map(sql.Identifier, databases))  # type: ignore[arg-type]
        with psycopg.connect(**{**self._url, "dbname": "template1"}, autocommit=True) as connection:
            connection.execute(composed)


_EDGES = """
SELECT count(*), sum(hashtextextended(concat_ws(' ', source_type, source_id, target_type, target_id,
                                                relationship_type, round(strength::numeric, 4), metadata), 0)::numeric)
FROM relationships
"""


def link_variant(copies: Copies, without: str) -> Linked:
    """Link a copy of the database without one device. The copy stays, as the database `without_<device>`."""
    database = f"without_{without}"
    copies.make(database)
    if without in STATE_WITHOUT:
        copies.query(database, STATE_WITHOUT[without])
    copies.query(database, "CHECKPOINT")
    linked: Linked = in_own_process(link_all, copies.settings(database), without)
    [edges] = copies.query(database, _EDGES)
    say(f"  without {without}: {linked.seconds:.1f} s, {linked.counts}, {linked.peak_rss_mb:.0f} MB, edges {edges}")
    if without != ALL:
        copies.drop(database)
    return replace(linked, edges=edges)


@dataclass(frozen=True)
class Kind:
    """A kind of update, and what came of it so far."""

    devices: Sequence[str]
    updates: Sequence[Callable[[], None]]
    """One a round, each of other entities."""
    runs: dict[str, list[Linked]]
    """The runs of each variant, one a round."""

    def measure(self, stack: Bench, copies: Copies, number: int) -> None:
        """One round: all variants link the same marks, from the same state."""
        self.updates[number]()
        in_own_process(index, stack.settings())
        stack.settle()
        variants = [ALL, *self.devices]
        for variant in variants if number % 2 == 0 else reversed(variants):
            self.runs.setdefault(variant, []).append(link_variant(copies, variant))
        copies.become(f"without_{ALL}")
        stack.settle()

    @property
    def edges_equal(self) -> bool:
        return all(len({one.edges for one in of_round}) == 1 for of_round in zip(*self.runs.values(), strict=True))

    def report(self) -> dict[str, Any]:
        figures = {variant: self._medians(variant) for variant in self.runs}
        with_all = figures.pop(ALL)
        for one in figures.values():
            one["ratio"] = round(one["seconds"] / with_all["seconds"], 2)
        return {"with": with_all, "without": figures, "edges_equal": self.edges_equal}

    def _medians(self, variant: str) -> dict[str, float]:
        runs = self.runs[variant]
        return {
            "seconds": round(median(one.seconds for one in runs), 2),
            **{name: median(one.counts[name] for one in runs) for name in runs[0].counts},
            "peak_rss_mb": round(max(one.peak_rss_mb for one in runs)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many-rounds", type=int, default=1, help="rounds of the update of each third entity")
    parser.add_argument("--kinds", nargs="+", default=["texts", "deletions", "many"])
    arguments = parser.parse_args()
    entities = paragraphs(arguments.file, arguments.entities)
    all_numbers = range(len(entities))
    with bench() as stack:
        load_entities(stack, entities)
        in_own_process(index, stack.settings())
        stack.settle()
        say("link everything")
        first: Linked = in_own_process(link_all, stack.settings(), ALL)
        stack.settle()
        say(f"linked {len(entities)} entities in {first.seconds:.0f} s")
        copies = Copies(stack)

        def load(lines: list[Line]) -> None:
            load_entities(stack, lines)

        def delete(lines: list[Line]) -> None:
            stack.query("DELETE FROM memory_nodes WHERE id = ANY(%s)", [line.entity_id for line in lines])

        def updates(
            act: Callable[[list[Line]], None],
            lines: Callable[[Sequence[Line], Iterable[int]], list[Line]],
            rounds: int,
            first: int,
            each: int = 100,
        ) -> list[Callable[[], None]]:
            """One update a round, each of other entities."""
            return [partial(act, lines(entities, all_numbers[first + one :: each])) for one in range(rounds)]

        rounds, many = arguments.rounds, arguments.many_rounds
        kinds = {
            "texts": Kind(("cut-offs", "reserves", "prefetch"), updates(load, with_other_texts, rounds, 0), {}),
            "deletions": Kind(("reserves", "prefetch"), updates(delete, with_other_texts, rounds, 40), {}),
            "many": Kind(("rebuild", "prefetch"), updates(load, with_other_texts, many, 5, 3), {}),
        }
        kinds = {name: kinds[name] for name in arguments.kinds}
        for number in range(max(rounds, many)):
            for name, kind in kinds.items():
                if number < len(kind.updates):
                    say(name)
                    kind.measure(stack, copies, number)
                    say(f"{kind.report()}")
    report(
        entities=len(entities),
        edges_equal=all(kind.edges_equal for kind in kinds.values()),
        link_all_s=first.seconds,
        **{name: kind.report() for name, kind in kinds.items()},
    )


if __name__ == "__main__":
    main()
