"""Duplicate pairs: near copies, and texts that only look like copies, made by rule from a workspace."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

_SENTENCE = re.compile(r"(?<=[.!?:])\s+|\n+")

_FEWEST_WORDS = 25
"""Of an original: a shorter one does not outlive a dropped sentence."""

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]

_SYNONYMS = {
    "add": "introduce", "support": "enable", "remove": "drop", "improve": "enhance", "use": "employ", "new": "another",
    "api": "interface", "type": "kind", "module": "package", "list": "enumeration", "file": "document", "test": "check",
    "graduate": "promote", "for": "regarding", "and": "plus", "in": "within", "to": "towards", "of": "concerning",
}  # fmt: skip

_OPENINGS = ("Copy of", "Draft:", "Please", "New:", "Again:")

_TEMPLATES = (
    (
        "Onboard {name}",
        "Give {name} access to the repository, the wiki and the chat. Ask {name} to read the handbook in the first "
        "week. Plan a talk with the lead of the team after ten days, and write down what {name} found unclear.",
    ),
    (
        "Renew the certificate of {name}",
        "The certificate of {name} ends in thirty days. Order a new one, install it on {name} and restart the service. "
        "Check the expiry date with openssl afterwards, and close this task when the alert of {name} is gone.",
    ),
    (
        "Minutes of the weekly meeting {number}",
        "Present: the whole team. We went through open tasks by priority, and moved what nobody has touched to the "
        "backlog. Risks: the release depends on two reviews. Next meeting in a week at the same time.",
    ),
    (
        "Release {number}",
        "Tag the release candidate, run the long tests, write the notes, ask two people to read them, publish the "
        "packages, and tell the users. Roll back if the error rate doubles within an hour.",
    ),
)


_JUDGED = (
    ("task:a7e8b2f7", "task:c31204e3"),  # Graduate Ingress API to GA | Graduate Ingress to GA
    ("task:12693ecd", "task:b526be64"),  # Kubelet endpoint for pod resource assignment | for device assignment
    ("task:4e4020c8", "task:b897c90b"),  # Consider Terminating Pods in Deployments | Deployment Pod Replacement Policy
    ("memory:91f8628d", "memory:a3eeb1c8"),  # qm-move-disk | qm-move_disk
    ("memory:27993d6d", "memory:bdde067f"),  # microsoft-edge | msedge
    ("memory:f48b7953", "memory:227d859c"),  # microsoft-edge | msedge, another platform
    ("memory:45b24cff", "memory:bb85c66f"),  # chrome | google-chrome
    ("memory:45b24cff", "memory:6dd06dee"),  # chrome | google-chrome-stable
    ("memory:6dd06dee", "memory:bb85c66f"),  # google-chrome-stable | google-chrome
    ("memory:1e3e572a", "memory:08ddba5a"),  # opera | opera-stable
    ("memory:1a4f09b5", "memory:7cef6a15"),  # vivaldi | vivaldi-stable
    ("memory:1c5eb008", "memory:d033574e"),  # espeak-ng | speak-ng
    ("memory:9ca4ba6b", "memory:fb57c32b"),  # mcli | minio-client
    ("memory:766166cb", "memory:89105aff"),  # docker-rm | docker-container-remove
    ("memory:78ea4709", "memory:c797e1ea"),  # gawk | awk
)
"""Pairs of the workspace that a person who read both texts takes for duplicates: beginnings of type and id."""


@dataclass(frozen=True, slots=True)
class Text:
    """One entity of the benchmark. `of`: the key of the text that it is a copy of; `kind`: how it was made."""

    key: str
    title: str
    content: str
    kind: str = "workspace"
    of: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Texts, and what is known about their pairs. All pairs that are in neither set are no duplicates."""

    texts: list[Text]
    copies: dict[frozenset[str], str]
    """Pairs of an original and its copy, with the kind of the copy."""
    unjudged: set[frozenset[str]]
    """Pairs of which nobody would say whether they are duplicates."""


def real_duplicates(texts: Sequence[Text]) -> set[frozenset[str]]:
    """The pairs of the workspace that are duplicates in truth, so that they are no false ones.

    Those that a person judged, and those of one type and title: the workspace has notes on a command once a platform.
    """
    by_title: dict[tuple[str, str], list[str]] = {}
    for text in texts:
        by_title.setdefault((text.key.partition(":")[0], text.title.casefold()), []).append(text.key)
    same_title = {frozenset(pair) for keys in by_title.values() for pair in combinations(keys, 2)}
    length = len("00000000")
    by_start = {f"{kind}:{key[:length]}": text.key for text in texts for kind, _, key in [text.key.partition(":")]}
    judged = {frozenset((by_start[one], by_start[other])) for one, other in _JUDGED if {one, other} <= by_start.keys()}
    return same_title | judged


def worlds(originals: Sequence[Text], *, of_each: int, seed: int) -> tuple[World, World]:
    """Two worlds without a text in common, each with `of_each` copies of each kind."""
    ordered = sorted(originals, key=lambda text: text.key)
    random.Random(seed).shuffle(ordered)
    return _world(ordered[::2], of_each, seed + 1), _world(ordered[1::2], of_each, seed + 2)


