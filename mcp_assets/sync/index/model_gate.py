"""Model gate: before the aliases move, the model that serves and the new one answer the same questions.

Questions are those of the golden file; where it has too few, further ones are made from the data: the title of an
entity asks for that entity, and the point of an entity asks for those to which a text or its metadata links it. Both
are answered by meaning alone, because the words of an entity do not depend on the model.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.embedding.protocol import Embedder, EmbedderUnavailable, TextRefused
from mcp_assets.entities.points import Key, point_id
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import NO_TEXT_HASH
from mcp_assets.graph import REFERENCE_TYPES
from mcp_assets.platform import Platform
from mcp_assets.quality import (
    RESULTS,
    Compared,
    GoldenFileError,
    Question,
    SideFigures,
    most_changed,
    read_golden,
    sampled,
    side_figures,
)
from mcp_assets.stores.edge_samples import ends_of, sampled_pairs
from mcp_assets.stores.errors import PointsMissing, StoreRefused
from mcp_assets.stores.qdrant_search import QueryPoint
from mcp_assets.sync.collections.gates import Measurement, current_gate, record_measurement
from mcp_assets.sync.collections.journal import Change, types_of_alias
from mcp_assets.sync.collections.model_change import finish_model_change
from mcp_assets.sync.collections.serving import how_to_keep, serving_collections
from mcp_assets.sync.index.embedding_costs import EmbeddingCosts
from mcp_assets.sync.resolve_ids import living_among, pages

QUESTIONS = 200
"""Questions that both models answer: of so many, a difference of some hundredths says something. Each is embedded by
both models, some ten tokens."""

LEAST_QUESTIONS = 50
"""With fewer, the figures would say more of chance than of the models, and nothing is measured."""

SAMPLES = 10
"""Questions that a person is shown, with the first results of both models."""

_RESULTS_SHOWN = 3

_CHARACTERS_SHOWN = 120
"""Of a question and of a title that are kept as a sample."""

_BEARERS = 5
"""Entities that may bear a title that is asked: more of them, such as those named Notes, are not told apart by it."""

_ASKED_AT_ONCE = 8
"""Questions in flight: an embedder takes some requests at once, and Qdrant as many searches."""

_POINTS_AT_ONCE = 50
"""Points whose neighbours one request asks for: an embedded Qdrant answers no one else meanwhile."""

_TRIES = 3
"""How often points are looked up and asked for, while events delete some of them between the two."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two models: by entity type, the physical collection with its vectors, and its embedder."""

    collections: Mapping[str, tuple[str, Embedder]]

    @property
    def profile(self) -> ModelProfile:
        return next(iter(self.collections.values()))[1].profile


def finish_gated_model_change(platform: Platform, since: datetime) -> str | None:
    """As `finish_model_change`; both models are measured first, if that is not done yet."""
    return finish_model_change(platform, since, partial(measure_if_needed, platform))


def measure_if_needed(platform: Platform, building: Sequence[Change]) -> None:
    """Measure both models for the gate of `building`, unless it is done, or a person has decided already.

    It is done again if the golden file has changed, or if it could not be done.

    Raises:
        StoreUnavailable, StoreRefused.
    """
    golden = _golden_key(platform)
    with platform.postgres.transaction() as connection:
        gate = current_gate(platform, connection)
    if gate is not None and all(gate.is_of(change.model, change.dimension) for change in building):
        measured = gate.outcome in ("measured", "not_measured") and gate.golden == golden
        if measured or gate.decision is not None:
            return
    try:
        found = _measure(platform, building)
    except (EmbedderUnavailable, GoldenFileError, PointsMissing) as error:
        found = Measurement("failed", str(error))
    with platform.postgres.transaction() as connection:
        record_measurement(platform, connection, building[0], found, golden)


def _golden_key(platform: Platform) -> str:
    """A key of the golden file's content; empty: there is none, or it cannot be read, which reading it reports."""
    path = platform.settings.golden_file
    try:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path is not None else ""
    except OSError:
        return ""


def _measure(platform: Platform, building: Sequence[Change]) -> Measurement:
    sides = _sides(platform, building)
    if isinstance(sides, str):
        return Measurement("not_measured", sides)
    old, new = sides
    texts, linked = _questions(platform, old)
    links = _linked_questions(platform, old, new, linked)
    if len(texts) + len(links) < LEAST_QUESTIONS:
        return Measurement(
            "not_measured",
            f"there are {len(texts) + len(links)} questions, and fewer than {LEAST_QUESTIONS} say nothing",
        )
    compared = [*_compared_texts(platform, old, new, texts), *links]
    if len(compared) < LEAST_QUESTIONS:
        return Measurement("not_measured", f"the models take {len(compared)} questions, fewer than {LEAST_QUESTIONS}")
    figures = side_figures(compared)
    return Measurement(
        "measured",
        figures={
            name: {"model": side.profile.name, "dimension": side.profile.dimension, **_as_json(of_side)}
            for name, side, of_side in zip(("old", "new"), sides, figures, strict=True)
        },
        samples=_samples(platform, compared),
    )


