"""Neighbours found in blocks make the edges that asking Qdrant makes, at ties and at borders of scores too."""

import logging
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.embedding.profiles import profile_for
from mcp_assets.embedding.protocol import EmbeddingOutcome, Vector
from mcp_assets.entities.points import point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.graph import LIST_LENGTH, EdgeType
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.edge_census import EdgeRules
from mcp_assets.sync.link.blocked_lists import BlockedLists
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.link.marks import mark_shards, pending_links
from mcp_assets.sync.link.semantic_neighbours import SemanticNeighbours
from mcp_assets.tuning import LinkTuning, Tuning
from mcp_assets_tests.killing import killed_at, moments
from mcp_assets_tests.linking import TYPES, AngleEmbedder, Graph, forget_links, graph, index, relink, write_source
from mcp_assets_tests.observing import put_tasks, sync_all

DIMENSION = 64
THRESHOLD = 0.7

IN_BLOCKS = LinkTuning(rebuild_from=4, lists_at_once=40, ask_query_s=1e9)
BY_ASKING = replace(IN_BLOCKS, ask_query_s=0.0, block_start_s=1e9)
CHANGE_BY_CHANGE = replace(BY_ASKING, rebuild_from=100_000)

Vectors = dict[EntityRef, NDArray[np.float64]]


class GivenVectors(AngleEmbedder):
    """Embeds a text, which names an entity, as the vector that is given for it."""

    def __init__(self, vectors: Mapping[EntityRef, NDArray[np.float64]]) -> None:
        super().__init__()
        self.profile = profile_for("given", dimension=DIMENSION, similarity_threshold=THRESHOLD)
        self._vectors = {str(ref): vector.astype(np.float32) for ref, vector in vectors.items()}

    def embed_query(self, text: str) -> Vector:
        return self._vectors[text.split()[0]]

    def _one(self, text: str) -> EmbeddingOutcome:
        return EmbeddingOutcome(self.embed_query(text), None)


class Crafted:
    """Vectors in groups about a centre, with cosines to it as they are asked for."""

    def __init__(self) -> None:
        self.vectors: Vectors = {}
        self._random = np.random.default_rng(7)

    def group(self, cosines: list[float]) -> None:
        centre = self._direction()
        self._add(centre)
        for cosine in cosines:
            aside = self._direction()
            aside -= (aside @ centre) * centre
            self._add(cosine * centre + math.sqrt(1 - cosine**2) * aside / np.linalg.norm(aside))

    def equal(self, count: int) -> None:
        direction = self._direction()
        for _ in range(count):
            self._add(direction)

    def _direction(self) -> NDArray[np.float64]:
        found = self._random.standard_normal(DIMENSION)
        return found / np.linalg.norm(found)

    def _add(self, vector: NDArray[np.float64]) -> None:
        number = len(self.vectors)
        entity_type = ("task", "page", "memory")[number % 3]
        self.vectors[EntityRef(entity_type, f"{number:03}")] = vector


@pytest.fixture
def crafted() -> Vectors:
    made = Crafted()
    # More copies than a search for a list returns, in one collection too.
    made.equal(90)
    # Borders of scores, missed by less than what engines differ by.
    for group in range(12):
        made.group([0.85005 + 0.001 * group + 0.0001 * step + offset * 1e-8 for step in range(6) for offset in (-1, 1)])
    # The last place of a list, among neighbours that differ in the eighth decimal: they tie, or a border parts them.
    made.group([0.9] * 15 + [0.8 + step * 1e-8 for step in range(15)])
    made.group([0.9] * 15 + [0.80005 + step * 1e-8 for step in range(-7, 8)])
    # The threshold.
    made.group([0.69995 + step * 1e-8 for step in range(-6, 7)])
    return made.vectors


@pytest.fixture
def world(make_platform: Callable[..., Platform], crafted: Vectors) -> Platform:
    """All crafted entities, embedded and not linked."""
    platform = make_platform(embedder=GivenVectors(crafted), tuning=Tuning(link=BY_ASKING), types=TYPES)
    create_source_tables(platform)
    for ref in crafted:
        write_source(platform, ref, str(ref), "")
    index(platform, *crafted)
    return platform


def true_edges(platform: Platform, refs: list[EntityRef]) -> Graph:
    """The lists by comparing each stored vector with each, by exact sums."""
    semantic = SemanticNeighbours(platform)
    by_point = {str(point_id(ref)): ref for ref in refs}
    vectors: dict[EntityRef, NDArray[np.float32]] = {}
    for collection, points in semantic.points_of(refs).items():
        found = platform.qdrant.vectors(collection, points)
        vectors |= {by_point[point]: vector for point, vector in found.items()}
    assert len(vectors) == len(refs)
    edges: Graph = {}
    matrix = np.stack([vectors[ref] for ref in refs]).astype(np.float64)
    for row, ref in enumerate(refs):
        near = [
            (round(math.fsum((matrix[row] * matrix[other]).tolist()), 4), refs[other])
            for other in np.flatnonzero(matrix @ matrix[row] > THRESHOLD - 0.01)
            if other != row
        ]
        listed = sorted((-score, other) for score, other in near if score >= THRESHOLD)[:LIST_LENGTH]
        edges |= {(ref, other, EdgeType.SEMANTIC_SIMILARITY): -score for score, other in listed}  # type: ignore[misc]
    return edges


