"""Gates: what was measured of a change of model before the aliases move, and what a person decided about it.

The new model passes if it is not worse than the one that serves by more than MCP_ASSETS_MODEL_GATE_MARGIN, if there is
nothing to compare, or if a person approves it. A change that a person abandons is not begun again while the settings
name its model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.platform import Platform
from mcp_assets.quality import SearchFigures, is_worse
from mcp_assets.stores.postgres import Connection
from mcp_assets.sync.collections.journal import Change, stored_journal

_KEPT = 20
"""Changes of model whose gates are kept: years of them, some kilobytes each."""

HOW_TO_DECIDE = (
    "`mcp-assets model` shows both models side by side; `mcp-assets model approve` moves the aliases, "
    "`mcp-assets model abandon` gives the new model up"
)


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of the present change of model: a row of `model_gates`."""

    model: str
    dimension: int
    outcome: Literal["measured", "not_measured", "failed"] | None
    """None: nothing was tried yet, and a person has decided before."""
    reason: str
    """Why nothing was measured."""
    figures: Mapping[str, Any]
    """`old` and `new`, each with the name of the `model`, its figures and those of the `kinds` of questions."""
    samples: Sequence[Mapping[str, Any]]
    golden: str
    measured_at: datetime | None
    decision: Literal["approved", "abandoned"] | None
    decided_by: str | None
    decided_at: datetime | None
    ended_as: Literal["moved", "given up"] | None

    def is_of(self, model: str, dimension: int) -> bool:
        return (self.model, self.dimension) == (model, dimension)

    @property
    def old(self) -> SearchFigures:
        """The figures of the model that serves; only if `outcome` is measured."""
        return _figures(self.figures["old"])

    @property
    def new(self) -> SearchFigures:
        return _figures(self.figures["new"])

    def why_held(self, margin: float) -> str | None:
        """Why the aliases do not move; None: nothing is in their way."""
        if self.decision == "abandoned":
            return f"the change to {self.model} was abandoned by {self.decided_by}"
        if self.decision == "approved" or self.outcome == "not_measured":
            return None
        if self.outcome == "measured":
            if not is_worse(self.old, self.new, margin):
                return None
            return f"{self.model} answers worse: {self.comparison}"
        return f"the two models could not be compared: {self.reason or 'nothing was measured yet'}"

    @property
    def comparison(self) -> str:
        """Both sides in one clause."""
        old, new = self.old, self.new
        return (
            f"of {new.questions} questions, {new.hit_5:.1%} have an answer among the first five results, and "
            f"{old.hit_5:.1%} with the model that serves; mean reciprocal rank {new.mrr:.3f}, and {old.mrr:.3f}"
        )

    @property
    def plotted(self) -> dict[str, int | float]:
        """The figures of both sides by name, as numbers."""
        if self.outcome != "measured":
            return {}
        old, new = self.old, self.new
        found: dict[str, int | float] = {"questions": new.questions}
        for name in ("hit_1", "hit_5", "mrr"):
            found |= {f"old/{name}": getattr(old, name), f"new/{name}": getattr(new, name)}
        return found

    @property
    def sample_rows(self) -> list[dict[str, str]]:
        """The samples as rows of a table."""
        return [
            {
                "question": one["question"],
                "expected": ", ".join(one["expected"]),
                "old rank": str(one["old_rank"] or "none"),
                "new rank": str(one["new_rank"] or "none"),
                "old": ", ".join(one["old"]),
                "new": ", ".join(one["new"]),
            }
            for one in self.samples
        ]

    @property
    def result(self) -> str:
        """A clause: what was measured, and what became of the change."""
        ended = {"moved": "its collections serve", "given up": "it was given up", None: "it is under way"}
        measured = self.comparison if self.outcome == "measured" else f"nothing was measured ({self.reason})"
        decided = f"; {self.decision} by {self.decided_by}" if self.decision is not None else ""
        return f"the last change of model was to {self.model}: {measured}{decided}; {ended[self.ended_as]}"


