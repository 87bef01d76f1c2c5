"""`python -m mcp_assets.webserver`: Dagster's webserver with the guard before it; options as of dagster-webserver."""

import sys
from typing import Any

import dagster_webserver.app
import dagster_webserver.cli
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from mcp_assets.setting_errors import SettingsError
from mcp_assets.settings import Settings, read_settings
from mcp_assets.webserver.request_guard import RequestGuard

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def guard_of(settings: Settings) -> Middleware:
    """The guard, for the names and addresses in the settings."""
    urls = [settings.dagster_url] if settings.dagster_url else []
    names = [*_LOOPBACK, *settings.dagster_hosts, *(RequestGuard.name_in(url) for url in urls)]
    return Middleware(RequestGuard, names=names, urls=urls)


class GuardedWebserver(DagsterWebserver[Any, Any]):
    """Dagster's webserver with the guard before it, and pages that no other site can show in a frame."""

    guard: Middleware

    def build_middleware(self) -> list[Middleware]:
        return [self.guard, *super().build_middleware()]

    def make_security_headers(self) -> dict[str, Any]:
        return {
            **super().make_security_headers(),
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    def make_csp_header(self, nonce: str) -> str:
        return f"{super().make_csp_header(nonce).rstrip(' ;')}; frame-ancestors 'none'"


def main() -> None:
    """Serve the Dagster UI until a signal ends it."""
    try:
        GuardedWebserver.guard = guard_of(read_settings())
    except SettingsError as error:
        sys.exit(f"error: {error}")
    # Dagster's command names its class of webserver here, and has no option for another one.
    vars(dagster_webserver.app)["DagsterWebserver"] = GuardedWebserver
    dagster_webserver.cli.main()  # type: ignore[no-untyped-call] # Dagster gives it no types.


if __name__ == "__main__":
    main()
