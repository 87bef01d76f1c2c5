"""Request errors: what the status and message of a failed embedding request mean, for servers of several makes."""

import math
import re
import time
from email.utils import parsedate_to_datetime

import openai

_MAX_RETRY_AFTER_S = 120.0
"""A server that asks to wait longer than this is not waited for: the run fails, and a later one tries again."""

_TOO_LONG = re.compile(
    r"context.(?:length|size)|maximum.*(?:length|tokens)|too (?:long|large)"
    r"|(?:less|fewer) than \d+ tokens|max \d+ tokens",
    re.IGNORECASE | re.DOTALL,
)
"""How OpenAI, vLLM, text-embeddings-inference, llama.cpp and Ollama say that an input is too long."""

_TAKES_TOO_LONG = re.compile(r"(?:input|text|prompt|sequence)\b.{0,40}\btoo long", re.IGNORECASE | re.DOTALL)
"""For an answer whose status does not blame the input: there "too long" may also be about a server that was slow."""

LIMIT = re.compile(r"(?:length is|less than|fewer than|max|batch size:)\s+(\d+)", re.IGNORECASE)
"""The most tokens that the server takes, in its message; llama.cpp names its batch size as the limit."""

GIVEN = re.compile(r"(?:requested|given:|has|input \()\s*(\d+)", re.IGNORECASE)
"""The tokens that the input has, in the server's message."""


def message_of(error: openai.APIStatusError) -> str:
    """The server's message: OpenAI nests it, others answer with a plain string."""
    match error.body:
        case {"message": str(message)} | str(message):
            return message
    return error.message


def says_too_long(error: openai.APIStatusError) -> bool:
    if error.status_code == 413 or error.code == "context_length_exceeded":
        return True
    if is_out_of_quota(error):
        return False
    message = message_of(error)
    if error.status_code not in (400, 422):
        message = message if _TAKES_TOO_LONG.search(message) else message.replace("too long", "")
    return _TOO_LONG.search(message) is not None


def is_transient(error: BaseException) -> bool:
    if isinstance(error, openai.APIStatusError):
        return (
            (error.status_code in (408, 409, 429) or error.status_code >= 500)
            and not is_out_of_quota(error)
            and not says_too_long(error)
            and (retry_after_s(error) or 0) <= _MAX_RETRY_AFTER_S
        )
    # A time-out is not repeated, because the probe shows sooner whether the server hangs.
    return isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def is_out_of_quota(error: openai.APIStatusError) -> bool:
    return "insufficient_quota" in (error.code, error.type)


def retry_after_s(error: openai.APIStatusError) -> float | None:
    """Seconds that the server asks to wait, by Retry-After as a number or as a date; None without that header."""
    value = error.response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
