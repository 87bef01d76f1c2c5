"""Reference keys: the names under which a reference finds an entity, its id, its title or its slug."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple
from unicodedata import normalize

from mcp_assets.entities.refs import EntityRef

MAX_KEY_LENGTH = 512
"""Characters; what is longer is cut."""

MAX_KEY_BYTES = 1024
"""In UTF-8; what is longer is cut, because an index row of PostgreSQL holds 2,704 bytes, and some hold an id too."""


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
    """`text` as it is compared: case folded, composed (NFC), white space collapsed, cut to MAX_KEY_LENGTH and
    MAX_KEY_BYTES."""
    if not text.isascii():
        # What is equal but for case need not be composed alike: it is taken apart before it is folded.
        text = normalize("NFC", normalize("NFD", text).casefold())
    return _cut(" ".join(text.casefold().split())).rstrip()


def _cut(key: str) -> str:
    key = key[:MAX_KEY_LENGTH]
    if 4 * len(key) <= MAX_KEY_BYTES or key.isascii():
        return key
    encoded = key.encode(errors="surrogatepass")
    return key if len(encoded) <= MAX_KEY_BYTES else encoded[:MAX_KEY_BYTES].decode(errors="ignore")


def title_key(title: str | None) -> str | None:
    """The key of a title; None for one that is empty."""
    return folded(title or "") or None


def slug_key(slug: object) -> str | None:
    """The key of a slug path, as it stands in metadata: folded, no empty parts; None for what is not a slug."""
    if not isinstance(slug, str):
        return None
    parts = (folded(part) for part in slug.split("/"))
    return _cut("/".join(part for part in parts if part)).rstrip(" /") or None


def parent_slug_key(slug: object) -> str | None:
    """The key of the slug that `slug` stands under: of `a/b/c` it is `a/b`; of `a`, None."""
    key = slug_key(slug)
    return (key.rpartition("/")[0] or None) if key else None


def id_key(ref: EntityRef) -> ReferenceKey:
    """The key under which references by id find `ref`."""
    return ReferenceKey(ReferenceKind.ID, str(ref))


def keys_of(ref: EntityRef, title: str | None, metadata: Mapping[str, Any]) -> frozenset[ReferenceKey]:
    """Every key under which references find the entity.

    When it comes, changes or goes, `keys_of(before) ^ keys_of(after)` (nothing before it came or after it went) are the
    keys whose users have to be re-linked.
    """
    keys = [id_key(ref)]
    if (by_title := title_key(title)) is not None:
        keys.append(ReferenceKey(ReferenceKind.TITLE, by_title))
    if (by_slug := slug_key(metadata.get("slug"))) is not None:
        keys.append(ReferenceKey(ReferenceKind.SLUG, by_slug))
    return frozenset(keys)
