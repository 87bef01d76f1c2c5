"""References: what a text and its metadata say about other entities (uses), and the edges that they make.

Three edge types come from here. `cross_reference`, strength 1.0, for every mention in the text: `task:ID`,
`[[Page title]]`, `[[Page title|shown text]]`, the link forms in settings. A mention after a phrase ("depends on", "part
of") makes the edge of the phrase *too*. A metadata key or a slug path makes only its own edge.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from mcp_assets.entities.refs import MAX_ID_LENGTH, EntityRef
from mcp_assets.entities.registry import EntityTypes
from mcp_assets.entities.text import build_text
from mcp_assets.graph.edges import Edge, EdgeType, strongest
from mcp_assets.graph.hierarchy import HIERARCHY_KEYS, HIERARCHY_PHRASES
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, parent_slug_key
from mcp_assets.graph.links import LinkForm, LinkForms
from mcp_assets.graph.mentions import Mentions
from mcp_assets.graph.metadata import texts_of
from mcp_assets.graph.relations import MetadataKey, Phrase
from mcp_assets.graph.sequential import SEQUENTIAL_KEYS, SEQUENTIAL_PHRASES

METADATA_KEYS: Mapping[str, MetadataKey] = MappingProxyType({**SEQUENTIAL_KEYS, **HIERARCHY_KEYS})
PHRASES: Mapping[str, Phrase] = MappingProxyType({**SEQUENTIAL_PHRASES, **HIERARCHY_PHRASES})


class Use(NamedTuple):
    """One reference that an entity makes, resolved or not: a row of `reference_uses`, and the edge it would make."""

    kind: ReferenceKind
    key: str
    within: str | None
    """The only entity type that it can mean; None for any. Always None for an id, whose key holds the type."""
    relation: EdgeType
    strength: float
    rule: str
    """What made it: `metadata:<key>`, `text:<phrase>`, `text`, or `slug`."""
    reverse: bool = False
    """The entity that makes the reference is the *target* of the edge. Only references by id are ever reverse."""

    @property
    def reference(self) -> ReferenceKey:
        return ReferenceKey(self.kind, self.key)


Holders = Mapping[ReferenceKey, Collection[EntityRef]]
"""The living entities that each key finds; a key that finds none may be absent."""


@dataclass(frozen=True)
class ReferenceRules:
    """How references are read; build it with `of`."""

    type_names: Mapping[str, str]
    """Name or alias, lower case -> entity type."""
    link_forms: tuple[LinkForm, ...] = ()
    metadata_keys: Mapping[str, MetadataKey] = field(default_factory=lambda: METADATA_KEYS)
    phrases: Mapping[str, Phrase] = field(default_factory=lambda: PHRASES)

    @classmethod
    def of(cls, types: EntityTypes, link_forms: Iterable[LinkForm] = ()) -> "ReferenceRules":
        """The rules of a site: its registered types by name and alias."""
        aliases = {alias.lower(): entity_type.name for entity_type in types.values() for alias in entity_type.aliases}
        return cls(MappingProxyType({**aliases, **{name.lower(): name for name in types}}), tuple(link_forms))

    def hiding(self, *keys: str) -> "ReferenceRules":
        """The same rules, blind to these metadata keys.

        Raises:
            ValueError: a key is not among the rules.
        """
        if unknown := [key for key in keys if key not in self.metadata_keys]:
            raise ValueError(f"no rule reads the metadata key(s) {unknown}; rules read {sorted(self.metadata_keys)}")
        kept = {key: rule for key, rule in self.metadata_keys.items() if key not in keys}
        return replace(self, metadata_keys=MappingProxyType(kept))

    def uses(self, source: EntityRef, title: str | None, content: str, metadata: Mapping[str, Any]) -> tuple[Use, ...]:
        """Every reference that the entity makes, each once, in the order of metadata keys, slug, text. Never raises."""
        made = chain(
            self._in_metadata(source, metadata),
            _in_slug(source, metadata),
            self._in_text(build_text(title, content)),
        )
        return tuple(dict.fromkeys(made))

    @cached_property
    def _mentions(self) -> Mentions:
        return Mentions(self.type_names, LinkForms(self.link_forms), self.phrases)

    def _in_metadata(self, source: EntityRef, metadata: Mapping[str, Any]) -> Iterator[Use]:
        for name, rule in self.metadata_keys.items():
            bare_type = source.type
            if rule.of_type is not None:
                bare_type = self.type_names.get(rule.of_type, source.type)
            for text in texts_of(metadata.get(name)):
                ref = self._named(text, bare_type)
                if ref is not None:
                    kind, key = id_key(ref)
                    yield Use(kind, key, None, rule.relation, 1.0, f"metadata:{name}", rule.reverse)

    def _named(self, text: str, bare_type: str) -> EntityRef | None:
        """The entity that a metadata value names: `type:id`, or else the whole of it is an id of `bare_type`."""
        before, colon, after = text.partition(":")
        named_type = self.type_names.get(before.lower()) if colon else None
        ref = EntityRef(bare_type, text) if named_type is None else EntityRef(named_type, after.strip())
        return ref if 0 < len(ref.id) <= MAX_ID_LENGTH else None

    def _in_text(self, text: str) -> Iterator[Use]:
        for mention in self._mentions.find(text):
            yield Use(*mention.key, mention.within, EdgeType.CROSS_REFERENCE, 1.0, "text")
            if mention.phrase is not None:
                phrase = self.phrases[mention.phrase]
                rule = f"text:{mention.phrase}"
                yield Use(*mention.key, mention.within, phrase.relation, phrase.strength, rule)


def _in_slug(source: EntityRef, metadata: Mapping[str, Any]) -> Iterator[Use]:
    parent = parent_slug_key(metadata.get("slug"))
    if parent is not None:
        yield Use(ReferenceKind.SLUG, parent, source.type, EdgeType.CONCEPTUAL_HIERARCHY, 1.0, "slug")


def pick(holders: Iterable[EntityRef], within: str | None = None) -> EntityRef | None:
    """Of several entities that one key finds, the one that is meant: the smallest (type, id), of the type `within` if
    that is given; None if there is none."""
    return min((ref for ref in holders if within is None or ref.type == within), default=None)


def resolve(source: EntityRef, uses: Iterable[Use], holders: Holders) -> tuple[Edge, ...]:
    """The edges that the references of `source` make, one a key, ordered.

    A reference to nothing makes none, nor does one of an entity to itself. A reverse reference makes an edge *of the
    other* entity, with `source` as its target. So all reference edges of an entity are those that its own uses make
    with it as the source, and those that the reverse uses of others make: the users of its `id_key`.
    """
    edges = strongest(_edges(source, uses, holders))
    return tuple(edges[key] for key in sorted(edges))


def _edges(source: EntityRef, uses: Iterable[Use], holders: Holders) -> Iterator[Edge]:
    for use in uses:
        other = pick(holders.get(use.reference, ()), use.within)
        if other is None or other == source:
            continue
        start, end = (other, source) if use.reverse else (source, other)
        yield Edge(start, end, use.relation, use.strength, {"rule": use.rule})
