"""Validation: the stores compared with the source of truth, and mended where that is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_assets.entities.refs import EntityRef
from mcp_assets.sync.platform import Platform


class Example(NamedTuple):
    """One finding: its kind of drift, and the entity."""

    kind: str
    ref: EntityRef


@dataclass(frozen=True, slots=True)
class Validation:
    """What was compared, found and mended, by kind of drift."""

    checked: int = 0
    found: Mapping[str, int] = field(default_factory=dict)
    mended: Mapping[str, int] = field(default_factory=dict)
    examples: Sequence[Example] = ()
    refused: str | None = None


def validate(
    platform: Platform,
    *,
    entity_types: Sequence[str],
    entities: Sequence[EntityRef] = (),
    repair: bool = False,
    deep: bool = False,
    allow_mass_delete: bool = False,
) -> Validation:
    """Compare the entities of `entity_types`, or only `entities`, in all stores."""
    raise NotImplementedError
