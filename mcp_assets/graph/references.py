"""References: how a text and its metadata refer to other entities, and the edges that these references make.

A *use* is one reference that an entity makes, whether or not the other entity exists. Three types of edge come from
uses:

- `cross_reference`, strength 1.0, from every mention in the text: `task:ID`, `[[Page title]]` as people write it
  (`wiki_links`), an address of a link form (`url_references`). Code, HTML comments and front matter do not count
  (`prose`).
- `sequential_dependency` and `conceptual_hierarchy`, from a metadata key, a slug path, or a mention after a phrase
  ("depends on", "part of"). Such a mention makes the `cross_reference` too.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from mcp_assets.entities.refs import EntityRef, id_excess
from mcp_assets.entities.registry import EntityTypes
from mcp_assets.entities.text import build_text
from mcp_assets.graph.edges import Edge, EdgeType, strongest
from mcp_assets.graph.hierarchy import HIERARCHY_KEYS, HIERARCHY_PHRASES
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, parent_slug_key
from mcp_assets.graph.mentions import Form, Mention, Mentions
from mcp_assets.graph.metadata import texts_of
from mcp_assets.graph.prose import Span, hidden
from mcp_assets.graph.relations import MetadataKey, Phrase
from mcp_assets.graph.sequential import SEQUENTIAL_KEYS, SEQUENTIAL_PHRASES
from mcp_assets.graph.url_references import LinkForm, LinkForms

METADATA_KEYS: Mapping[str, MetadataKey] = MappingProxyType({**SEQUENTIAL_KEYS, **HIERARCHY_KEYS})
PHRASES: Mapping[str, Phrase] = MappingProxyType({**SEQUENTIAL_PHRASES, **HIERARCHY_PHRASES})


class Use(NamedTuple):
    """One reference that an entity makes: a row of `reference_uses`, and the edge that it makes if it is resolved."""

    kind: ReferenceKind
    key: str
    within: str | None
    """The only entity type that it can mean; None for any type, and for an id, because its key holds the type."""
    relation: EdgeType
    strength: float
    rule: str
    """The rule that made it: `metadata:<key>`, `text:<phrase>`, `text`, or `slug`."""
    reverse: bool = False
    """The entity that makes the reference is the *target* of the edge. Only references by id are ever reverse."""
    written: str = ""
    """Identifies the reference among those of its source. Uses with the same value are alternative names of one entity:
    a wiki link may be a title or a slug."""
    place: int = 0
    """The place of this name among the alternative names, from 0. The first name that finds an entity counts."""
    places: int = 1
    """How many alternative names there are."""
    form: str = ""
    """How it is written: a value of `Form`."""
    context: str = ""
    """The words that made it, on one line, at most MAX_CONTEXT characters."""

    @property
    def group(self) -> tuple[object, ...]:
        """The same for all names of one reference, and for no other reference of its source."""
        return self.written or self.key, self.within, self.relation, self.strength, self.rule, self.reverse

    @property
    def reference(self) -> ReferenceKey:
        return ReferenceKey(self.kind, self.key)


MAX_CONTEXT = 200
"""Characters: a line or two on a screen."""

_AROUND = 60
"""Characters before and after a mention that belong to its context."""

Holders = Mapping[ReferenceKey, Collection[EntityRef]]
"""The living entities that have each key; a key that none has may be absent."""


@dataclass(frozen=True)
class ReferenceRules:
    """The rules by which references are read from an entity; build it with `of`."""

    type_names: Mapping[str, str]
    """From name or alias, in lower case, to entity type."""
    link_forms: tuple[LinkForm, ...] = ()
    metadata_keys: Mapping[str, MetadataKey] = field(default_factory=lambda: METADATA_KEYS)
    phrases: Mapping[str, Phrase] = field(default_factory=lambda: PHRASES)
    key_columns: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """How many columns the key of an entity type has, for the types with several."""

    @classmethod
    def of(cls, types: EntityTypes, link_forms: Iterable[LinkForm] = ()) -> "ReferenceRules":
        """The rules of a site: its registered types by name and alias."""
        aliases = {alias.lower(): entity_type.name for entity_type in types.values() for alias in entity_type.aliases}
        columns = {
            entity_type.name: len(entity_type.source.id_columns)
            for entity_type in types.values()
            if entity_type.source is not None and len(entity_type.source.id_columns) > 1
        }
        return cls(
            MappingProxyType({**aliases, **{name.lower(): name for name in types}}),
            tuple(link_forms),
            key_columns=MappingProxyType(columns),
        )

    def hiding(self, *keys: str) -> "ReferenceRules":
        """The same rules without these metadata keys.

        Raises:
            ValueError: a key is not among the rules.
        """
        if unknown := [key for key in keys if key not in self.metadata_keys]:
            raise ValueError(f"no rule reads the metadata key(s) {unknown}; rules read {sorted(self.metadata_keys)}")
        kept = {key: rule for key, rule in self.metadata_keys.items() if key not in keys}
        return replace(self, metadata_keys=MappingProxyType(kept))

    def uses(self, source: EntityRef, title: str | None, content: str, metadata: Mapping[str, Any]) -> tuple[Use, ...]:
        """Every reference that the entity makes, each once, with the words of its first mention.

        In the order of metadata keys, slug, text. Never raises.
        """
        made = chain(
            self._in_metadata(source, metadata),
            _in_slug(source, metadata),
            self._in_text(title, content),
        )
        first: dict[tuple[object, ...], Use] = {}
        for use in made:
            first.setdefault((use.group, use.place), use)
        return tuple(first.values())

    @cached_property
    def _mentions(self) -> Mentions:
        return Mentions(self.type_names, LinkForms(self.link_forms), self.phrases, self.key_columns)

    def _in_metadata(self, source: EntityRef, metadata: Mapping[str, Any]) -> Iterator[Use]:
        for name, rule in self.metadata_keys.items():
            bare_type = source.type
            if rule.of_type is not None:
                bare_type = self.type_names.get(rule.of_type, source.type)
            for spelling in _spellings(name):
                for text in texts_of(metadata.get(spelling)):
                    ref = self._named(text, bare_type)
                    if ref is not None:
                        yield Use(
                            *id_key(ref), None, rule.relation, 1.0, f"metadata:{name}", rule.reverse,
                            form=Form.METADATA.value, context=_line(f"{spelling}: {text}"),
                        )  # fmt: skip

    def _named(self, text: str, bare_type: str) -> EntityRef | None:
        """The entity that a metadata value names: `type:id`, or else an id of `bare_type`; None for no valid id."""
        before, colon, after = text.partition(":")
        named_type = self.type_names.get(before.lower()) if colon else None
        ref = EntityRef(bare_type, text) if named_type is None else EntityRef(named_type, after.strip())
        return ref if ref.id and id_excess(ref.id) is None else None

    def place_of(
        self, title: str | None, content: str, evidence: tuple[str, str], target: Collection[ReferenceKey]
    ) -> Span | None:
        """Where the reference stands in `build_text(title, content)` that made an edge: its first mention there.

        `evidence`: the rule and the words of the edge. `target`: the keys that find its other end. None: no mention in
        the text made the edge, or the text has it no longer.
        """
        rule, context = evidence
        text = build_text(title, content)
        for mention in self._in(text, content):
            made = rule in ("text", f"text:{mention.phrase}") and not set(mention.keys).isdisjoint(target)
            if made and _context(text, mention) == context:
                return Span(mention.start, mention.end)
        return None

    def _in(self, text: str, content: str) -> Iterator[Mention]:
        """The mentions in `text`, which was built of a title and `content`."""
        # The title is no Markdown. White space before the content decides whether it is code; `text` does not have it.
        start = len(text) - len(content.strip()) - (len(content) - len(content.lstrip()))

        def not_prose() -> list[Span]:
            return [Span(start + span.start, start + span.end) for span in hidden(content)]

        return self._mentions.find(text, not_prose)

    def _in_text(self, title: str | None, content: str) -> Iterator[Use]:
        text = build_text(title, content)
        seen: set[tuple[object, ...]] = set()
        for mention in self._in(text, content):
            said = (mention.keys[0], mention.within, mention.phrase)
            if said in seen:
                continue
            seen.add(said)
            context = _context(text, mention)
            yield from _uses_of(mention, EdgeType.CROSS_REFERENCE, 1.0, "text", context)
            if mention.phrase is not None:
                phrase = self.phrases[mention.phrase]
                rule = f"text:{mention.phrase}"
                yield from _uses_of(mention, phrase.relation, phrase.strength, rule, context)


def _uses_of(mention: Mention, relation: EdgeType, strength: float, rule: str, context: str) -> Iterator[Use]:
    written = f"{mention.key.kind}:{mention.key.key}"
    for place, (kind, key) in enumerate(mention.keys):
        yield Use(
            kind, key, mention.within, relation, strength, rule, False,
            written, place, len(mention.keys), mention.form.value, context,
        )  # fmt: skip


def _context(text: str, mention: Mention) -> str:
    """The words around a mention on its line, cut where a word ends."""
    start, end = max(0, mention.start - _AROUND), min(len(text), mention.end + _AROUND)
    line = text.rfind("\n", start, mention.start) + 1
    if line:
        start = line
    elif start:
        start = max(text.find(" ", start, mention.start), start)
    line_end = text.find("\n", mention.end, end)
    if line_end >= 0:
        end = line_end
    elif end < len(text):
        end = max(text.rfind(" ", mention.end, end), mention.end)
    return _line(text[start:end])


def _line(text: str) -> str:
    return " ".join(text[: MAX_CONTEXT * 4].split())[:MAX_CONTEXT].rstrip()


@lru_cache(maxsize=64)
def _spellings(name: str) -> tuple[str, ...]:
    """The spellings of a metadata key of the rules: `parent_id`, `parentId`, `parentID`.

    The cache holds all keys of the rules.
    """
    first, *rest = name.split("_")
    camel = first + "".join(part.capitalize() for part in rest)
    return tuple(dict.fromkeys((name, camel, camel[:-2] + "ID" if camel.endswith("Id") else camel)))


def _in_slug(source: EntityRef, metadata: Mapping[str, Any]) -> Iterator[Use]:
    slug = metadata.get("slug")
    parent = parent_slug_key(slug)
    if parent is not None:
        yield Use(
            ReferenceKind.SLUG, parent, source.type, EdgeType.CONCEPTUAL_HIERARCHY, 1.0, "slug",
            form=Form.SLUG.value, context=_line(f"slug: {slug}"),
        )  # fmt: skip


def pick(holders: Iterable[EntityRef], within: str | None = None) -> EntityRef | None:
    """The entity that is meant of several that have one key: the smallest (type, id); None if there is none.

    `within`: the only type that can be meant; None for any type.
    """
    return min((ref for ref in holders if within is None or ref.type == within), default=None)


def resolve(source: EntityRef, uses: Iterable[Use], holders: Holders) -> tuple[Edge, ...]:
    """The edges that the references of `source` make, one for each key, ordered.

    A reference to no living entity makes no edge, nor does a reference of an entity to itself. A reverse reference
    makes an edge whose source is the *other* entity and whose target is `source`. So the reference edges from an entity
    come from its own uses, and from the reverse uses of the entities that use its `id_key`.
    """
    edges = strongest(_edges(source, uses, holders))
    return tuple(edges[key] for key in sorted(edges))


def _edges(source: EntityRef, uses: Iterable[Use], holders: Holders) -> Iterator[Edge]:
    groups: dict[tuple[object, ...], list[Use]] = {}
    for use in uses:
        groups.setdefault(use.group, []).append(use)
    for names in groups.values():
        for use in sorted(names, key=_PLACE) if len(names) > 1 else names:
            other = pick(holders.get(use.reference, ()), use.within)
            if other is None:
                continue
            if other != source:
                start, end = (other, source) if use.reverse else (source, other)
                yield Edge(start, end, use.relation, use.strength, _evidence(use))
            break


_PLACE = attrgetter("place")


def _evidence(use: Use) -> dict[str, str]:
    return {"rule": use.rule, "reference_type": use.form, "context": use.context}
