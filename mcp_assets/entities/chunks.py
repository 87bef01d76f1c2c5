"""Chunks: cuts a long text at sentence and paragraph borders, in linear time, so that search reaches its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from semantic_text_splitter import TextSplitter

_WINDOW_CHUNKS = 8
"""The length of text that the splitter gets at once, in chunks. For each chunk it searches the whole text that it gets,
which took quadratic time for a long text without sentence ends. A border depends only on the text within the length of
one chunk, so that windows do not change borders."""


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
    """One piece of a built text: characters [start, end) of it; `text` is the piece with its white space collapsed."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=4)
def _splitter(spec: ChunkSpec) -> TextSplitter:
    return TextSplitter(spec.size, overlap=spec.overlap)


def split(built: str, spec: ChunkSpec) -> Iterator[Chunk]:
    """The chunks of `built`, in order, covering all of its text; each at most `spec.size` characters long."""
    for start, piece in _pieces(built, spec):
        text = " ".join(piece.split())
        if text:
            yield Chunk(text, start, start + len(piece))


def _pieces(built: str, spec: ChunkSpec) -> Iterator[tuple[int, str]]:
    """Start and text of each piece, by the rules of the splitter, which gets one window of the text after the other."""
    length = _WINDOW_CHUNKS * spec.size
    begin = 0
    while True:
        pieces = _splitter(spec).chunk_indices(built[begin : begin + length])
        if begin + length >= len(built):
            yield from ((begin + start, piece) for start, piece in pieces)
            return
        # A piece near the end of the window may end there only because of the window. The next window begins with it.
        whole = [(start, piece) for start, piece in pieces if start + 2 * spec.size <= length]
        yield from ((begin + start, piece) for start, piece in whole)
        begin += pieces[len(whole)][0] if len(whole) < len(pieces) else length
