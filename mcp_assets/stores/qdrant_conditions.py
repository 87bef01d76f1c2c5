"""Conditions of a search as a filter of Qdrant."""

from collections.abc import Sequence

from qdrant_client import models

from mcp_assets.entities.conditions import Condition


def filter_of(conditions: Sequence[Condition], *others: models.Condition) -> models.Filter:
    """A filter that each of `conditions` and `others` has to pass.

    A list in a payload passes a condition if one of its elements does, which is Qdrant's own rule.
    """
    must: list[models.Condition] = list(others)
    must_not: list[models.Condition] = []
    for condition in conditions:
        if condition.comparison == "=":
            must.append(models.Filter(should=_equal(condition)))
        elif condition.comparison == "!=":
            must_not += _equal(condition)
        else:
            must.append(models.FieldCondition(key=payload_path(condition.key), range=_range(condition)))
    return models.Filter(must=must, must_not=must_not or None)


def payload_path(key: str) -> str:
    """A payload key as filters and indexes name it: outside of quotes, a dot or a bracket leads into a value."""
    return key if key.replace("_", "").isalnum() else f'"{key}"'


def _equal(condition: Condition) -> list[models.Condition]:
    return [
        models.FieldCondition(key=payload_path(condition.key), range=models.Range(gte=value, lte=value))
        if isinstance(value, float)
        else models.FieldCondition(key=payload_path(condition.key), match=models.MatchValue(value=value))
        for value in condition.any_of
    ]


_BOUNDS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def _range(condition: Condition) -> models.Range | models.DatetimeRange:
    bound = _BOUNDS[condition.comparison]
    if condition.moment is not None:
        return models.DatetimeRange.model_validate({bound: condition.moment})
    return models.Range.model_validate({bound: condition.number})
