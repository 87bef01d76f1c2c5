"""How good the index has to be: golden file, thresholds of the asset `quality`, gate of a change of model."""

from pydantic import Field
from pydantic_settings import BaseSettings

from mcp_assets.setting_fields.values import CronSchedule, ReadableFile


class QualityFields(BaseSettings):
    """How good the index has to be: golden file, thresholds of the asset `quality`, gate of a change of model."""

    golden_file: ReadableFile = Field(
        default=None,
        validation_alias="MCP_ASSETS_GOLDEN_FILE",
        description="Questions with the entities that answer them, as JSON lines or .tsv; docs/how-to/quality.md.",
    )
    quality_cron: CronSchedule = Field(
        default="37 4 * * 1",
        validation_alias="MCP_ASSETS_QUALITY_CRON",
        description="When quality is measured, as cron has it, UTC.",
    )
    quality_recall: float = Field(
        default=0.2,
        ge=0,
        le=1,
        validation_alias="MCP_ASSETS_QUALITY_RECALL",
        description="Share of explicit links that semantic and topical edges have to find; below it, a check warns.",
    )
    quality_hit_5: float = Field(
        default=0.8,
        ge=0,
        le=1,
        validation_alias="MCP_ASSETS_QUALITY_HIT_5",
        description="Share of golden questions with an answer among the first five; below it, a check warns.",
    )
    model_gate_margin: float = Field(
        default=0.02,
        ge=0,
        le=1,
        validation_alias="MCP_ASSETS_MODEL_GATE_MARGIN",
        description="By how much the hits and ranks of a new model may be lower than those of the one that serves; "
        "beyond it, a person decides; docs/how-to/change-model.md.",
    )
