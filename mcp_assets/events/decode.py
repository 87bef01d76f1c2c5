"""decode: bytes to a JSON object that PostgreSQL, UTF-8 and JSON itself can hold, in time linear in the bytes.

Stricter than `json.loads`: no NaN or Infinity, no integer beyond 64 bits, no NUL or lone surrogate, 32 levels, 1 MiB.
As in `json.loads`, the last of several equal keys counts. A UTF-8 byte order mark is skipped (RFC 8259 section 8.1).
"""

import codecs
import json
import math
import re

from mcp_assets.events.model import ErrorKind, JsonValue
from mcp_assets.events.refusal import ROOT, Path, Refusal, json_type, render

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_INT64_MAX_CHARACTERS = len(str(_INT64_MIN))

_JSON_WHITE_SPACE = b" \t\r\n"
# A decoded str holds a surrogate only if it is a lone one.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def decode(raw: bytes) -> dict[str, JsonValue]:
    """Raises Refusal (empty, too_large, bad_json, not_an_object, too_deep, not_finite, wrong_type, bad_text)."""
    if len(raw) > MAX_BYTES:
        raise Refusal(ErrorKind.TOO_LARGE, f"The message has {len(raw)} bytes; at most {MAX_BYTES} are read.")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip(_JSON_WHITE_SPACE):
        raise Refusal(ErrorKind.EMPTY, "The message is empty.")
    try:
        document: JsonValue = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refusal(ErrorKind.BAD_JSON, f"The message is not UTF-8: {error.reason} at byte {error.start}.") from None
    except json.JSONDecodeError as error:
        fault = error.msg.rstrip(": ").removesuffix(" at")
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(ErrorKind.BAD_JSON, f"The message is not JSON: {fault} at {where}.") from None
    except RecursionError:
        raise _too_deep(ROOT) from None
    if not isinstance(document, dict):
        raise Refusal(ErrorKind.NOT_AN_OBJECT, f"The message is {json_type(document)}, and must be a JSON object.")
    _check(document, ROOT, 1)
    return document


def _integer(digits: str) -> int:
    # int() takes time that grows with the square of its digits; any integer out of range does for `_check`.
    return int(digits) if len(digits) <= _INT64_MAX_CHARACTERS else _INT64_MAX + 1


_DECODER = json.JSONDecoder(parse_int=_integer)


def _check(value: JsonValue, path: Path, depth: int) -> None:
    """`depth`: how many objects and lists enclose `value`, itself included if it is one."""
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise _bad_text(f"{render(path)} holds")
    elif isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise _too_deep(path)
        for key, field in value.items():
            if _UNSTORABLE.search(key):
                raise _bad_text(f"A key of {render(path)} holds")
            _check(field, (path, key), depth + 1)
    elif isinstance(value, list):
        if depth > MAX_DEPTH:
            raise _too_deep(path)
        for index, item in enumerate(value):
            _check(item, (path, index), depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Refusal(
                ErrorKind.NOT_FINITE, f"{render(path)} is not a finite number: NaN, Infinity, or beyond 64-bit floats."
            )
    elif isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        raise Refusal(
            ErrorKind.WRONG_TYPE, f"{render(path)} is an integer beyond 64 bits; send it as a string if it is an id."
        )


def _bad_text(subject: str) -> Refusal:
    return Refusal(ErrorKind.BAD_TEXT, f"{subject} a NUL character or a lone surrogate, which no store can hold.")


def _too_deep(path: Path) -> Refusal:
    return Refusal(ErrorKind.TOO_DEEP, f"{render(path)} is nested more than {MAX_DEPTH} levels deep.")
