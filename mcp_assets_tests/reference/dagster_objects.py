"""Assets, checks, jobs, schedules and sensors as a page of the reference, made from the definitions."""

import re
from collections.abc import Iterable

from mcp_assets.definitions import build_defs
from mcp_assets.settings import Settings

_HEAD = """# Assets, checks, jobs, schedules, sensors

What the Dagster UI shows, for the entity types of the preset `mcp`.

"""


def page() -> str:
    settings = Settings(_env_file=None, MCP_ASSETS_ALERT_WEBHOOK="https://hooks.example.com/alerts")  # type: ignore[call-arg]
    definitions = build_defs(settings)
    repository = definitions.get_repository_def()
    graph = repository.asset_graph
    parts = [
        _HEAD,
        "## Assets\n\nAn asset without partitions stands for a table or a stream that others write.\n\n",
        _table(
            ("asset", "partitions", "what it is"),
            (
                (
                    node.key.to_user_string(),
                    "type and shard" if node.partitions_def else "",
                    (node.description or "").partition("\n\n")[0],
                )
                for node in graph.asset_nodes
            ),
        ),
        "\n## Checks\n\n[When a check fails](../how-to/failed-checks.md) says what to do about each.\n\n",
        _table(
            ("check", "on", "what it says"),
            (
                (spec.name, spec.asset_key.to_user_string(), spec.description)
                for key in graph.asset_check_keys
                for spec in [graph.get_check_spec(key)]
            ),
        ),
        "\n## Jobs\n\n",
        _table(
            ("job", "what it does"),
            ((job.name, job.description) for job in repository.get_all_jobs() if not job.name.startswith("__")),
        ),
        "\n## Schedules\n\n",
        _table(
            ("schedule", "when (UTC)", "what it starts"),
            ((one.name, f"`{one.cron_schedule}`", one.description) for one in repository.schedule_defs),
        ),
        "\n## Sensors\n\nThe two sensors of alerts are there if `MCP_ASSETS_ALERT_WEBHOOK` is set.\n\n",
        _table(("sensor", "what it does"), ((one.name, one.description) for one in repository.sensor_defs)),
    ]
    return "".join(parts)


def _table(headings: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for row in sorted(rows, key=lambda row: row[0] or ""):
        name, *others = row
        lines.append(f"| `{name}` | " + " | ".join(_cell(other) for other in others) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|").strip()
