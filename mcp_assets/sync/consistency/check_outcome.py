"""Check outcome: what a check found, for a person and for a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mcp_assets.sync.consistency.drift import Severity


@dataclass(slots=True)
class CheckOutcome:
    """The result of one check. `rows`: some examples of what is wrong, all with the same keys."""

    passed: bool
    summary: str
    count: int = 0
    severity: Severity = Severity.ERROR
    rows: Sequence[Mapping[str, str]] = ()
    advice: str = ""
    figures: Mapping[str, int | float] = field(default_factory=dict)
