"""Conditions: what a search asks of the metadata of entities, such as `status=open` or `due<2026-12-01`. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

Comparison = Literal["=", "!=", "<", "<=", ">", ">="]

_WRITTEN = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")

_MOST_DIGITS = 15
"""Of a number in a condition: a float, which Qdrant compares, holds them exactly."""


class ConditionError(ValueError):
    """A condition that cannot be understood. The message says what is wrong, and how to write one."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. A list in the metadata meets it if one of its elements does, and `!=` if none is equal.

    For `=` and `!=`, `any_of` holds what the value may be: `3` is the text and the number. For the others, either
    `number` or `moment` is set; values of another kind do not meet the condition.
    """

    key: str
    comparison: Comparison
    any_of: tuple[str | int | float | bool, ...] = ()
    number: float | None = None
    moment: datetime | None = None


def conditions_of(written: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions, each written as key, comparison, value.

    Raises:
        ConditionError
    """
    return tuple(_condition_of(one) for one in written)


def as_json(condition: Condition) -> dict[str, Any]:
    """The condition as the function `meets` of the platform's schema reads it."""
    return {
        "key": condition.key,
        "comparison": condition.comparison,
        "any_of": condition.any_of,
        "number": condition.number,
        "moment": condition.moment.isoformat() if condition.moment else None,
    }


def _condition_of(written: str) -> Condition:
    found = _WRITTEN.fullmatch(written)
    if found is None:
        raise ConditionError(
            f"the condition {written!r} is not key, comparison and value: write it as in status=open or due<2026-12-01"
        )
    key, comparison, value = found.group(1), found.group(2), _without_quotes(found.group(3))
    if comparison == "=":
        return Condition(key, "=", any_of=_readings(value))
    if comparison == "!=":
        return Condition(key, "!=", any_of=_readings(value))
    number = _number(value)
    if number is not None:
        return Condition(key, _ordering(comparison), number=float(number))
    return Condition(key, _ordering(comparison), moment=_moment(value, written))


def _ordering(comparison: str) -> Comparison:
    orderings: dict[str, Comparison] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
    return orderings[comparison]


def _without_quotes(value: str) -> str:
    quotes = "\"'"
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in quotes else value


def _readings(value: str) -> tuple[str | int | float | bool, ...]:
    """A text, and the number or truth value that it may be in the metadata."""
    number = _number(value)
    if number is not None:
        return (value, number)
    if value in ("true", "false"):
        return (value, value == "true")
    return (value,)


def _number(value: str) -> int | float | None:
    if _NUMBER.fullmatch(value) is None or sum(map(str.isdigit, value)) > _MOST_DIGITS:
        return None
    return float(value) if "." in value else int(value)


def _moment(value: str, written: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ConditionError(
            f"the condition {written!r} compares with {value!r}, which is neither a number nor a date such as "
            f"{date(2026, 12, 1).isoformat()}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
