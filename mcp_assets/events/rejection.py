"""Rejection: the exception by which `parse` ends for a message that is no event, and how errors quote the message."""

import json
import re
from typing import TypeAlias

from mcp_assets.events.model import ErrorKind, JsonValue

Path: TypeAlias = "tuple[()] | tuple[Path, str | int]"
"""A path into a JSON document, innermost key last: () is the document, ((), "data") its field `data`."""

ROOT: Path = ()

_MAX_PATH_ECHO = 50
"""In characters; see _MAX_QUOTE_ECHO."""

_MAX_QUOTE_ECHO = 50
"""In characters. An error holds at most one path and one quotation: it echoes at most 100 characters of the input."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Rejection(Exception):
    """Raised inside `parse` only, which returns it as a `Rejected`."""

    def __init__(self, kind: ErrorKind, error: str) -> None:
        super().__init__(error)
        self.kind = kind
        self.error = error


def quote(text: str) -> str:
    """`text` in double quotes, cut to 50 characters, free of control characters and lone surrogates."""
    return _printable(_cut(text, _MAX_QUOTE_ECHO))


def render(path: Path) -> str:
    """`path` as a JSON path such as `$.data.tags[2]`, with at most 50 characters of the sender's keys."""
    steps: list[str | int] = []
    while path:
        path, step = path
        steps.append(step)
    left = _MAX_PATH_ECHO
    shown = "$"
    for step in reversed(steps):
        text = str(step)
        if left <= 0:
            return shown + "…"
        if isinstance(step, int):
            shown += f"[{step}]"
        elif len(text) <= left and _PLAIN_KEY.fullmatch(text):
            shown += f".{text}"
        else:
            shown += f"[{_printable(_cut(text, left))}]"
        left -= len(text)
    return shown


def json_type(value: JsonValue) -> str:
    """What `value` is in JSON's words, with an article: `a string`, `an object`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _printable(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
