"""How the work is done: batches, retries, drains, sweep, schedules."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import CronSchedule


class WorkFields(BaseSettings):
    """How the work is done: batches, retries, drains, sweep, schedules."""

    batch_size: int = Field(
        default=256,
        ge=1,
        le=2048,
        validation_alias="MCP_ASSETS_BATCH_SIZE",
        description="Entities read, embedded and committed together.",
    )
    shards: int = Field(
        default=4, ge=1, le=1024, validation_alias="MCP_ASSETS_SHARDS", description="Partitions an entity type."
    )
    partitions_a_run: NonNegativeInt = Field(
        default=0,
        validation_alias="MCP_ASSETS_PARTITIONS_A_RUN",
        description="Partitions that one run of a full sync covers, so that several workers share it; 0: one run "
        "covers all.",
    )
    retry_attempts: PositiveInt = Field(
        default=3,
        validation_alias="MCP_ASSETS_RETRY_ATTEMPTS",
        description="Tries of a failing call to a store or provider.",
    )
    retry_delay_ms: PositiveInt = Field(
        default=1000,
        validation_alias="MCP_ASSETS_RETRY_DELAY_MS",
        description="Wait before the second try; doubles with each.",
    )
    store_wait_s: NonNegativeFloat = Field(
        default=600.0,
        validation_alias="MCP_ASSETS_STORE_WAIT_S",
        description="Seconds a run that has embedded waits for a store that is away, before it fails.",
    )
    mass_delete_share: float = Field(
        default=0.2,
        gt=0,
        le=1,
        validation_alias="MCP_ASSETS_MASS_DELETE_SHARE",
        description="Share of an entity type above which a full sync or repair asks before it removes so many.",
    )
    sweep: bool = Field(
        default=True,
        validation_alias="MCP_ASSETS_SWEEP",
        description="Compare source tables with the ledger all the time, at no more than 1 % of a core.",
    )
    sweep_rows: PositiveInt = Field(
        default=1000,
        validation_alias="MCP_ASSETS_SWEEP_ROWS",
        description="Rows of a type that one pass of the sweep acts on; if more differ, it only reports them.",
    )
    sensor_tick_s: PositiveFloat = Field(
        default=50.0,
        le=300,
        validation_alias="MCP_ASSETS_SENSOR_TICK_S",
        description="Seconds a sensor waits for work in one tick.",
    )
    drain_linger_s: NonNegativeFloat = Field(
        default=5.0,
        validation_alias="MCP_ASSETS_DRAIN_LINGER_S",
        description="Seconds a drain stays after the last work.",
    )
    drain_max_s: PositiveFloat = Field(
        default=180.0,
        validation_alias="MCP_ASSETS_DRAIN_MAX_S",
        description="Seconds after which a drain ends and the next one takes over.",
    )
    census_cron: CronSchedule = Field(
        default="23 * * * *",
        validation_alias="MCP_ASSETS_CENSUS_CRON",
        description="When the census of everything is taken, and the checks after it.",
    )
    reconcile_cron: CronSchedule = Field(
        default="43 2 * * *",
        validation_alias="MCP_ASSETS_RECONCILE_CRON",
        description="When everything is compared with the source tables, as cron has it, UTC.",
    )
    tag_weights_cron: CronSchedule = Field(
        default="17 3 * * *",
        validation_alias="MCP_ASSETS_TAG_WEIGHTS_CRON",
        description="When the weights of tags are counted again, as cron has it, UTC.",
    )
    clean_up_cron: CronSchedule = Field(
        default="13 4 * * *",
        validation_alias="MCP_ASSETS_CLEAN_UP_CRON",
        description="When old runs are deleted, as cron has it, UTC.",
    )
    keep_runs_days: PositiveFloat = Field(
        default=30.0,
        validation_alias="MCP_ASSETS_KEEP_RUNS_DAYS",
        description="Days after which a finished run is deleted, with its events; so are observations of sources.",
    )
