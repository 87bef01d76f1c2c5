"""Conversion of collections: vector parameters and payload indexes."""

# The engine's stubs name types that exist in them alone.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from mcp_assets.embedded.qdrant.errors import (
    out_of_range,
    unsupported,
    wrong_input,
)

_MAX_DIMENSION = 65_536
"""The limit of a Qdrant server."""

_INDEX_TYPES = {
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.GEO: edge.PayloadSchemaType.Geo,
    models.PayloadSchemaType.TEXT: edge.PayloadSchemaType.Text,
    models.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
    models.PayloadSchemaType.DATETIME: edge.PayloadSchemaType.Datetime,
    models.PayloadSchemaType.UUID: edge.PayloadSchemaType.Uuid,
}
_INDEX_PARAMS: dict[str, Callable[..., edge.PayloadSchemaParams]] = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "text": edge.TextIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
_DISTANCES = {
    models.Distance.COSINE: edge.Distance.Cosine,
    models.Distance.DOT: edge.Distance.Dot,
    models.Distance.EUCLID: edge.Distance.Euclid,
    models.Distance.MANHATTAN: edge.Distance.Manhattan,
}


def vector_params(request: models.CreateCollection) -> models.VectorParams:
    """The one unnamed dense vector of the collection; a RequestError for what else Qdrant can hold."""
    vectors = request.vectors
    if request.sparse_vectors:
        raise unsupported("Sparse vectors are")
    if not isinstance(vectors, models.VectorParams):
        raise unsupported("A collection of named vectors, or of none, is")
    for name in ("quantization_config", "multivector_config"):
        if getattr(vectors, name) is not None:
            raise unsupported(f"vectors.{name} is")
    if vectors.datatype not in (None, models.Datatype.FLOAT32):
        raise unsupported(f"vectors.datatype {vectors.datatype.value} is")
    if request.quantization_config is not None:
        raise unsupported("quantization_config is")
    if request.sharding_method not in (None, models.ShardingMethod.AUTO) or request.shard_number not in (None, 1):
        raise unsupported("More than one shard is")
    if not 1 <= vectors.size <= _MAX_DIMENSION:
        raise out_of_range("vectors.size", vectors.size, f"must be from 1 to {_MAX_DIMENSION}")
    return vectors


def distance(request: models.Distance) -> edge.Distance:
    return _DISTANCES[request]


def index_schema(schema: models.PayloadFieldSchema | None) -> edge.PayloadSchemaType | edge.PayloadSchemaParams:
    """The engine's description of a payload index."""
    if schema is None:
        raise wrong_input("field_schema is missing: name the type of the payload index, e.g. `keyword`")
    if isinstance(schema, models.PayloadSchemaType):
        return _INDEX_TYPES[schema]
    given = schema.model_dump(mode="json", exclude_none=True)
    type_ = given.pop("type")
    for name in ("stopwords", "stemmer", "scoring"):
        if name in given:
            raise unsupported(f"{name} of a text index is")
    if "tokenizer" in given:
        given["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].capitalize())
    if "memory" in given:
        given["memory"] = getattr(edge.Memory, given["memory"].capitalize())
    return _INDEX_PARAMS[type_](**given)


def index_info(info: edge.PayloadIndexInfo) -> dict[str, Any]:
    """A `PayloadIndexInfo` of the REST API."""
    type_ = _name(info.data_type)
    answer: dict[str, Any] = {"data_type": type_, "points": info.points}
    if info.params is not None:
        named = {name: getattr(info.params, name) for name in dir(info.params) if not name.startswith("_")}
        answer["params"] = {"type": type_} | {
            name: value if isinstance(value, bool | int | float | str) else _name(value)
            for name, value in named.items()
            if value is not None
        }
    return answer


def index_type(info: edge.PayloadIndexInfo) -> str:
    """`keyword`, `integer`, ..."""
    return _name(info.data_type)


def _name(member: object) -> str:
    """`keyword` for PayloadSchemaType.Keyword: the engine's enums show their name only in repr."""
    return repr(member).rpartition(".")[2].lower()
