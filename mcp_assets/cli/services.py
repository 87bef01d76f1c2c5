"""Commands for the services: the embedded stack, Dagster on top of it, and a check of each."""

import os
import shlex
import sys
import textwrap
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import Exit, Json, out, print_json, say, say_error, say_progress, shown
from mcp_assets.cli.steps import Steps, loading

if TYPE_CHECKING:
    from pydantic import SecretStr

    from mcp_assets.settings import Settings
    from mcp_assets.sync.views.doctor import Diagnosis


class StoreName(StrEnum):
    POSTGRES = "postgres"
    NATS = "nats"
    QDRANT = "qdrant"
    SOURCE = "source"


def up(json: Json = False) -> None:
    """Start the embedded stack, all parts that no setting replaces, and make its tables."""
    with loading():
        from mcp_assets.platform import Platform  # noqa: F401  (what `start_stack` works with)

    with Steps(quiet=json) as steps:
        settings = start_stack(steps)
    if json:
        print_json({"state_dir": str(settings.state_dir), **addresses_of(settings)})
        return
    for name, address in addresses_of(settings).items():
        say(f"{name}: {address}")


def down(json: Json = False) -> None:
    """Stop the embedded stack. Its data stays."""
    from mcp_assets.embedded import stack
    from mcp_assets.settings import read_settings

    stopped = stack.stop(read_settings().state_dir)
    if json:
        print_json({"stopped": stopped})
    else:
        say("stopped" if stopped else "nothing was running")


Port = Annotated[int | None, typer.Option(help="Port of the Dagster UI. [default: 3000, or the next free one]")]


def dev(
    port: Port = None,
    host: Annotated[str, typer.Option(help="Address the UI listens on; it has no password.")] = "127.0.0.1",
) -> None:
    """Start the stack and Dagster on it, until Ctrl-C. What dies is restarted. The stack stays up for the next time."""
    with loading():
        from mcp_assets.cli.dagster_dev import NotLoaded, dagster_dev, port_of_ui
        from mcp_assets.platform import Platform  # noqa: F401  (what `start_stack` works with)

    chosen, notice = port_of_ui(port, host)
    if notice:
        say_progress(notice)
    with Steps() as steps:
        settings = start_stack(steps)
    with (
        dagster_dev(dagster_environment(settings), settings.state_dir, port=chosen, host=host) as dagster,
        # Lines, because Dagster's services write to this terminal, too.
        Steps(table=False) as steps,
    ):
        try:
            dagster.wait_until_up(steps.look)
        except NotLoaded as error:
            # The keeper tries again, and the UI shows the error with its place.
            say_error(error)
        say(f"Dagster UI: {dagster.url}  (Ctrl-C ends Dagster; `mcp-assets down` ends the stack)")
        dagster.stay()


def env() -> None:
    """Print what Dagster's own commands need as shell exports: the settings and DAGSTER_HOME.

    Secrets that came from the environment or from files are left out. The embedded stack's own are printed, because
    other programs of yours need them, too: keep the output to yourself.
    """
    from mcp_assets.settings import load_settings

    for name, value in exports(load_settings()).items():
        # Written as it is: a shell reads it.
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def doctor(json: Json = False) -> None:
    """Check each dependency: what is wrong with it and what to do. Exits with 1 if anything is."""
    from mcp_assets.sync.views.doctor import diagnose, failures

    findings = diagnose()
    failed = failures(findings)
    if json:
        print_json([{"name": f.name, "ok": f.ok, "state": f.state, "message": f.message} for f in findings])
    else:
        for finding in findings:
            _show_finding(finding)
        say(f"{failed} of {len(findings)} checks failed" if failed else "all is well")
    if failed:
        raise typer.Exit(Exit.FAILED)


_STATE_STYLES = {"ok": "green", "bad": "bold red", "not tried": "yellow"}

_INDENT = 4
"""Columns before a message that goes on in the next line."""


