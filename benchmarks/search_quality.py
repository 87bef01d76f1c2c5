"""Search quality: how often a search by meaning, by words and by both finds the entity that a question is made of.

Questions of four kinds are made by rule from a workspace; see `search_questions.py`. Half of each kind are for choosing
weights (`--tune` prints a line for each pair of weights), and the figures are of the other half. `hit_1` and `hit_5`:
share of questions with an answer among the first one or five results; `mrr`: mean of one over the rank of the first
answer among 20. `p50_ms` and `p95_ms` are of one search in a process that has searched before.
`sync_seconds`: the full sync before the questions, after which all is linked; `words_seconds`: to cut the words of all
entities, a part of linking.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from harness import WORKSPACE, bench, load_entities, read_workspace, report, say
from search_questions import KINDS, questions

from mcp_assets.entities.words import words_of
from mcp_assets.platform import Platform
from mcp_assets.quality import RESULTS, Question, SearchFigures, rank_of, search_figures
from mcp_assets.sync.index.full_sync import full_sync
from mcp_assets.sync.link.linker import link_until_done
from mcp_assets.sync.search.search import By, search

_WEIGHTS = (0.5, 1.0, 2.0, 3.0, 5.0)


def ranks(platform: Platform, asked: Sequence[Question], by: By) -> tuple[list[int | None], list[float]]:
    """For each question, the rank of the first answer, and the seconds that the search took."""
    found, seconds = [], []
    for question in asked:
        began = time.perf_counter()
        results = search(platform, question.text, limit=RESULTS, by=by).results
        seconds.append(time.perf_counter() - began)
        found.append(rank_of((one.ref for one in results), question.answers))
    return found, seconds


def by_kind(asked: Sequence[Question], found: Sequence[int | None]) -> dict[str, SearchFigures]:
    return {
        kind: search_figures([rank for question, rank in zip(asked, found, strict=True) if question.kind == kind])
        for kind in KINDS
        if any(question.kind == kind for question in asked)
    }


def measure(platform: Platform, asked: Sequence[Question]) -> dict[str, Any]:
    measured: dict[str, Any] = {}
    for by in get_args(By):
        say(f"{len(asked)} questions by {by}")
        ranks(platform, asked[:20], by)
        found, seconds = ranks(platform, asked, by)
        cuts = statistics.quantiles([1000 * one for one in seconds], n=20)
        measured[by] = {
            "kinds": {kind: asdict(one) for kind, one in by_kind(asked, found).items()},
            "p50_ms": round(statistics.median(seconds) * 1000, 1),
            "p95_ms": round(cuts[-1], 1),
        }
    return measured


def tune(platform: Platform, asked: Sequence[Question]) -> None:
    """Print the mean reciprocal rank of each kind for each weight of words, with a weight of meaning of 1."""
    for weight in _WEIGHTS:
        settings = platform.settings.model_copy(update={"search_words_weight": weight})
        with closing(Platform(settings)) as other:
            kinds = by_kind(asked, ranks(other, asked, "both")[0])
        say(f"weight {weight}: " + ", ".join(f"{kind} {one.mrr:.3f}" for kind, one in kinds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=WORKSPACE, help="gzipped JSON lines of entities")
    parser.add_argument("--of-each", type=int, default=400, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true", help="try weights on the half that no figure is from")
    arguments = parser.parse_args()
    entities, asked = questions(list(read_workspace(arguments.file)), of_each=arguments.of_each, seed=arguments.seed)
    # By turns, so that both halves have equally many of each kind.
    ordered = sorted(asked, key=lambda one: one.kind)
    with bench() as stack:
        load_entities(stack, entities)
        with closing(Platform(stack.settings())) as platform:
            say(f"index {len(entities):,} entities")
            began = time.perf_counter()
            for entity_type in platform.settings.entity_types:
                for _ in full_sync(platform, entity_type, range(platform.settings.shards)):
                    pass
            sync_seconds = time.perf_counter() - began
            # The linker cuts the words that a full sync leaves to it.
            for _ in link_until_done(platform):
                pass
            stack.settle()
            if arguments.tune:
                tune(platform, ordered[::2])
            measured = measure(platform, ordered[1::2])
    began = time.perf_counter()
    for one in entities:
        words_of(one.entity_id, one.title, one.content)
    report(
        entities=len(entities),
        questions={kind: sum(one.kind == kind for one in ordered[1::2]) for kind in KINDS},
        sync_seconds=round(sync_seconds, 1),
        words_seconds=round(time.perf_counter() - began, 1),
        **measured,
    )


if __name__ == "__main__":
    main()
