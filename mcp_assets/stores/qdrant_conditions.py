"""Conditions of a search as a filter of Qdrant."""

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_assets.entities.conditions import Condition

Filter = dict[str, Any]
"""A filter, or a condition of one, as JSON."""


def filter_of(conditions: Sequence[Condition], *others: Filter) -> Filter:
    """A filter that each of `conditions` and `others` has to pass.

    A list in a payload passes a condition if one of its elements does, which is Qdrant's own rule.
    """
    must: list[Filter] = list(others)
    must_not: list[Filter] = []
    for condition in conditions:
        if condition.comparison == "=":
            must.append({"should": _equal(condition)})
        elif condition.comparison == "!=":
            must_not += _equal(condition)
        else:
            must.append({"key": payload_path(condition.key), "range": _range(condition)})
    return {"must": must, "must_not": must_not} if must_not else {"must": must}


def payload_path(key: str) -> str:
    """A payload key as filters and indexes name it: outside of quotes, a dot or a bracket leads into a value."""
    return key if key.replace("_", "").isalnum() else f'"{key}"'


def _equal(condition: Condition) -> list[Filter]:
    return [
        {"key": payload_path(condition.key), "range": {"gte": value, "lte": value}}
        if isinstance(value, float)
        else {"key": payload_path(condition.key), "match": {"value": value}}
        for value in condition.any_of
    ]


_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def _range(condition: Condition) -> Mapping[str, Any]:
    bound = _BOUNDS[condition.comparison]
    return {bound: condition.number if condition.moment is None else condition.moment.isoformat()}
