"""Dagster's own storage in the platform's PostgreSQL, found through the settings: dagster.yaml names no address."""

from collections.abc import Mapping
from dataclasses import dataclass

from dagster_warm_launcher.postgres_storage import Silence, WarmPostgresStorage
from mcp_assets.settings import load_settings
from mcp_assets.stores.postgres.silence import LIBPQ_TIMEOUTS, SILENCE_LIMITS, SilenceLimits, is_silent, silence


class SettingsPostgresStorage(WarmPostgresStorage):
    """Dagster's storage at DATABASE_URL or in the embedded stack; a silent server is an error after the same time as
    for the platform's own connections."""

    silence_limits = SILENCE_LIMITS

    @classmethod
    def database_url(cls) -> str:
        """Raises SettingsError if neither DATABASE_URL is set nor an embedded stack runs."""
        return load_settings().require_database_url()

    @classmethod
    def connection_options(cls) -> Mapping[str, int]:
        return LIBPQ_TIMEOUTS

    @classmethod
    def silence(cls) -> Silence:
        return _Silence(cls.silence_limits)


@dataclass(frozen=True, slots=True)
class _Silence:
    limits: SilenceLimits

    @property
    def after_s(self) -> float:
        return self.limits.silent_s

    def reason(self, address: str) -> str | None:
        return silence(self.limits) if is_silent(address, self.limits) else None
