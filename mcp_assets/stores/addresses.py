"""Addresses of the stores as they may be shown: without passwords and tokens."""

import re
from urllib.parse import urlsplit, urlunsplit

_SECRET_PARAMETER = re.compile(r"((?:^|&)(?:password|sslpassword|api_key|token)=)[^&]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """`url` with its password, or a token in the user's place (NATS), and secret parameters starred out.

    Of several addresses, separated by commas, each.
    """
    if "," in url and "://" in url.partition(",")[2]:
        return ",".join(without_password(part) for part in url.split(","))
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if colon:
        credentials = f"{user}:***"
    elif credentials and parts.scheme in ("nats", "tls"):
        credentials = "***"
    query = _SECRET_PARAMETER.sub(r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}", query=query))
