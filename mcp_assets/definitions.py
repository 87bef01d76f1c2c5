"""What Dagster loads: the assets, jobs, sensors and resources, assembled in one place."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import dagster as dg

from dagster_warm_launcher.before_fork import before_fork
from mcp_assets.defs.alerts import build_alert_sensors
from mcp_assets.defs.asset_checks import build_checks
from mcp_assets.defs.assets import build_census_asset, build_index_assets
from mcp_assets.defs.jobs import (
    build_census_job,
    build_checks_job,
    build_clean_up_job,
    build_dead_letters_job,
    build_index_job,
    build_reconcile_job,
    build_relate_job,
    build_repair_job,
    build_requests_job,
    build_tag_weights_job,
)
from mcp_assets.defs.observations import build_observation_sensor
from mcp_assets.defs.plan import build_plan_job
from mcp_assets.defs.quality import build_quality_asset, build_quality_job, build_quality_schedule
from mcp_assets.defs.resources import PlatformResource, platform_of
from mcp_assets.defs.schedules import (
    build_census_schedule,
    build_clean_up_schedule,
    build_reconcile_schedule,
    build_tag_weights_schedule,
)
from mcp_assets.defs.sensors import build_relationship_sensor, build_sync_sensor, build_vector_index_sensor
from mcp_assets.defs.sources import build_sources
from mcp_assets.embedding.local import load_model
from mcp_assets.logs import write_logs
from mcp_assets.settings import Settings, load_settings


def build_defs(
    settings: Settings,
    resource_overrides: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """All definitions for `settings`; a test overrides single resources and keeps the rest.

    `executor`: of runs that belong to no job. The jobs have theirs.
    """
    write_logs(settings.log_format)
    tag_weights = build_tag_weights_job()
    census = build_census_job()
    clean_up = build_clean_up_job(settings)
    quality = build_quality_job()
    return dg.Definitions(
        assets=[
            build_sources(settings),
            build_index_assets(settings),
            build_census_asset(settings),
            build_quality_asset(settings),
        ],
        asset_checks=[build_checks()],
        jobs=[
            build_index_job(),
            build_relate_job(),
            tag_weights,
            census,
            build_checks_job(),
            build_repair_job(),
            build_requests_job(),
            build_dead_letters_job(),
            build_reconcile_job(),
            build_plan_job(),
            quality,
            clean_up,
        ],
        schedules=[
            build_tag_weights_schedule(settings, tag_weights),
            build_census_schedule(settings, census),
            build_reconcile_schedule(settings),
            build_clean_up_schedule(settings, clean_up),
            build_quality_schedule(settings, quality),
        ],
        sensors=[
            build_vector_index_sensor(settings),
            build_relationship_sensor(settings),
            build_sync_sensor(settings),
            build_observation_sensor(settings),
            *(build_alert_sensors(settings) if settings.alert_webhook else ()),
        ],
        resources={"platform": PlatformResource(), **(resource_overrides or {})},
        executor=executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Dagster's entry, by the settings in the environment."""
    settings = load_settings()
    load_ahead(settings)
    return build_defs(settings)


def component_defs(given: Mapping[str, Any]) -> dg.Definitions:
    """The definitions for a component, by what its defs.yaml gives: values by field of the settings.

    They set no executor, because that would be the executor of the whole project.

    Raises:
        SettingsError: a setting is wrong, or the environment says another value than the component.
    """
    settings = load_settings(given)
    load_ahead(settings)
    return build_defs(settings, {"platform": platform_of(given)}, executor=None)


_NEEDED_BY_RUNS = (
    "encodings.idna",
    "httpcore",
    "importlib.readers",
    "mcp_assets.stores.nats",
    "numpy.ma",
    "qdrant_client",
)
"""What runs load on first use, and most commands and the start of a code server do not. Loaded in a fork, it would be
memory that each run has for itself."""

_NEEDED_BY_REQUESTS = ("mcp_assets.embedding.openai_compatible", "httpcore2", "openai.resources.embeddings")
"""The same, where texts are sent to a provider: the SDK loads the last two with its first client and first request."""


def load_ahead(settings: Settings) -> None:
    """Have the process from which the warm launcher forks runs load what they need. Here nothing is loaded."""
    before_fork(f"mcp_assets, {settings.provider}", partial(_load_for_runs, settings.provider))


def _load_for_runs(provider: str) -> None:
    for name in (*_NEEDED_BY_RUNS, *(_NEEDED_BY_REQUESTS if provider == "openai" else ())):
        # A package may call its parts otherwise in its next version. A run would load them then, and is not refused.
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    if provider == "local":
        load_model()
