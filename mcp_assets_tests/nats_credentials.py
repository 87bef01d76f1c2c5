"""NATS credentials made at run time: NKeys, and JWTs of operator, account and user as `nsc` has them."""

import base64
import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import nkeys

_CREDENTIALS = """-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


@dataclass(frozen=True)
class Identity:
    """One key pair. `seed` is the secret, `public` what the server's configuration names."""

    seed: str
    public: str

    def sign(self, content: bytes) -> bytes:
        signature: bytes = nkeys.from_seed(bytearray(self.seed.encode())).sign(content)
        return signature


def identity(kind: int = nkeys.PREFIX_BYTE_USER) -> Identity:
    """A new key pair of the kind, which is one of the prefix bytes of `nkeys`."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    return Identity(bytes(seed).decode(), nkeys.from_seed(bytearray(seed)).public_key.decode())


@dataclass(frozen=True)
class OperatorMode:
    """A server in which JWTs decide, with one account that has JetStream, and one user of it."""

    configuration: str
    """Lines for the server's configuration."""
    credentials: str
    """Content of the user's file of credentials."""


def operator_mode() -> OperatorMode:
    operator, account, system, user = (
        identity(kind)
        for kind in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    no_limit = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    streams = dict.fromkeys(("disk_storage", "mem_storage", "streams", "consumer"), -1)
    accounts = {
        account.public: _jwt(operator, account, {"limits": {**no_limit, **streams, "wildcards": True}}, "account"),
        system.public: _jwt(operator, system, {"limits": {**no_limit, "wildcards": True}}, "account"),
    }
    preloaded = "\n".join(f"{public}: {jwt}" for public, jwt in accounts.items())
    own = _jwt(operator, operator, {"system_account": system.public}, "operator")
    return OperatorMode(
        f"operator: {own}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload {{ {preloaded} }}",
        _CREDENTIALS.format(jwt=_jwt(account, user, {"subs": -1, "data": -1, "payload": -1}, "user"), seed=user.seed),
    )


def _jwt(issuer: Identity, subject: Identity, claims: dict[str, Any], kind: str) -> str:
    body = {
        "iat": int(time.time()),
        "iss": issuer.public,
        "name": kind,
        "sub": subject.public,
        "nats": {**claims, "type": kind, "version": 2},
    }
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
