"""URL references: URLs in a text that are the addresses of entities, by the link forms that settings list."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from mcp_assets.entities.refs import EntityRef, id_excess
from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, id_key, slug_key, title_key

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ADDRESS = r"""[^\s<>"'`(){}|\\^\[\]]++"""
_MIN_PREFIX = 4
"""Characters; a shorter prefix would find an address in nearly every text."""

MAX_ADDRESS = 4_096
"""Characters; a longer address names no entity. It bounds the work on one address."""

_PUNCTUATION = ".,;:!?*'"
_ENDS_VALUE = {
    ReferenceKind.ID: re.compile("[/?#&]"),
    ReferenceKind.TITLE: re.compile("[/?#&]"),
    ReferenceKind.SLUG: re.compile("[?#&]"),
}


@dataclass(frozen=True, slots=True)
class LinkForm:
    """One form of address, such as `https://wiki.example.com/pages/{slug}`; build it with `of`.

    `{id}` and `{title}` stand for one part of a path or one value of a query, `{slug}` for one part or several. Their
    values end before `?`, `#` or `&`. All are percent-decoded, and in a title `_` and `+` are spaces.
    """

    prefix: str
    kind: ReferenceKind
    suffix: str
    entity_type: str

    @classmethod
    def of(cls, template: str, entity_type: str) -> "LinkForm":
        """The form that `template` describes.

        Raises:
            ValueError: the template, which the message names, has not exactly one of `{id}`, `{slug}`, `{title}`, has
                fewer than four characters before it, or has white space.
        """
        placeholders = list(_PLACEHOLDER.finditer(template))
        if len(placeholders) != 1 or placeholders[0][1] not in {*ReferenceKind}:
            raise ValueError(f"the link form {template!r} must hold exactly one of {{id}}, {{slug}}, {{title}}")
        prefix, suffix = template[: placeholders[0].start()], template[placeholders[0].end() :]
        if len(prefix) < _MIN_PREFIX or any(character.isspace() for character in template):
            raise ValueError(
                f"the link form {template!r} must begin with an address, at least {_MIN_PREFIX} characters before the "
                "placeholder, and hold no white space"
            )
        return cls(prefix, ReferenceKind(placeholders[0][1]), suffix, entity_type)

    def key(self, address: str) -> ReferenceKey | None:
        """The key that an address refers to, given its part after the prefix; None if it does not have this form."""
        ends_value = _ENDS_VALUE[self.kind]
        if self.suffix:
            value, found, _ = address.partition(self.suffix)
            if not found or ends_value.search(value):
                return None
        else:
            value = ends_value.split(address, maxsplit=1)[0]
            if len(value) == len(address):
                value = value.rstrip(_PUNCTUATION)
        return self._key_of(value)

    def _key_of(self, value: str) -> ReferenceKey | None:
        is_title = self.kind is ReferenceKind.TITLE
        text = unquote(value.replace("_", " ").replace("+", " ") if is_title else value)
        if "\0" in text:
            return None
        match self.kind:
            case ReferenceKind.ID:
                return id_key(EntityRef(self.entity_type, text)) if text and id_excess(text) is None else None
            case ReferenceKind.TITLE:
                key = title_key(text)
            case ReferenceKind.SLUG:
                key = slug_key(text)
        return ReferenceKey(self.kind, key) if key else None


class UrlReference(NamedTuple):
    """An address of an entity in a text: characters [start, end) of the text."""

    start: int
    end: int
    key: ReferenceKey
    entity_type: str


class LinkForms:
    """All link forms of a site, to find the addresses in a text."""

    def __init__(self, forms: Iterable[LinkForm]) -> None:
        self._forms: dict[str, list[LinkForm]] = {}
        for form in forms:
            self._forms.setdefault(form.prefix, []).append(form)
        # The longest prefix first, because one prefix may begin with another.
        prefixes = "|".join(re.escape(prefix) for prefix in sorted(self._forms, key=len, reverse=True))
        self._address = re.compile(f"({prefixes})({_ADDRESS})") if self._forms else None

    def find(self, text: str) -> Iterator[UrlReference]:
        """The addresses in `text`, in order; of the forms with the same prefix, the first that fits counts."""
        if self._address is None:
            return
        for match in self._address.finditer(text):
            if match.end() - match.start() > MAX_ADDRESS:
                continue
            for form in self._forms[match[1]]:
                key = form.key(match[2])
                if key is not None:
                    yield UrlReference(match.start(), match.end(), key, form.entity_type)
                    break
