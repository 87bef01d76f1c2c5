"""Text: builds the text to embed from title and content, and the hashes that show what has changed."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_assets.entities.chunks import Chunk, ChunkSpec, split
from mcp_assets.entities.registry import SourceTable
from mcp_assets.entities.words import WORD_RULES_VERSION

TEXT_BUILDER_VERSION = "2"
"""To be raised with each change of the rules here: a full sync then prepares all texts again."""

POINT_CHARACTERS = 8_000
"""Characters of the prepared text that the entity's own point embeds; a longer text also gets chunk points."""


LONGEST_TEXT = 4_000_000
"""Characters of content. A longer entity is refused, because its chunks could not be replaced in one request."""


_WITH_EXPONENT = 1e16
"""From here on, JSON in Python writes a whole float with an exponent."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is embedded of one entity."""

    text: str
    """White space collapsed, at most POINT_CHARACTERS characters; empty if there is nothing to embed."""
    chunks: tuple[Chunk, ...]
    text_hash: str
    """32 hexadecimal digits. With equal hashes nothing has to be embedded."""
    layout: str = ""
    """Digest of the text with its white space, which matters for references (a list on lines); empty if all white space
    is single spaces."""


def build_text(title: str | None, content: str) -> str:
    """Title and content as one text, trimmed. White space inside is kept, because chunks are split at paragraphs."""
    return "\n\n".join(part for part in ((title or "").strip(), content.strip()) if part)


def collapse(text: str) -> str:
    """`text` trimmed, each run of white space made one space."""
    return " ".join(text.split())


def text_version(chunk_spec: ChunkSpec | None) -> str:
    """A name for the way in which embedded texts are made."""
    return f"text-{TEXT_BUILDER_VERSION}/{chunk_spec.name if chunk_spec else 'unchunked'}"


def prepared_by(chunk_spec: ChunkSpec | None, mapping: SourceTable | None = None) -> str:
    """A name for the way in which entities are prepared. A full sync prepares ledger rows with another name again.

    `mapping`: of the source table, because it decides which columns are title, content and metadata.
    """
    name = f"{text_version(chunk_spec)}/words-{WORD_RULES_VERSION}"
    return name if mapping is None else f"{name}/{mapping.digest}"


def prepare(title: str | None, content: str, chunk_spec: ChunkSpec | None) -> Prepared:
    """The prepared text of an entity, with chunks over its whole length if it is longer than its own point embeds.

    A content above LONGEST_TEXT is not embedded, and therefore not cut.
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
    """32 hexadecimal digits of text, title and metadata: a difference leads to a payload update and to re-linking.

    White space counts, because the rules of references read it, although it does not change the embedded text.
    """
    text = [prepared.text_hash, prepared.layout] if prepared.layout else prepared.text_hash
    canonical = _canonical([text, title, metadata])
    if "e+" in canonical or "-0.0" in canonical:
        # The ledger's jsonb gives 1e22 back as an integer, and -0.0 as 0.0.
        canonical = _canonical([text, title, _as_jsonb_gives(metadata)])
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _canonical(value: Any) -> str:
    return _CANONICAL.encode(value)


def _as_jsonb_gives(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_jsonb_gives(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_jsonb_gives(one) for one in value]
    if isinstance(value, float) and value.is_integer() and (abs(value) >= _WITH_EXPONENT or not value):
        return int(value) if value else 0.0
    return value
