"""Duplicate quality: how many near copies the rule of `possible_duplicate` finds, and how many of its pairs are copies.

Near copies of seven kinds, and texts that only look like copies (tasks of one template, next versions, another text
below the same title), are made by rule from a workspace; see `duplicate_pairs.py`. Each stands among one half of the
workspace, so that all neighbours in it are pairs to tell apart, too. `--tune` prints precision and recall for each pair
of thresholds on one half; the figures are of the other half, with the thresholds of the settings. A pair is found if it
would be an edge in one of its directions. `real`: pairs of the workspace that are duplicates in truth, as a person
judged; they are neither right nor wrong.
"""

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from duplicate_pairs import COPIES, Text, World, real_duplicates, worlds
from harness import WORKSPACE, read_workspace, report, say
from numpy.typing import NDArray

from mcp_assets.embedding.local import LocalEmbedder
from mcp_assets.entities.refs import EntityRef
from mcp_assets.entities.text import prepare
from mcp_assets.graph import LIST_LENGTH, DuplicateRule, Neighbour, near_copies, ranked, rounded, wording_of
from mcp_assets.settings import Settings

Pair = frozenset[str]

_SIMILARITIES = (0.75, 0.8, 0.85, 0.9, 0.95)
_SHARES = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)


@dataclass(frozen=True, slots=True)
class Scored:
    """A pair of near texts: its cosine, and the share of words that both have."""

    pair: Pair
    similarity: float
    words: float


def scored(world: World) -> list[Scored]:
    """The pairs of which one text is in the list of the other, with all that the rule needs."""
    vectors = _vectors(world.texts)
    loosest = DuplicateRule(min(_SIMILARITIES), 0.0001)
    wordings = {}
    found: dict[Pair, Scored] = {}
    refs = [EntityRef("text", text.key) for text in world.texts]
    for start in range(0, len(refs), 500):
        cosines = vectors[start : start + 500] @ vectors.T
        for row, cosine in enumerate(cosines):
            source = start + row
            near = [place for place in np.flatnonzero(cosine >= loosest.similarity - 0.001) if place != source]
            ranking = ranked(
                (Neighbour(refs[place], rounded(min(1.0, float(cosine[place])))) for place in near), LIST_LENGTH
            )
            for place in (source, *near) if ranking else ():
                if refs[place] not in wordings:
                    wordings[refs[place]] = wording_of(world.texts[place].title, world.texts[place].content)
            own = wordings.get(refs[source])
            for copy in near_copies(own, ranking, wordings, loosest) if own else ():
                pair = frozenset((refs[source].id, copy.ref.id))
                found[pair] = Scored(pair, copy.similarity, copy.shared_words)
    return list(found.values())


def _vectors(texts: Sequence[Text]) -> NDArray[np.float32]:
    prepared = [prepare(text.title, text.content, None).text or "-" for text in texts]
    outcomes = LocalEmbedder().embed(prepared).outcomes
    vectors = np.array([outcome.vector for outcome in outcomes], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def found_by(pairs: Sequence[Scored], rule: DuplicateRule) -> set[Pair]:
    return {one.pair for one in pairs if one.similarity >= rule.similarity and one.words >= rule.shared_words}


def figures(world: World, found: set[Pair], real: set[Pair]) -> dict[str, object]:
    judged = found - world.unjudged - real
    right = judged & world.copies.keys()
    kinds = {text.key: text.kind for text in world.texts}
    false = Counter("/".join(sorted(kinds[key] for key in pair)) for pair in judged - right)
    return {
        "precision": len(right) / max(1, len(judged)),
        "recall": len(right) / len(world.copies),
        "recall_by_kind": _recalls(world.copies, right),
        "false": dict(false),
        "real": len(found & real),
    }


def _recalls(copies: Mapping[Pair, str], right: set[Pair]) -> dict[str, float]:
    of_kind = Counter(copies.values())
    hits = Counter(copies[pair] for pair in right)
    return {kind: round(hits[kind] / of_kind[kind], 3) for kind in COPIES}


def tune(world: World, real: set[Pair]) -> None:
    """Print a line for each pair of thresholds."""
    pairs = scored(world)
    for similarity in _SIMILARITIES:
        for share in _SHARES:
            got = figures(world, found_by(pairs, DuplicateRule(similarity, share)), real)
            say(f"cosine {similarity}, words {share}: precision {got['precision']:.3f}, recall {got['recall']:.3f}")


def show_false(world: World, found: set[Pair]) -> None:
    """Print the pairs that count as false ones."""
    titles = {text.key: text.title for text in world.texts}
    for pair in sorted(found - world.copies.keys() - world.unjudged, key=sorted):
        say(" | ".join(f"{key} {titles[key]!r}" for key in sorted(pair)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    parser.add_argument("--of-each", type=int, default=60, help="copies of each kind in each half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="try thresholds on the half that no figure is from")
    parser.add_argument("--show", action="store_true", help="print the found pairs that count as false")
    arguments = parser.parse_args()
    entities = list(read_workspace(arguments.file))
    texts = [Text(f"{one.entity_type}:{one.entity_id}", one.title or "", one.content) for one in entities]
    chosen_on, measured_on = worlds(texts, of_each=arguments.of_each, seed=arguments.seed)
    real = real_duplicates(texts)
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    rule = DuplicateRule(settings.duplicate_similarity, settings.duplicate_shared_words)
    if arguments.tune:
        tune(chosen_on, real)
    began = time.perf_counter()
    pairs = scored(measured_on)
    seconds = time.perf_counter() - began
    found = found_by(pairs, rule)
    if arguments.show:
        show_false(measured_on, found - real)
    report(
        texts=len(measured_on.texts),
        copies=len(measured_on.copies),
        similarity=rule.similarity,
        shared_words=rule.shared_words,
        **figures(measured_on, found, real),
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