def semantic_graph(platform: Platform) -> Graph:
    return graph(platform, [EdgeType.SEMANTIC_SIMILARITY])


def test_asking_blocks_changes_and_the_census_agree_with_the_exact_cosines_at_ties_and_borders(
    world: Platform, crafted: Vectors, make_platform: Callable[..., Platform]
) -> None:
    refs = list(crafted)
    truth = true_edges(world, refs)
    assert len(truth) > 3_000

    by_asking = relink(world)
    assert (by_asking.lists_asked, by_asking.lists_in_blocks) == (len(refs), 0)
    assert semantic_graph(world) == truth

    world.tuning = Tuning(link=IN_BLOCKS)
    forget_links(world)
    for name in world.settings.entity_types:
        mark_shards(world, name, range(world.settings.shards), force=True)
    in_blocks = relink(world)
    assert (in_blocks.lists_asked, in_blocks.lists_in_blocks) == (0, len(refs))
    assert semantic_graph(world) == truth

    # Each third entity takes the vector of another one, and then its own again.
    swapped = dict(crafted)
    for one, other in zip(refs[::3], refs[1::3], strict=False):
        swapped[one] = crafted[other]
    for vectors in (swapped, crafted):
        changing = make_platform(embedder=GivenVectors(vectors), tuning=Tuning(link=CHANGE_BY_CHANGE), types=TYPES)
        for ref in refs[::3]:
            write_source(changing, ref, str(ref), "swapped" if vectors is swapped else "")
        index(changing, *refs[::3])
        relink(changing)
        assert semantic_graph(world) == true_edges(world, refs)
    assert semantic_graph(world) == truth
    assert EdgeRules(world).differing(refs) == []


def test_vectors_that_change_while_lists_are_found_in_blocks_are_read_again(
    world: Platform, crafted: Vectors, make_platform: Callable[..., Platform]
) -> None:
    refs = list(crafted)
    world.tuning = Tuning(link=replace(IN_BLOCKS, batches_between_changes=2))
    linking = link_until_done(world)
    while not next(linking).total().lists_in_blocks:
        pass
    swapped = {**crafted, refs[-1]: crafted[refs[0]], refs[0]: crafted[refs[100]]}
    new = EntityRef("task", "new")
    swapped[new] = crafted[refs[100]]
    changing = make_platform(embedder=GivenVectors(swapped), types=TYPES)
    for ref in (refs[-1], refs[0], new):
        write_source(changing, ref, str(ref), "swapped")
    index(changing, refs[-1], refs[0], new)
    left = sum(report.total().lists_in_blocks for report in linking)
    assert left > len(refs) // 2
    assert semantic_graph(world) == true_edges(world, [*refs, new])


def test_without_room_for_the_vectors_qdrant_is_asked_and_a_warning_says_so(
    world: Platform, crafted: Vectors, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BlockedLists, "__init__", full)
    world.tuning = Tuning(link=IN_BLOCKS)
    with caplog.at_level(logging.WARNING):
        counts = relink(world)
    assert (counts.lists_asked, counts.lists_in_blocks) == (len(crafted), 0)
    assert "set TMPDIR" in caplog.text
    assert semantic_graph(world) == true_edges(world, list(crafted))


def link(platform: Platform) -> None:
    relink(platform)


def test_products_use_one_thread_each_while_vectors_are_in_blocks_and_as_many_as_before_afterwards(
    world: Platform,
) -> None:
    before = blas_threads()
    collections = SemanticNeighbours(world).collections
    # Vectors may be read anew before the old ones are closed.
    old, new = (BlockedLists(world.qdrant, collections, DIMENSION, Event()) for _ in range(2))
    assert blas_threads() == [1] * len(before)
    old.close()
    assert blas_threads() == [1] * len(before)
    for _ in range(2):
        new.close()
        assert blas_threads() == before


def blas_threads() -> list[int]:
    found = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert found
    return found


@pytest.mark.tuning(Tuning(link=replace(IN_BLOCKS, lists_at_once=5)))
def test_a_linker_killed_amid_lists_found_in_blocks_leaves_no_file_and_the_next_ends_with_the_right_edges(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    put_tasks(platform, {f"t{number}": f"gate {number % 7} of wall {number % 5}" for number in range(60)})
    sync_all(platform)
    relink(make_platform(tuning=Tuning(link=BY_ASKING)))
    expected = graph(platform)
    assert expected

    def begin() -> None:
        forget_links(platform)
        mark_shards(platform, "task", range(platform.settings.shards), force=True)

    begin()
    count = moments(platform, link)
    begin()
    assert killed_at(platform, link, count * 3 // 4)
    written = graph(platform)
    assert written
    assert written != expected
    assert pending_links(platform, up_to=1)
    assert not list(Path(tempfile.gettempdir()).glob("mcp-assets-vectors*"))
    assert relink(platform).lists_in_blocks
    assert graph(platform) == expected
