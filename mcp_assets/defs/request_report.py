"""Request report: what a run of the job `requests` says in the UI about the requests that it answered."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from mcp_assets.sync.consistency.conflicts import Difference
from mcp_assets.sync.requests.sync_requests import Answer

_ROWS_SHOWN = 1_000
"""Rows of a table in the metadata, which Dagster stores and shows as a whole."""


@dataclass
class RequestReport:
    """What a run reports about its requests: their number, and tables of the first _ROWS_SHOWN."""

    answered: int = 0
    failed: int = 0
    first_error: str | None = None
    differences: int = 0
    answers: list[dg.TableRecord] = field(default_factory=list)
    decisions: list[dg.TableRecord] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.answered += 1
        self.differences += len(answer.differences)
        if answer.error is not None:
            self.failed += 1
            self.first_error = self.first_error or answer.error
        if len(self.answers) < _ROWS_SHOWN:
            self.answers.append(
                dg.TableRecord(
                    {
                        "sync_type": answer.request.request.sync_type.value,
                        "message_id": answer.request.message.message_id or "",
                        "counts": ", ".join(f"{k} {v}" for k, v in answer.result.get("counts", {}).items() if v),
                        "outcome": _outcome(answer),
                    }
                )
            )
        room = _ROWS_SHOWN - len(self.decisions)
        self.decisions += [dg.TableRecord(_row(one)) for one in answer.differences[:room]]

    def metadata(self) -> dict[str, dg.MetadataValue]:
        entries: dict[str, dg.MetadataValue] = {
            "requests": dg.MetadataValue.int(self.answered),
            "failed": dg.MetadataValue.int(self.failed),
            "answers": _table(self.answers, ["sync_type", "message_id", "counts", "outcome"]),
        }
        if self.decisions:
            entries["differences"] = dg.MetadataValue.int(self.differences)
            entries["decisions"] = _table(self.decisions, list(self.decisions[0].data))
        return entries


def answer_line(answer: Answer) -> str:
    request = answer.request
    return f"{request.request.sync_type}, message {request.message.message_id or request.message.seq}: " + _outcome(
        answer
    )


def _outcome(answer: Answer) -> str:
    if answer.error is not None:
        return answer.error if answer.is_final else f"put off: {answer.error}"
    return "done" if answer.is_final else f"served by the full sync {answer.result['backfill_id']}"


def _row(one: Difference) -> dict[str, str | bool]:
    return {name: value if isinstance(value, bool) else value or "" for name, value in one.as_dict().items()}


def _table(records: Sequence[dg.TableRecord], columns: Sequence[str]) -> dg.TableMetadataValue:
    schema = dg.TableSchema(
        columns=[dg.TableColumn(name, "bool" if name == "settled" else "string") for name in columns]
    )
    return dg.MetadataValue.table(records, schema=schema)
