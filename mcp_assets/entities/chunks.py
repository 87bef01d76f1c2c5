"""Chunks: a long text cut at sentence and paragraph borders, so that search reaches its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from semantic_text_splitter import TextSplitter


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """How long texts are cut. Both in characters."""

    size: int
    overlap: int

    @property
    def name(self) -> str:
        return f"{self.size}-{self.overlap}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a built text: characters [start, end) of it, and the same with its white space collapsed."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=4)
def _splitter(spec: ChunkSpec) -> TextSplitter:
    return TextSplitter(spec.size, overlap=spec.overlap)


def split(built: str, spec: ChunkSpec) -> Iterator[Chunk]:
    """The chunks of `built`, in order, covering all of its text; each at most `spec.size` characters long."""
    for start, piece in _splitter(spec).chunk_indices(built):
        text = " ".join(piece.split())
        if text:
            yield Chunk(text, start, start + len(piece))