def _show_finding(finding: "Diagnosis") -> None:
    """A line, wrapped on a terminal below its name; in a pipe state, name and message between tabs."""
    message = shown(finding.message)
    if not out.is_terminal:
        out.file.write(f"{finding.state}\t{finding.name}\t{' '.join(message.split())}\n")
        return
    head = f"{finding.state}  {finding.name}: "
    lines = textwrap.wrap(
        head + message, out.width, subsequent_indent=" " * _INDENT, break_long_words=False, break_on_hyphens=False
    )
    text = Text("\n".join(lines))
    text.stylize(_STATE_STYLES[finding.state], 0, len(finding.state))
    text.stylize("bold", len(finding.state) + 2, len(head) - 2)
    out.print(text, soft_wrap=True)


def accept(
    store: Annotated[StoreName, typer.Argument(help="The store that was replaced, moved or restored.")],
) -> None:
    """Accept the server or database that answers now as this platform's, after it was replaced.

    A store that shows another mark than the recorded one counts as another program's, and nothing is written to it.
    """
    with connected() as platform:
        if store == StoreName.POSTGRES:
            mark = platform.postgres.accept()
        elif store == StoreName.NATS:
            mark = platform.nats.mark()
            platform.marks.accept("nats", mark)
        elif store == StoreName.SOURCE:
            platform.marks.accept_sources()
        else:
            mark = platform.accept_qdrant()
    if store == StoreName.SOURCE:
        say("the databases of source tables are known again by what answers at the next connection to each")
        return
    say(f"{store.value} is known by this from now on: {mark or 'nothing, for it shows no mark'}")
    if store == StoreName.POSTGRES:
        say(
            "if it was restored from a backup, `mcp-assets sync --full` and then `mcp-assets validate --repair` bring "
            "Qdrant and the edges to what it says"
        )
    else:
        say("`mcp-assets validate --repair` mends what the other one held differently")


def start_stack(steps: Steps) -> "Settings":
    """The stack up, its source tables and the platform's schema made, and the settings that lead there."""
    from mcp_assets.cli.load_entities import create_source_tables
    from mcp_assets.embedded import stack
    from mcp_assets.settings import read_settings

    settings = read_settings()
    replaced = {
        stack.Part.POSTGRES: settings.database_url,
        stack.Part.NATS: settings.nats_url,
        stack.Part.QDRANT: settings.qdrant_url,
    }
    parts = [part for part, url in replaced.items() if url is None]
    if parts:
        stack.start(settings.state_dir, parts, on_look=steps.look)
    with connected() as platform:
        resolved = platform.settings
        steps.look("tables", "are being made", False)
        if stack.Part.POSTGRES in parts and resolved.maps_sample_tables:
            create_source_tables(platform)
        if resolved.create_stream and len(resolved.streams) == 1:
            platform.nats.ensure_stream(resolved.streams[0])
            platform.nats.ensure_results_stream()
        steps.look("tables", "and the streams are there", True)
    return resolved


_SENSOR_TIMEOUT = "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS"

_QUIET_WARNINGS = "ignore:Function:FutureWarning"
"""Dagster says at each call of `dagster …` that the function of this command is superseded by `dg`. Both work."""

_NO_TELEMETRY = {"DAGSTER_DISABLE_TELEMETRY": "1"}
"""dagster.yaml turns it off; without this variable Dagster makes the folders of it in DAGSTER_HOME even so."""

_PROXY_VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def dagster_environment(settings: "Settings") -> dict[str, str]:
    """The environment for Dagster's processes: this one, with the state folder as an absolute path and long ticks."""
    from mcp_assets.loopback import without_proxy
    from mcp_assets.settings import named_files, variable_of

    environment = {
        **without_proxy(os.environ),
        **named_files(),
        "MCP_ASSETS_STATE_DIR": str(settings.state_dir.resolve()),
        # Dagster's processes may have other working folders, in which they would not find the file by its name.
        **({variable_of("sources_file"): str(settings.sources_file)} if settings.sources_file is not None else {}),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": _with_quiet_warnings(),
        **_NO_TELEMETRY,
        # As `dagster dev` has it: errors of the definitions are shown without Dagster's own frames.
        "DAGSTER_IS_DEV_CLI": "1",
        "DAGSTER_verbose": "",
    }
    if "sensor_tick_s" not in settings.model_fields_set and _SENSOR_TIMEOUT not in environment:
        # Ticks are long, because between two ticks of a sensor Dagster sleeps some seconds, in which no event is read.
        environment |= {_SENSOR_TIMEOUT: "300", variable_of("sensor_tick_s"): "280"}
    return environment


