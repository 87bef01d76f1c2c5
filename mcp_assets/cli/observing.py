"""The commands `metrics` and `costs`: what the platform shows to Prometheus, and what embedding costs."""

import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, print_json, print_rows, say

if TYPE_CHECKING:
    from mcp_assets.sync.index.embedding_costs import Budget, DailyCost


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on; it asks for no password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9464,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics and exit; 3 if PostgreSQL is away.")] = False,
) -> None:
    """Serve metrics to Prometheus over HTTP, until Ctrl-C; or print them once. It reads from PostgreSQL alone."""
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from mcp_assets.sync.metrics import UP, PlatformCollector

    with connected(reads_only=True) as platform:
        registry = CollectorRegistry()
        registry.register(PlatformCollector(platform))
        if once:
            sys.stdout.write(generate_latest(registry).decode())
            if not registry.get_sample_value(UP):
                raise typer.Exit(Exit.UNAVAILABLE)
            return
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise OSError(
                f"metrics cannot be served on {host}:{port} ({error.strerror}): give another --port"
            ) from error
        try:
            say(f"metrics: http://{host}:{server.server_port}/metrics  (Ctrl-C ends it)")
            threading.Event().wait()
        finally:
            server.shutdown()
            thread.join()


def costs(
    days: Annotated[int, typer.Option(min=1, max=3650, help="How many days, today among them.")] = 30,
    raise_today: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="DOLLARS", help="Allow so much more today; full syncs that pause go on."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what was embedded on each day (UTC), by entity type and model: texts, tokens, US dollars; and the budget."""
    from mcp_assets.setting_errors import SettingsError
    from mcp_assets.sync.index.embedding_costs import budget_today, costs_by_day, raise_budget

    with connected(reads_only=raise_today is None) as platform:
        if raise_today is not None:
            if platform.settings.embedding_budget_a_day is None:
                raise SettingsError("there is no budget to raise: EMBEDDING_BUDGET_A_DAY is not set")
            raise_budget(platform, raise_today)
        found, budget = costs_by_day(platform, days), budget_today(platform)
        priced = platform.usd_per_million_tokens(platform.settings.profile) is not None
    if json:
        limited = platform.settings.embedding_budget_a_day is not None
        today = {"spent_usd": budget.spent_usd, "allowed_usd": budget.allowed_usd if limited else None}
        print_json({"today": today, "days": [asdict(one) for one in found]})
        return
    rows = [
        (str(one.day), one.entity_type, one.model, f"{one.texts:,}", _tokens(one), _dollars(one.usd)) for one in found
    ]
    if rows:
        texts, tokens = sum(one.texts for one in found), sum(one.tokens for one in found)
        rows.append(("all", "", "", f"{texts:,}", f"{tokens:,}", _dollars(sum(one.usd for one in found))))
        print_rows(("day", "type", "model", "texts", "tokens", "US dollars"), rows, ids=("model",))
    else:
        say(f"nothing was embedded in the last {days} days" if days > 1 else "nothing was embedded today")
    for line in _sentences(found, budget, priced=priced):
        say(line)


def _sentences(found: "list[DailyCost]", budget: "Budget", *, priced: bool) -> list[str]:
    lines = []
    if any(one.estimated_tokens for one in found):
        lines.append("~ tokens are estimated by the length of the texts, because the provider does not count them")
    if not priced:
        lines.append("the price of the model is not known, so that it counts as 0: set EMBEDDING_PRICE")
    if budget.allowed_usd == float("inf"):
        lines.append(f"today: {_dollars(budget.spent_usd)}, without a limit (EMBEDDING_BUDGET_A_DAY)")
    elif budget.is_spent:
        lines.append(budget.sentence)
    else:
        lines.append(f"today: {_dollars(budget.spent_usd)} of {_dollars(budget.allowed_usd)} (EMBEDDING_BUDGET_A_DAY)")
    return lines


def _tokens(one: "DailyCost") -> str:
    return f"{'~' if one.estimated_tokens else ''}{one.tokens:,}"


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 or not usd else "less than $0.01"
