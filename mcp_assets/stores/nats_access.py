"""NATS access: the credentials and certificates by which the platform signs in, as options of the client."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_assets.stores.errors import StoreRefused


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """Paths of files, each by its setting; None: it is not set. A password or token stands in the address instead."""

    creds_file: Path | None = None
    nkey_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    def demands_tls(self, servers: Sequence[str]) -> bool:
        """Nothing is sent to a server without TLS: otherwise a server in between could ask for the plain password."""
        files = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        return any(files) or any(server.startswith(("tls://", "wss://")) for server in servers)

    def options(self) -> dict[str, Any]:
        """Options of `nats.aio.client.Client.connect`.

        Raises:
            StoreRefused: a file holds something else than its setting says.
        """
        options: dict[str, Any] = {}
        if self.creds_file is not None:
            _seed_in(self.creds_file, "NATS_CREDS_FILE")
            options["user_credentials"] = str(self.creds_file)
        if self.nkey_file is not None:
            # The client reads a file to its last byte, and takes the line break there for a part of the seed.
            options["nkeys_seed_str"] = _seed_in(self.nkey_file, "NATS_NKEY_FILE")
        if any((self.tls_ca_file, self.tls_cert_file)):
            options["tls"] = self._tls()
        return options

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.tls_ca_file)
        except ssl.SSLError as error:
            raise StoreRefused(
                f"NATS_TLS_CA_FILE: {self.tls_ca_file} holds no certificate in PEM form ({_reason(error)})"
            ) from error
        if self.tls_cert_file is not None:
            try:
                context.load_cert_chain(self.tls_cert_file, self.tls_key_file)
            except ssl.SSLError as error:
                raise StoreRefused(
                    f"NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE: {self.tls_cert_file} and {self.tls_key_file} are no "
                    f"certificate in PEM form with its key ({_reason(error)})"
                ) from error
        return context


def _seed_in(path: Path, setting: str) -> str:
    """The seed of a user in the file. Raises StoreRefused if there is none: the client's own error names no file."""
    # Not at the top, because it loads libsodium, which most processes do not need.
    import nkeys

    try:
        seed = next(word for word in path.read_text().split() if word.startswith("SU"))
        nkeys.from_seed(bytearray(seed.encode()))
    except (OSError, ValueError, StopIteration, nkeys.NkeysError):
        # Without the cause, because it may quote the seed.
        raise StoreRefused(
            f"{setting}: {path} holds no seed of a user (SU…): give the file that `nsc` or `nk -gen user` wrote"
        ) from None
    return seed


def tls_fault(error: Exception) -> str | None:
    """A sentence about a failed TLS handshake with NATS, and what to do; None if `error` is of another kind."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of NATS is not trusted ({error.verify_message or _reason(error)}): set NATS_TLS_CA_FILE "
            "to the certificate of the authority that signed it, and name the server as its certificate does"
        )
    if isinstance(error, ssl.SSLError):
        reason = _reason(error)
        if "certificate" in reason or "alert" in reason:
            return (
                f"NATS ended the TLS handshake ({reason}): if it asks clients for a certificate, set "
                "NATS_TLS_CERT_FILE and NATS_TLS_KEY_FILE to one that it trusts"
            )
        return f"the TLS handshake with NATS failed ({reason})"
    return None


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


PLAIN = NatsAccess()
"""No files: the address says all."""