def _with_quiet_warnings() -> str:
    """PYTHONWARNINGS of this process, and before it the filter for what concerns nobody who uses Dagster's commands.

    The last filter that matches counts, so that those of the user win.
    """
    own = [text for text in os.environ.get("PYTHONWARNINGS", "").split(",") if text and text != _QUIET_WARNINGS]
    return ",".join([_QUIET_WARNINGS, *own])


def exports(settings: "Settings") -> Mapping[str, str]:
    """Environment variables for Dagster's commands: service addresses, what differs from the default, DAGSTER_HOME."""
    from mcp_assets.cli.project import dagster_home
    from mcp_assets.loopback import without_proxy
    from mcp_assets.settings import variable_of

    values = _settings_of(settings) | _access_to_stack(settings)
    values[variable_of("state_dir")] = str(Path(settings.state_dir).resolve())
    home = dagster_home(os.environ, settings.state_dir)
    if home is not None:
        values["DAGSTER_HOME"] = str(home)
    values |= {"PYTHONWARNINGS": _with_quiet_warnings(), **_NO_TELEMETRY}
    if any(os.environ.get(variable) for variable in _PROXY_VARIABLES):
        changed = without_proxy(os.environ)
        values |= {variable: changed[variable] for variable in ("NO_PROXY", "no_proxy")}
    return values


def _access_to_stack(settings: "Settings") -> dict[str, str]:
    """What other programs of this user need, too, to reach NATS and Qdrant of the embedded stack."""
    from mcp_assets.embedded import stack

    addresses = stack.addresses(settings.state_dir)
    values: dict[str, str] = {}
    if addresses is None:
        return values
    if addresses.nats_url and settings.nats_url and settings.nats_url.get_secret_value() == addresses.nats_url:
        values["NATS_URL"] = addresses.nats_url
    if addresses.qdrant_url and settings.qdrant_url == addresses.qdrant_url and addresses.qdrant_api_key:
        values["QDRANT_API_KEY"] = addresses.qdrant_api_key
    return values


def _settings_of(settings: "Settings") -> dict[str, str]:
    """The settings that differ from their defaults, and the paths of secret files.

    Secrets, and addresses with passwords, are left out.
    """
    from pydantic import SecretStr

    from mcp_assets.settings import Settings, named_files, variable_of
    from mcp_assets.stores.addresses import without_password

    values = named_files()
    from_files = {name.removesuffix("_FILE") for name in values}
    for field in Settings.model_fields:
        value = getattr(settings, field)
        if (
            variable_of(field) in from_files
            or field.endswith("api_key")
            or value is None
            or value == Settings.model_fields[field].default
        ):
            continue
        if field.endswith("_url"):
            url = value.get_secret_value() if isinstance(value, SecretStr) else value
            # An address with a password comes from the environment or a .env file, and need not be exported.
            if "***" not in without_password(url):
                values[variable_of(field)] = url
        elif isinstance(value, SecretStr):
            continue
        elif isinstance(value, tuple | dict):
            values[variable_of(field)] = settings.model_dump_json(include={field}).split(":", 1)[1][:-1]
        else:
            values[variable_of(field)] = str(value)
    return values


def addresses_of(settings: "Settings") -> dict[str, str | None]:
    """Where each service is, without passwords."""
    return {
        "postgres": _shown(settings.database_url),
        "nats": _shown(settings.nats_url),
        "qdrant": _shown(settings.qdrant_url),
    }


def _shown(address: "SecretStr | str | None") -> str | None:
    from mcp_assets.stores.addresses import without_password

    url = address if address is None or isinstance(address, str) else address.get_secret_value()
    return None if url is None else without_password(url)