def _as_json(figures: SideFigures) -> dict[str, object]:
    return {**asdict(figures.all), "kinds": {kind: asdict(one) for kind, one in figures.kinds.items()}}


def _sides(platform: Platform, building: Sequence[Change]) -> tuple[_Side, _Side] | str:
    """Both models over the entity types that both have collections of; or why there is nothing to compare."""
    served = serving_collections(platform)
    old: dict[str, tuple[str, Embedder]] = {}
    new: dict[str, tuple[str, Embedder]] = {}
    for change in building:
        target = served.get(change.alias)
        if target is None or target.collection.name != change.old:
            # There was none, or one of another program.
            continue
        if target.embedder is None:
            return (
                f"the model that serves, {target.profile.name}, is not configured, so that no question can be put to "
                f"it: {how_to_keep(target.profile)} to have it compared"
            )
        for entity_type in types_of_alias(platform, change.alias):
            old[entity_type] = target.collection.name, target.embedder
            new[entity_type] = change.new, platform.embedder
    return (_Side(old), _Side(new)) if old else "no collection of this platform served before"


@dataclass(frozen=True, slots=True)
class _Title:
    """A title, and the entities that bear it."""

    title: str
    types: list[str]
    ids: list[str]

    @property
    def question(self) -> Question:
        return Question("title", self.title, frozenset(map(EntityRef, self.types, self.ids)))


def _questions(platform: Platform, side: _Side) -> tuple[list[Question], dict[EntityRef, frozenset[EntityRef]]]:
    """Questions in words; and entities whose points are to find those to which they are linked explicitly."""
    path = platform.settings.golden_file
    golden = read_golden(path, platform.type_names.canonical) if path is not None else []
    living = living_among(platform, {ref for one in golden for ref in one.answers if ref.type in side.collections})
    texts = sampled([one for one in golden if not living.isdisjoint(one.answers)], QUESTIONS)
    if len(texts) >= LEAST_QUESTIONS:
        return texts, {}
    types = list(side.collections)
    linked = _linked(platform, side)
    with platform.postgres.transaction() as connection:
        parameters = {
            "types": types,
            "no_text": NO_TEXT_HASH,
            "bearers": _BEARERS,
            "limit": QUESTIONS - len(texts) - len(linked),
        }
        titles = platform.postgres.rows(connection, "titles_to_ask", _Title, parameters)
    return [*texts, *(one.question for one in titles)], linked


def _linked(platform: Platform, side: _Side) -> dict[EntityRef, frozenset[EntityRef]]:
    """Some entities of the side with all those to which they are linked explicitly."""
    table = platform.relationships
    linked: dict[EntityRef, set[EntityRef]] = defaultdict(set)
    with platform.postgres.transaction() as connection:
        try:
            table.require_columns(connection, platform.postgres.relationships_fault)
        except StoreRefused:
            # Everything else goes on without edges.
            return {}
        pairs = sampled_pairs(table, connection, REFERENCE_TYPES, QUESTIONS // 2)
        sources = sorted({one for one, other in pairs if {one.type, other.type} <= side.collections.keys()})
        for edge in ends_of(table, connection, sources, leaving=(), touching=REFERENCE_TYPES):
            linked[edge.ref].add(edge.other)
    return {ref: frozenset(others) for ref, others in linked.items()}


def _compared_texts(platform: Platform, old: _Side, new: _Side, questions: Sequence[Question]) -> list[Compared]:
    """The questions in words, each with what both sides found; without those that a model refuses to embed."""

    def ask(question: Question) -> Compared | None:
        try:
            return Compared(question, *(_nearest_to_text(platform, side, question) for side in (old, new)))
        except TextRefused:
            return None

    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="gate") as pool:
        compared = [one for one in pool.map(ask, questions) if one is not None]
    platform.companion(EmbeddingCosts).write()
    return compared


def _nearest_to_text(platform: Platform, side: _Side, question: Question) -> list[EntityRef]:
    """The entities nearest to the question, over all types."""
    found: list[tuple[float, EntityRef]] = []
    embedders = {id(embedder): embedder for _, embedder in side.collections.values()}
    vectors = {key: embedder.embed_query(question.text) for key, embedder in embedders.items()}
    costs = platform.companion(EmbeddingCosts)
    for embedder in embedders.values():
        costs.add(min(question.answers).type, embedder.profile, 1, len(question.text.encode()), None)
    for entity_type, (collection, embedder) in side.collections.items():
        hits = platform.qdrant.search(collection, vectors[id(embedder)], entity_type=entity_type, limit=RESULTS)
        found += [(hit.score, EntityRef(hit.payload[Key.ENTITY_TYPE], hit.payload[Key.ENTITY_ID])) for hit in hits]
    return [ref for _, ref in sorted(found, key=lambda one: (-one[0], one[1]))][:RESULTS]


