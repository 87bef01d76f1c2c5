"""TLS: which certificates the HTTP clients trust."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit


def trusted(ca_file: Path | None, url: str) -> ssl.SSLContext | bool:
    """`verify` of an httpx client for `url`: the authority in `ca_file` alone; without one, True, those of the machine.

    For an address without TLS, nothing is trusted: to load the machine's authorities takes 20 ms and 14 MB.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    if ca_file is not None:
        return authority_in(ca_file)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if urlsplit(url).scheme == "http" else True


def authority_in(ca_file: Path) -> ssl.SSLContext:
    """A context that trusts the authority in `ca_file` alone.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    return ssl.create_default_context(cafile=ca_file)
