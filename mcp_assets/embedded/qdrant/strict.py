"""Strict mode, as Qdrant Cloud sets it for new collections: a filter on a payload key that has no index is refused."""

from collections.abc import Callable, Iterator, Mapping

from qdrant_client import models

from mcp_assets.embedded.qdrant.errors import RequestError, bad_request, unsupported

_SUPPORTED = frozenset(("enabled", "unindexed_filtering_retrieve", "unindexed_filtering_update"))

Indexes = Mapping[str, str]
"""Payload key -> type of its index."""

_OF_ANY_TYPE = frozenset(
    ("keyword", "integer", "float", "geo", "text", "bool", "datetime", "uuid"),
)


def strict_mode(asked: models.StrictModeConfig | None, *, by_default: bool) -> models.StrictModeConfigOutput | None:
    """The strict mode of a new collection; a RequestError (400) if it asks for limits that are not kept here."""
    if asked is None:
        if not by_default:
            return None
        return models.StrictModeConfigOutput(
            enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False
        )
    given = asked.model_dump(exclude_none=True)
    other = next((name for name in given if name not in _SUPPORTED), None)
    if other is not None:
        raise unsupported(f"strict_mode_config.{other} is")
    return models.StrictModeConfigOutput(**given)


def check_filter(
    config: models.StrictModeConfigOutput | None,
    by: models.Filter | None,
    indexes: Callable[[], Indexes],
    *,
    updates: bool,
) -> None:
    """Raise a RequestError (400) if `config` forbids the filter `by`: of an update, or else of a read."""
    if by is None or config is None or not config.enabled:
        return
    allowed = config.unindexed_filtering_update if updates else config.unindexed_filtering_retrieve
    if allowed is not False:
        return
    known = indexes()
    for key, types in _keys(by):
        if known.get(key) not in types:
            raise _index_required(key, types)


def _index_required(key: str, types: frozenset[str]) -> RequestError:
    return bad_request(
        f'Index required but not found for "{key}" of one of the following types: [{", ".join(sorted(types))}]. '
        "Help: Create an index for this key or use a different filter."
    )


def _keys(by: models.Filter) -> Iterator[tuple[str, frozenset[str]]]:
    """Every payload key that the filter asks about, with the types of index that can answer."""
    parts = [by.must, by.should, by.must_not, by.min_should.conditions if by.min_should else None]
    for part in parts:
        for condition in part if isinstance(part, list) else [part]:
            match condition:
                case models.FieldCondition():
                    yield condition.key, _types(condition)
                case models.IsEmptyCondition():
                    yield condition.is_empty.key, _OF_ANY_TYPE
                case models.IsNullCondition():
                    yield condition.is_null.key, _OF_ANY_TYPE
                case models.NestedCondition():
                    prefix = condition.nested.key.removesuffix("[]")
                    for key, types in _keys(condition.nested.filter):
                        yield f"{prefix}[].{key}", types
                case models.Filter():
                    yield from _keys(condition)
                case _:
                    pass


def _types(condition: models.FieldCondition) -> frozenset[str]:
    if condition.range is not None:
        return frozenset(("datetime",) if isinstance(condition.range, models.DatetimeRange) else ("integer", "float"))
    match condition.match:
        case models.MatchValue(value=value):
            values: list[object] = [value]
        case models.MatchAny(any=some):
            values = list(some)
        case models.MatchExcept(except_=some):
            values = list(some)
        case models.MatchText() | models.MatchTextAny() | models.MatchPhrase():
            return frozenset(("text",))
        case _:
            return frozenset(("geo",)) if condition.match is None and _is_geo(condition) else _OF_ANY_TYPE
    if all(isinstance(value, bool) for value in values):
        return frozenset(("bool",))
    return frozenset(("integer",) if all(isinstance(value, int) for value in values) else ("keyword", "uuid"))


def _is_geo(condition: models.FieldCondition) -> bool:
    return any((condition.geo_bounding_box, condition.geo_radius, condition.geo_polygon))
