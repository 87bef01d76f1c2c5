"""Loopback: addresses of this machine, which HTTP_PROXY and ALL_PROXY would send to a proxy that cannot reach them."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

_OWN = ("localhost", "127.0.0.1", "::1")


def is_loopback(url: str) -> bool:
    """`url` leads to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a child process, with this machine among the hosts that need no proxy."""
    changed = dict(environment)
    for variable in ("NO_PROXY", "no_proxy"):
        named = [host.strip() for host in environment.get(variable, "").split(",") if host.strip()]
        changed[variable] = ",".join([*named, *(host for host in _OWN if host not in named)])
    return changed


def unusable_proxy(variable: str, error: ImportError) -> str:
    """A sentence: the address in `variable` would be reached by a proxy that the HTTP client cannot use."""
    return (
        f"the address in {variable} would be reached by the proxy that ALL_PROXY or HTTPS_PROXY names, which cannot be "
        f"used ({str(error).partition('.')[0]}): add its host to NO_PROXY, name an http:// proxy, or install `socksio`"
    )
