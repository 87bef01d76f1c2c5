"""Decode: bytes to a JSON object that PostgreSQL, UTF-8 and JSON itself can hold, in time linear in the bytes.

A value that they cannot hold is an oddity of its field, and does not spoil the others. NaN, Infinity, integers beyond
64 bits and values nested more than 32 levels deep become null. NUL and lone surrogates become U+FFFD; a key with one of
them is left out. As in `json.loads`, the last of several equal keys counts. A UTF-8 byte order mark is skipped
(RFC 8259 section 8.1).
"""

import codecs
import json
import math
import re

from mcp_assets.events.model import ErrorKind, JsonValue
from mcp_assets.events.oddities import Oddities
from mcp_assets.events.rejection import ROOT, Path, Rejection, json_type, render

MAX_BYTES = 1 << 20
"""The largest message that NATS takes unless its server is set otherwise."""

MAX_DEPTH = 32
"""Levels of containers: far more than entities have, and far fewer than the recursion of any reader bears."""

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_INT64_MAX_CHARACTERS = len(str(_INT64_MIN))
"""The integers that jsonb and every reader hold exactly have at most this many characters."""

_JSON_WHITE_SPACE = b" \t\r\n"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL and lone surrogates: a decoded str holds a surrogate only if it is a lone one."""

_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""Brackets, and strings, in which brackets mean nothing; an unclosed string ends the text."""


def decode(raw: bytes) -> tuple[dict[str, JsonValue], Oddities]:
    """The object, and its oddities. Raises Rejection (empty, too_large, bad_json, not_an_object)."""
    if len(raw) > MAX_BYTES:
        raise Rejection(ErrorKind.TOO_LARGE, f"The message has {len(raw)} bytes; at most {MAX_BYTES} are read.")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip(_JSON_WHITE_SPACE):
        raise Rejection(ErrorKind.EMPTY, "The message is empty.")
    document = _document(raw)
    if not isinstance(document, dict):
        raise Rejection(ErrorKind.NOT_AN_OBJECT, f"The message is {json_type(document)}, and must be a JSON object.")
    oddities = Oddities()
    # UTF-8 and JSON let NUL and lone surrogates through as escapes alone.
    _mend(document, ROOT, 1, oddities, escapes=b"\\u" in raw)
    return document, oddities


def _document(raw: bytes) -> JsonValue:
    try:
        text = raw.decode("utf-8")
        try:
            document: JsonValue = _DECODER.decode(text)
        except RecursionError:
            document = _DECODER.decode(_pruned(text))
    except UnicodeDecodeError as error:
        raise Rejection(
            ErrorKind.BAD_JSON, f"The message is not UTF-8: {error.reason} at byte {error.start}."
        ) from None
    except json.JSONDecodeError as error:
        fault = error.msg.rstrip(": ").removesuffix(" at")
        where = f"line {error.lineno}, column {error.colno}"
        raise Rejection(ErrorKind.BAD_JSON, f"The message is not JSON: {fault} at {where}.") from None
    return document


def _pruned(text: str) -> str:
    """`text` with containers emptied that lie too deep, because Python's decoder fails some 1,000 levels down."""
    kept: list[str] = []
    depth = start = 0
    for match in _STRUCTURE.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[start : match.end()])
        elif bracket in "]}":
            if depth == MAX_DEPTH + 1:
                start = match.start()
            depth -= 1
    kept.append(text[start:] if depth <= MAX_DEPTH else "")
    return "".join(kept)


def _integer(digits: str) -> int:
    # int() takes time that grows with the square of the digits; for `_mended` any integer out of range will do.
    return int(digits) if len(digits) <= _INT64_MAX_CHARACTERS else _INT64_MAX + 1


_DECODER = json.JSONDecoder(parse_int=_integer)


def _mend(
    container: dict[str, JsonValue] | list[JsonValue], path: Path, depth: int, oddities: Oddities, *, escapes: bool
) -> None:
    """Replace in `container` what cannot be stored.

    `depth`: how many containers enclose its items. `escapes`: a text may hold a character that cannot be stored.
    """
    if isinstance(container, dict):
        if escapes:
            for key in [key for key in container if _UNSTORABLE.search(key)]:
                oddities.add((path, key), _bad_text(f"A key of {render(path)} holds"))
                del container[key]
        for key, value in container.items():
            # Most values, here rather than by a call for each.
            if value is None or (isinstance(value, str) and not (escapes and _UNSTORABLE.search(value))):
                continue
            mended = _mended(value, (path, key), depth, oddities, escapes=escapes)
            if mended is not value:
                container[key] = mended
    else:
        for index, value in enumerate(container):
            if isinstance(value, str) and not escapes:
                continue
            mended = _mended(value, (path, index), depth, oddities, escapes=escapes)
            if mended is not value:
                container[index] = mended


def _mended(value: JsonValue, path: Path, depth: int, oddities: Oddities, *, escapes: bool) -> JsonValue:
    """`value` as it can be stored; null if it cannot."""
    if isinstance(value, str):
        if not _UNSTORABLE.search(value):
            return value
        oddities.add(path, _bad_text(f"{render(path)} holds"))
        return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict | list):
        if depth < MAX_DEPTH:
            _mend(value, path, depth + 1, oddities, escapes=escapes)
            return value
        oddities.add(
            path, Rejection(ErrorKind.TOO_DEEP, f"{render(path)} is nested more than {MAX_DEPTH} levels deep.")
        )
        return None
    if isinstance(value, float) and not math.isfinite(value):
        sentence = f"{render(path)} is not a finite number: NaN, Infinity, or beyond 64-bit floats."
        oddities.add(path, Rejection(ErrorKind.NOT_FINITE, sentence))
        return None
    if isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        sentence = f"{render(path)} is an integer beyond 64 bits; send it as a string if it is an id."
        oddities.add(path, Rejection(ErrorKind.WRONG_TYPE, sentence))
        return None
    return value


def _bad_text(subject: str) -> Rejection:
    return Rejection(ErrorKind.BAD_TEXT, f"{subject} a NUL character or a lone surrogate, which no store can hold.")
