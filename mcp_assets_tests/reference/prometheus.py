"""The metrics that Prometheus reads as a page of the reference, from their definitions."""

from mcp_assets.sync.metrics import METRICS, sample_names

_HEAD = """# Metrics for Prometheus

`mcp-assets metrics` serves these, and `mcp-assets metrics --once` prints them.
[Monitoring](../production/monitoring.md) says how to set it up, and has a board and alerts.
Figures that Dagster plots are [other ones](metrics.md).

If PostgreSQL does not answer, a scrape has `mcp_assets_up 0` and nothing else: what could not be read is not zero.
A gauge without a sample means that there is nothing of it, for example no message in the inbox.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def page() -> str:
    rows = [
        f"| `{name}{'_total' if one.kind == 'counter' else ''}` | {one.kind} | "
        f"{', '.join(f'`{label}`' for label in one.labels)} | {one.help} |\n"
        for name, one in METRICS.items()
    ]
    return _HEAD + "".join(rows)


def every_sample_name() -> set[str]:
    """The names under which Prometheus stores the samples."""
    return {name for metric in METRICS for name in sample_names(metric)}
