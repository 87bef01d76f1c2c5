"""TLS: which certificates the HTTP clients trust."""

import ssl
from pathlib import Path


def trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    """`verify` of an httpx client: the authority in `ca_file` alone; True, those of the machine, if there is none.

    Raises:
        ssl.SSLError: the file holds no certificate.
    """
    return True if ca_file is None else ssl.create_default_context(cafile=ca_file)
