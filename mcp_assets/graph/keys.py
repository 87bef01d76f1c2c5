"""Reference keys: the names under which a reference finds an entity, its id, its title or its slug."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from unicodedata import normalize

from mcp_assets.entities.refs import EntityRef

MAX_KEY_LENGTH = 512
"""Characters; a longer key is cut. It is more than any title or path that people write."""

MAX_KEY_BYTES = 1024
"""In UTF-8; a longer key is cut, because an index row of PostgreSQL holds 2,704 bytes, and some hold an id too."""


class ReferenceKind(StrEnum):
    """The values of `reference_uses.kind`."""

    ID = "id"
    TITLE = "title"
    SLUG = "slug"


class ReferenceKey(NamedTuple):
    """`kind` and `key` of `reference_uses`: `type:id`, a `title_key`, or a `slug_key`."""

    kind: ReferenceKind
    key: str


def folded(text: str) -> str:
    """`text` in the form in which texts are compared: case folded, composed (NFC), white space collapsed, cut to
    MAX_KEY_LENGTH and MAX_KEY_BYTES."""
    if not text.isascii():
        # Texts that differ only in case may be composed differently, so that they are decomposed before folding.
        text = normalize("NFC", normalize("NFD", text).casefold())
    return _cut(" ".join(text.casefold().split())).rstrip()


def _cut(key: str) -> str:
    key = key[:MAX_KEY_LENGTH]
    if 4 * len(key) <= MAX_KEY_BYTES or key.isascii():
        return key
    encoded = key.encode(errors="surrogatepass")
    return key if len(encoded) <= MAX_KEY_BYTES else encoded[:MAX_KEY_BYTES].decode(errors="ignore")


def title_key(title: str | None) -> str | None:
    """The key of a title; None for an empty title."""
    return folded(title or "") or None


def slug_key(slug: object) -> str | None:
    """The key of a slug path from metadata: folded, without empty parts; None for a value that is no slug."""
    if not isinstance(slug, str):
        return None
    parts = (folded(part) for part in slug.split("/"))
    return _cut("/".join(part for part in parts if part)).rstrip(" /") or None


def parent_slug_key(slug: object) -> str | None:
    """The key of the parent path of `slug`: of `a/b/c` it is `a/b`, of `a` it is None."""
    key = slug_key(slug)
    return (key.rpartition("/")[0] or None) if key else None


def id_key(ref: EntityRef) -> ReferenceKey:
    """The key under which references by id find `ref`."""
    return ReferenceKey(ReferenceKind.ID, str(ref))


def keys_of(ref: EntityRef, title: str | None, metadata: Mapping[str, Any]) -> frozenset[ReferenceKey]:
    """Every key under which references find the entity.

    When the entity changes, the entities that use one of `keys_of(before) ^ keys_of(after)` have to be re-linked. An
    entity that is new or gone has no keys before or after.
    """
    keys = [id_key(ref)]
    if (by_title := title_key(title)) is not None:
        keys.append(ReferenceKey(ReferenceKind.TITLE, by_title))
    if (by_slug := slug_key(metadata.get("slug"))) is not None:
        keys.append(ReferenceKey(ReferenceKind.SLUG, by_slug))
    return frozenset(keys)