def _world(originals: list[Text], of_each: int, seed: int) -> World:
    draw = random.Random(seed)
    long_enough = [text for text in originals if text.title and len(text.content.split()) >= _FEWEST_WORDS]
    # Other texts than those that are copied lend their words to look-alikes.
    drawn = iter(draw.sample(long_enough, of_each * (len(COPIES) + 2 * len(_LOOK_ALIKES))))
    copies: dict[frozenset[str], str] = {}
    unjudged: set[frozenset[str]] = set()
    made: list[Text] = []
    for kind, change in COPIES.items():
        for _ in range(of_each):
            one = next(drawn)
            title, content = change(one.title, one.content, draw)
            key = f"{kind} of {one.key}"
            made.append(Text(key, title, content, kind, one.key))
            copies[frozenset((one.key, key))] = kind
    for kind, change in _LOOK_ALIKES.items():
        for _ in range(of_each):
            one, other = next(drawn), next(drawn)
            title, content = change(one, other, draw)
            key = f"{kind} of {one.key}"
            made.append(Text(key, title, content, kind, one.key))
            # It looks like `one`. The other part of the text is a copy of what `other` has.
            unjudged.add(frozenset((key, other.key)))
    return World([*originals, *made, *_of_templates(of_each)], copies, unjudged)


def _of_templates(of_each: int) -> Iterator[Text]:
    for place, (title, content) in enumerate(_TEMPLATES):
        for number in range(of_each):
            # A name of its own, in letters alone: a number would tell two tasks apart by itself.
            name = f"{_SYLLABLES[number % len(_SYLLABLES)]}{_SYLLABLES[number // len(_SYLLABLES)]}son"
            filled = {"name": name, "number": f"{2020 + number // 50}-{number % 50 + 1:02}"}
            yield Text(f"template {place} {number}", title.format(**filled), content.format(**filled), "template")


def _reworded(title: str, draw: random.Random) -> str:
    """Another title for the same: an opening, no last word, halves exchanged, or words of the same meaning."""
    words = title.split()
    way = draw.randrange(4)
    if way == 3 and any(word.lower() in _SYNONYMS for word in words):
        return " ".join(_SYNONYMS.get(word.lower(), word) for word in words)
    if way == 0 or len(words) < 3:
        return f"{draw.choice(_OPENINGS)} {title}"
    return " ".join(words[:-1]) if way == 1 else " ".join([*words[len(words) // 2 :], *words[: len(words) // 2]])


def _title(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    return _reworded(title, draw), content


def _typos(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    """Two letters exchanged in one of forty words, at least in one."""
    words = re.split(r"(\s+)", content)
    long = [place for place, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    for place in draw.sample(long, min(len(long), max(1, len(words) // 80))):
        word, at = words[place], draw.randrange(1, len(words[place]) - 2)
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return title, "".join(words)


def _sentences(content: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(content) if sentence.strip()]


def _dropped(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    """One of eight sentences is left out, at least one, but never more than a fifth of the words."""
    sentences = _sentences(content)
    room = len(content.split()) / 5
    for place in sorted(draw.sample(range(len(sentences)), max(1, len(sentences) // 8)), reverse=True):
        if len(sentences[place].split()) <= room:
            room -= len(sentences.pop(place).split())
    return title, " ".join(sentences)


def _reordered(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    """The sentences begin at another one, and go on at the first after the last."""
    sentences = _sentences(content)
    start = draw.randrange(len(sentences))
    return title, "\n".join([*sentences[start:], *sentences[:start]])


def _appended(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    """A paragraph behind it, a fifth as long at most."""
    words = _TEMPLATES[draw.randrange(2)][1].format(name="it").split()
    return title, f"{content}\n\n{' '.join(words[: max(6, len(content.split()) // 5)])}"


def _layout(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    """Other white space, case and marks of emphasis."""
    mark = draw.choice(("*", "_", ""))
    return title.upper(), "\n\n".join(
        f"{mark}{line.strip()}{mark}" for line in content.lower().split("\n") if line.strip()
    )


def _mixed(title: str, content: str, draw: random.Random) -> tuple[str, str]:
    title, content = _typos(_reworded(title, draw), content, draw)
    return _dropped(title, content, draw)


COPIES: dict[str, Callable[[str, str, random.Random], tuple[str, str]]] = {
    "title": _title,
    "typos": _typos,
    "dropped": _dropped,
    "reordered": _reordered,
    "appended": _appended,
    "layout": _layout,
    "mixed": _mixed,
}


def _same_title(one: Text, other: Text, _: random.Random) -> tuple[str, str]:
    return one.title, other.content


def _next_version(one: Text, other: Text, draw: random.Random) -> tuple[str, str]:
    """A third of the sentences is replaced by those of another text."""
    sentences, others = _sentences(one.content), _sentences(other.content)
    for place in draw.sample(range(len(sentences)), -(-len(sentences) // 3)):
        sentences[place] = draw.choice(others)
    return f"{one.title}, next version", "\n".join(sentences)


_LOOK_ALIKES: dict[str, Callable[[Text, Text, random.Random], tuple[str, str]]] = {
    "same title": _same_title,
    "next version": _next_version,
}
