"""Logs: lines of JSON for programs that collect logs, or the text that each process writes by itself.

In JSON, each line of a run names the run, its job and its partitions. A line about entities or one partition names
these, too. Work is logged by batch, one line each at the level INFO; text shows warnings and errors alone.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from structlog.typing import EventDict

LogFormat = Literal["text", "json"]

VARIABLE = "MCP_ASSETS_LOG_FORMAT"
"""The setting, for processes that read no other."""

LOGGERS = ("mcp_assets", "dagster_warm_launcher")
"""Whose lines are written as JSON. Dagster has a format of its own: `--log-format json`."""

FIELDS = frozenset({"entity_type", "entities", "partition", "partitions", "counts", "seconds", "stage"})
"""What a line may say beside its message, by `extra` of `logging`."""

ENTITIES_NAMED = 20
"""Entities that one line names: a line of thousands is cut by what collects it."""


class _Process:
    """What is true of each line that this process writes. A process works on one run at a time."""

    lock = threading.Lock()
    fields: Mapping[str, object] = {}


def describe_process(**fields: object) -> None:
    """Have each line of this process say `fields`, in place of those before."""
    with _Process.lock:
        _Process.fields = {name: value for name, value in fields.items() if value}


def _add_process(_logger: Any, _method: str, event: "EventDict") -> "EventDict":
    return {**event, **{name: value for name, value in _Process.fields.items() if name not in event}}


def json_formatter() -> logging.Formatter:
    """Formats a record of `logging` as one line of JSON: timestamp, level, logger, message, fields, exception."""
    # Not at the top, because most processes write text.
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            _add_process,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )


class _JsonHandler(logging.Handler):
    """The handler that `write_logs` adds. It writes to what standard error is at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(json_formatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001  (as every handler of logging does: it says so on standard error)
            self.handleError(record)


def write_logs(log_format: LogFormat) -> None:
    """Have LOGGERS of this process write in `log_format` to standard error; may be called again."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        ours = [handler for handler in logger.handlers if isinstance(handler, _JsonHandler)]
        if log_format == "json" and not ours:
            logger.addHandler(_JsonHandler())
            logger.setLevel(logging.INFO)
            # Handlers of the root logger would write the same line as text.
            logger.propagate = False
        elif log_format == "text" and ours:
            for handler in ours:
                logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True


def use_json_if_set() -> None:
    """Have the handlers of the root logger write JSON, if the environment says so: for processes without settings."""
    if os.environ.get(VARIABLE) == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(json_formatter())