def _linked_questions(
    platform: Platform, old: _Side, new: _Side, linked: Mapping[EntityRef, frozenset[EntityRef]]
) -> list[Compared]:
    """What both sides find nearest to the points of entities, which costs no embedding."""
    for left in reversed(range(_TRIES)):
        asked = sorted(_present(platform, old, linked) & _present(platform, new, linked))
        try:
            of_sides = [_nearest_to_points(platform, side, asked) for side in (old, new)]
            break
        except PointsMissing:
            # An event has deleted one of the entities meanwhile.
            if not left:
                raise
    questions = [Question("link", f"what is near to {ref}", linked[ref]) for ref in asked]
    return [Compared(*one) for one in zip(questions, *of_sides, strict=True)]


def _present(platform: Platform, side: _Side, refs: Mapping[EntityRef, object]) -> set[EntityRef]:
    """Those of the entities whose points the side has."""
    found: set[EntityRef] = set()
    for entity_type, (collection, _) in side.collections.items():
        points = {str(point_id(ref)): ref for ref in refs if ref.type == entity_type}
        found |= {points[identifier] for identifier in platform.qdrant.existing(collection, list(points))}
    return found


def _nearest_to_points(platform: Platform, side: _Side, refs: Sequence[EntityRef]) -> list[list[EntityRef]]:
    """For each of the entities, those nearest to its point, over all collections."""
    collections = sorted({collection for collection, _ in side.collections.values()})
    near: list[list[tuple[float, str, str]]] = []
    for page in pages(refs, _POINTS_AT_ONCE):
        queries = [QueryPoint(str(point_id(ref)), side.collections[ref.type][0]) for ref in page]
        hits: list[list[tuple[float, str, str]]] = [[] for _ in page]
        for collection in collections:
            answers = platform.qdrant.nearest(collection, queries, limit=RESULTS, floor=-1.0, exact=False)
            for place, answer in enumerate(answers):
                hits[place] += [(-score, collection, identifier) for identifier, score in answer]
        near += [sorted(one)[:RESULTS] for one in hits]
    refs_of = dict(_refs_of(platform, {(collection, identifier) for one in near for _, collection, identifier in one}))
    return [
        [refs_of[collection, identifier] for _, collection, identifier in one if (collection, identifier) in refs_of]
        for one in near
    ]


def _refs_of(platform: Platform, points: set[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], EntityRef]]:
    """By collection and id of a point, the entity that it is of."""
    of_collection: dict[str, list[str]] = defaultdict(list)
    for collection, identifier in sorted(points):
        of_collection[collection].append(identifier)
    for collection, identifiers in of_collection.items():
        keys = (Key.ENTITY_TYPE, Key.ENTITY_ID)
        for point in platform.qdrant.points(collection, identifiers, keys=keys, vectors=False):
            if Key.ENTITY_ID in point.payload:
                ref = EntityRef(point.payload[Key.ENTITY_TYPE], point.payload[Key.ENTITY_ID])
                yield (collection, point.id), ref


def _samples(platform: Platform, compared: Sequence[Compared]) -> list[dict[str, object]]:
    """The questions whose answers differ most, as JSON: what was expected, and the first results of both sides."""
    chosen = most_changed(compared, SAMPLES)
    shown = {
        ref for one in chosen for ref in (*one.question.answers, *one.old[:_RESULTS_SHOWN], *one.new[:_RESULTS_SHOWN])
    }
    names = {"types": [ref.type for ref in shown], "ids": [ref.id for ref in shown]}
    with platform.postgres.transaction() as connection:
        rows = connection.execute(platform.postgres.query("read_titles"), names).fetchall()
    titles = {EntityRef(row[0], row[1]): row[2] for row in rows}

    def named(refs: Sequence[EntityRef]) -> list[str]:
        return [f"{ref} {(titles.get(ref) or '')[:_CHARACTERS_SHOWN]}".rstrip() for ref in refs[:_RESULTS_SHOWN]]

    return [
        {
            "kind": one.question.kind,
            "question": one.question.text[:_CHARACTERS_SHOWN],
            "expected": named(sorted(one.question.answers)),
            "old_rank": one.old_rank,
            "new_rank": one.new_rank,
            "old": named(one.old),
            "new": named(one.new),
        }
        for one in chosen
    ]
