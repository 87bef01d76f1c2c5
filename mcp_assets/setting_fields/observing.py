"""What is seen from outside: figures, alerts, links."""

from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveInt
from pydantic_settings import BaseSettings, NoDecode

from mcp_assets.logs import VARIABLE, LogFormat
from mcp_assets.setting_fields.values import HttpUrl, WebhookUrl, json_list


class ObservingFields(BaseSettings):
    """What is seen from outside: figures, alerts, links."""

    log_format: LogFormat = Field(
        default="text",
        validation_alias=VARIABLE,
        description="`text` or `json`: how processes write their logs; in JSON, a line for each batch, too.",
    )
    traces: bool = Field(
        default=False,
        validation_alias="MCP_ASSETS_TRACES",
        description="Send OpenTelemetry traces of messages that name one; needs the extra `otel`.",
    )
    otlp_endpoint: HttpUrl = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Collector of traces, by OTLP over HTTP; setting it turns traces on.",
    )
    observe_every_s: PositiveInt = Field(
        default=300,
        validation_alias="MCP_ASSETS_OBSERVE_EVERY_S",
        description="Seconds between two looks at source tables and streams, whose figures Dagster plots.",
    )
    alert_webhook: WebhookUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_ALERT_WEBHOOK",
        description="Address to which failed runs and checks are posted, as Slack takes them; docs/how-to/alerts.md.",
    )
    alert_warnings: bool = Field(
        default=True, validation_alias="MCP_ASSETS_ALERT_WARNINGS", description="Post checks that warn, as warnings."
    )
    alert_every_s: PositiveInt = Field(
        default=15, validation_alias="MCP_ASSETS_ALERT_EVERY_S", description="Seconds between two looks for alerts."
    )
    dagster_url: HttpUrl = Field(
        default=None,
        validation_alias="MCP_ASSETS_DAGSTER_URL",
        description="Where people reach the Dagster UI, which serves that name; posts to that webhook link to it.",
    )
    dagster_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(json_list)] = Field(
        default=(),
        validation_alias="MCP_ASSETS_DAGSTER_HOSTS",
        description="JSON list of further host names of the Dagster UI, as a proxy in front gives them.",
    )
    docs_url: HttpUrl = Field(
        default=None, validation_alias="MCP_ASSETS_DOCS_URL", description="The site of these pages; the UI links to it."
    )