def _figures(side: Mapping[str, Any]) -> SearchFigures:
    return SearchFigures(**{name: side[name] for name in ("questions", "hit_1", "hit_5", "mrr")})


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, to be recorded; see `Gate`."""

    outcome: Literal["measured", "not_measured", "failed"]
    reason: str = ""
    figures: Mapping[str, Any] | None = None
    samples: Sequence[Mapping[str, Any]] = ()


def current_gate(platform: Platform, connection: Connection) -> Gate | None:
    """The gate of the present change of model; None: nothing was measured or decided yet."""
    return platform.postgres.row(connection, "current_gate", Gate)


def last_gate(platform: Platform, connection: Connection) -> Gate | None:
    """The gate of the last change of model, whether or not it has ended; None: there was none."""
    return platform.postgres.row(connection, "last_gate", Gate)


def why_held(platform: Platform, connection: Connection, building: Sequence[Change]) -> str | None:
    """Why the gate does not let the aliases of `building` move; None: it does, or no gate has been asked."""
    gate = current_gate(platform, connection)
    if gate is None or not all(gate.is_of(change.model, change.dimension) for change in building):
        return None
    return gate.why_held(platform.settings.model_gate_margin)


def is_abandoned(platform: Platform, profile: ModelProfile) -> bool:
    """A person abandoned the change to the model of `profile`, and the settings have named it ever since."""
    with platform.postgres.transaction() as connection:
        gate = current_gate(platform, connection)
    return gate is not None and gate.decision == "abandoned" and gate.is_of(profile.name, profile.dimension)


def record_measurement(
    platform: Platform, connection: Connection, change: Change, measured: Measurement, golden: str
) -> None:
    """Record it for the change of model that `change` is a part of. `golden`: md5 of the golden file, or empty."""
    query, of_model = platform.postgres.query, {"model": change.model, "dimension": change.dimension}
    connection.execute(query("end_gates_of_others"), of_model)
    connection.execute(
        query("record_gate"),
        {
            **of_model,
            "outcome": measured.outcome,
            "reason": measured.reason,
            "figures": json.dumps(measured.figures or {}),
            "samples": json.dumps(list(measured.samples)),
            "golden": golden,
        },
    )
    connection.execute(query("forget_old_gates"), {"kept": _KEPT})


def record_decision(
    platform: Platform, connection: Connection, change: Change, decision: Literal["approved", "abandoned"], by: str
) -> None:
    """Record what the person `by` decided about the change of model that `change` is a part of."""
    query, of_model = platform.postgres.query, {"model": change.model, "dimension": change.dimension}
    connection.execute(query("end_gates_of_others"), of_model)
    connection.execute(query("decide_gate"), {**of_model, "decision": decision, "by": by})
    connection.execute(query("forget_old_gates"), {"kept": _KEPT})


def end_gates_of_others(platform: Platform, profile: ModelProfile) -> None:
    """End the gate of a change to another model than that of `profile`, which the settings name now."""
    with platform.postgres.transaction() as connection:
        connection.execute(
            platform.postgres.query("end_gates_of_others"), {"model": profile.name, "dimension": profile.dimension}
        )


def awaited_decision(platform: Platform, connection: Connection) -> tuple[Gate, str] | None:
    """The gate that holds the present change of model until a person decides, and why it does; None: none does."""
    gate = current_gate(platform, connection)
    if gate is None or gate.decision is not None or not _is_being_built(platform, connection, gate):
        return None
    held = gate.why_held(platform.settings.model_gate_margin)
    return (gate, held) if held is not None else None


def describe_gate(platform: Platform, connection: Connection) -> list[str]:
    """A sentence if a person has to decide, or has decided what has not happened yet; otherwise nothing."""
    awaited = awaited_decision(platform, connection)
    if awaited is not None:
        return [f"change of model: held, because {awaited[1]}. {HOW_TO_DECIDE}"]
    gate = current_gate(platform, connection)
    if gate is None or gate.decision is None:
        return []
    if gate.decision == "abandoned":
        return [
            f"change of model: that to {gate.model} was abandoned by {gate.decided_by}: set EMBEDDING_MODEL back to "
            "the model that serves, if it is not yet"
        ]
    if not _is_being_built(platform, connection, gate):
        return []
    return [
        f"change of model: that to {gate.model} was approved by {gate.decided_by}; the next full sync that finds the "
        "new collections complete moves the aliases"
    ]


def _is_being_built(platform: Platform, connection: Connection, gate: Gate) -> bool:
    """The change of `gate` has not moved the aliases: a process of an older version moves them without ending it."""
    journal = stored_journal(platform, connection)
    return any(change.state == "building" and gate.is_of(change.model, change.dimension) for change in journal)
