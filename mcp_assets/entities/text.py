"""Text building: from an entity's title and content to the text that is embedded, and the hashes that decide work."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_assets.entities.chunks import Chunk, ChunkSpec, split
from mcp_assets.entities.registry import SourceTable

TEXT_BUILDER_VERSION = "2"

POINT_CHARACTERS = 8_000
"""Characters of the prepared text that the entity's own point embeds; a longer text also gets chunk points."""


LONGEST_TEXT = 4_000_000
"""Characters of content; a longer entity is refused: its chunks could not be replaced in one step."""


_WITH_EXPONENT = 1e16
"""From here on, a whole float is written with an exponent."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is embedded of one entity."""

    text: str
    """White space collapsed, at most POINT_CHARACTERS characters; empty if there is nothing to embed."""
    chunks: tuple[Chunk, ...]
    text_hash: str
    """32 hexadecimal digits; equal hashes mean that nothing has to be embedded."""
    layout: str = ""
    """Digest of the text with its white space, by which references are read (a list on lines); empty if it has none
    but single spaces."""


def build_text(title: str | None, content: str) -> str:
    """Title and content as one text, trimmed; white space inside is kept, for chunks are split at its paragraphs."""
    return "\n\n".join(part for part in ((title or "").strip(), content.strip()) if part)


def collapse(text: str) -> str:
    """`text` trimmed, each run of white space made one space."""
    return " ".join(text.split())


def prepared_by(chunk_spec: ChunkSpec | None, mapping: SourceTable | None = None) -> str:
    """Names how texts are prepared: ledger rows that bear another name are prepared anew by a full sync.

    `mapping`: of the type's source table, which decides what is title, content and metadata of an entity.
    """
    name = f"text-{TEXT_BUILDER_VERSION}/{chunk_spec.name if chunk_spec else 'unchunked'}"
    return name if mapping is None else f"{name}/{mapping.digest}"


def prepare(title: str | None, content: str, chunk_spec: ChunkSpec | None) -> Prepared:
    """The prepared text of an entity, with chunks over its whole length if it is longer than its own point embeds.

    A content above LONGEST_TEXT, which is not embedded, is not cut either.
    """
    built = build_text(title, content)
    collapsed = collapse(built)
    digest = hashlib.sha256(collapsed.encode())
    chunks: tuple[Chunk, ...] = ()
    if len(collapsed) > POINT_CHARACTERS and len(content) <= LONGEST_TEXT and chunk_spec is not None:
        chunks = tuple(split(built, chunk_spec))
        for chunk in chunks:
            digest.update(f"\0{chunk.start}:{chunk.end}".encode())
    plain = " ".join(part for part in ((title or "").strip(), content.strip()) if part) == collapsed
    layout = "" if plain else hashlib.sha256(built.encode()).hexdigest()[:32]
    return Prepared(collapsed[:POINT_CHARACTERS].rstrip(), chunks, digest.hexdigest()[:32], layout)


NO_TEXT_HASH = prepare(None, "", None).text_hash
"""`text_hash` of an entity without any text: it has no point."""


def state_hash(prepared: Prepared, title: str | None, metadata: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of all that payloads and edges are made of: decides payload updates and re-linking.

    White space counts, because the rules of references read it; what is embedded does not depend on it.
    """
    text = [prepared.text_hash, prepared.layout] if prepared.layout else prepared.text_hash
    canonical = _canonical([text, title, metadata])
    if "e+" in canonical or "-0.0" in canonical:
        # The ledger's jsonb gives 1e22 back as an integer, and -0.0 as 0.0.
        canonical = _canonical([text, title, _as_jsonb_gives(metadata)])
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _as_jsonb_gives(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_jsonb_gives(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_jsonb_gives(one) for one in value]
    if isinstance(value, float) and value.is_integer() and (abs(value) >= _WITH_EXPONENT or not value):
        return int(value) if value else 0.0
    return value
