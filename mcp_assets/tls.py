"""TLS: which certificates the HTTP clients trust."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit


def trusted(ca_file: Path | None, url: str | None = None) -> ssl.SSLContext | bool:
    """`verify` of an httpx client: the authority in `ca_file` alone; without one, True, those of the machine.

    `url`: the only address of a client that follows no redirects. If it is one without TLS, nothing is trusted: to load
    the machine's authorities takes 20 ms and 14 MB.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    if ca_file is not None:
        return authority_in(ca_file)
    without_tls = url is not None and urlsplit(url).scheme == "http"
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if without_tls else True


def authority_in(ca_file: Path) -> ssl.SSLContext:
    """A context that trusts the authority in `ca_file` alone.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    return ssl.create_default_context(cafile=ca_file)
