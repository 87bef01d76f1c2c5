"""Provider outage: since when the embedding provider refuses everything, and when a run may try it again.

A run that meets such a provider fails, and its messages stay in the inbox. Without a bound, each sensor tick would ask
for the next run, which fails too. Therefore an outage is recorded, by model, from the first such failure until the
model embeds a text. While it lasts, one run at a time is asked for, each after twice the wait of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.stores.postgres import Connection

LONGEST_WAIT_S = 960.0
"""The longest time between two runs that try such a provider: recovery is noticed within it, for a few runs an hour."""


@dataclass(frozen=True, slots=True)
class ProviderOutage:
    """A model whose provider embeds nothing. `tries`: runs that were let through to it, the first one counted."""

    model: str
    reason: str
    since: datetime
    tries: int
    next_try_at: datetime
    next_try_in_s: float

    @property
    def sentence(self) -> str:
        return (
            f"the embedding provider has embedded nothing with {self.model} since {_time(self.since)}; the next run "
            f"that tries it is asked for after {_time(self.next_try_at)}: {self.reason}"
        )


def wait_s(tries: int, first_s: float) -> float:
    """Seconds from the failure of try number `tries`, counted from 1, to the next try: doubling, up to a bound."""
    return min(first_s * 2.0 ** min(tries - 1, 30), max(first_s, LONGEST_WAIT_S))


def to_ask_for(entity_types: Sequence[str], outages: Sequence[ProviderOutage]) -> list[str]:
    """The types for which runs may be asked: all of `entity_types` without an outage, the first if a try is due."""
    if not outages:
        return list(entity_types)
    return list(entity_types[:1]) if all(outage.next_try_in_s <= 0 for outage in outages) else []


def let_through(platform: Platform, entity_types: Sequence[str]) -> list[str]:
    """The types for which runs are to be asked now. A try that is due is claimed and counted by this."""
    if not entity_types:
        return []
    outages = provider_outages(platform)
    chosen = to_ask_for(entity_types, outages)
    claimed = [_claim(platform, outage) for outage in outages] if chosen else []
    return chosen if all(claimed) else []


def provider_outages(platform: Platform) -> list[ProviderOutage]:
    """The outages of the configured models, the earliest first."""
    profiles = [platform.settings.profile, platform.settings.previous_profile]
    models = [profile.key for profile in profiles if profile is not None]
    with platform.postgres.transaction() as connection:
        return platform.postgres.rows(connection, "provider_outages", ProviderOutage, {"models": models})


def provider_refuses(platform: Platform, profile: ModelProfile, reason: str) -> None:
    """Record that the provider embeds nothing now. The many batches of one run count as one try."""
    key = {"model": profile.key}
    with platform.postgres.transaction() as connection:
        known = connection.execute(platform.postgres.query("lock_provider_outage"), key).fetchone()
        tries, due = known or (0, True)
        if due:
            _write(platform, connection, key["model"], reason, tries + 1)


def provider_answers(platform: Platform, profile: ModelProfile) -> None:
    """Record that the provider has embedded a text: an outage, if there was one, is over."""
    with platform.postgres.transaction() as connection:
        connection.execute(platform.postgres.query("end_provider_outage"), {"model": profile.key})


def _write(platform: Platform, connection: Connection, model: str, reason: str, tries: int) -> None:
    connection.execute(
        platform.postgres.query("write_provider_outage"),
        {
            "model": model,
            "reason": reason,
            "tries": tries,
            "wait_s": wait_s(tries, platform.settings.provider_retry_s),
        },
    )


def _claim(platform: Platform, outage: ProviderOutage) -> bool:
    """Whether this process is the one that tries. The try is counted now, so that a run that dies counts, too."""
    with platform.postgres.transaction() as connection:
        claimed = connection.execute(
            platform.postgres.query("claim_provider_try"),
            {
                "model": outage.model,
                "tries": outage.tries,
                "wait_s": wait_s(outage.tries + 1, platform.settings.provider_retry_s),
            },
        ).fetchone()
    return claimed is not None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
