"""Wiki links: the text between `[[` and `]]`, as people write it, and the names under which it may find a page."""

import re

from mcp_assets.graph.keys import ReferenceKey, ReferenceKind, slug_key, title_key

_ATTACHMENT = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|bmp|avif|tiff?|ico|pdf|mp[34]|m4a|wav|ogg|flac|webm|mov|mkv|zip|csv|xlsx?|docx?|pptx?"
    r"|canvas|base|excalidraw)$",
    re.IGNORECASE,
)
_RELATIVE = re.compile(r"(?:\.{0,2}/)+")
_MARKDOWN = re.compile(r"\.md$", re.IGNORECASE)


def target_of(inside: str) -> str:
    """The target of a link, without the shown text, which comes after a `|`. In a table the `|` is escaped."""
    target, bar, _ = inside.partition("|")
    return (target.removesuffix("\\") if bar else target).strip()


def names_of(target: str) -> tuple[ReferenceKey, ...]:
    """The names of the page that is meant; the first that finds a page counts.

    A link into the page itself, to an address, or to a file that is no page has no names.

    `Title#Heading` is a title as a whole, or the page `Title`; `folder/Title.md` is a title, a slug, or the title after
    the last slash.
    """
    path = target.partition("#")[0].strip()
    if not path or path.startswith("^") or "://" in path or _ATTACHMENT.search(path):
        return ()
    page = _MARKDOWN.sub("", path)
    relative = _RELATIVE.match(page)
    inner = page[relative.end() :] if relative is not None else page
    found: dict[ReferenceKey, None] = {}
    for text in (target, path, page):
        _add(found, ReferenceKind.TITLE, title_key(text))
    _add(found, ReferenceKind.SLUG, slug_key(inner))
    _add(found, ReferenceKind.TITLE, title_key(inner.rstrip("/").rpartition("/")[2]))
    return tuple(found)


def _add(found: dict[ReferenceKey, None], kind: ReferenceKind, key: str | None) -> None:
    if key is not None:
        found[ReferenceKey(kind, key)] = None
