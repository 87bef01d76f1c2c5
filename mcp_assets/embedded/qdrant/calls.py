"""A request as the functions that answer it take it: path, query parameters, body."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from qdrant_client import models
from starlette.datastructures import QueryParams

from mcp_assets.embedded.qdrant.collection import StoredCollection
from mcp_assets.embedded.qdrant.errors import (
    bad_request,
    from_validation,
)
from mcp_assets.embedded.qdrant.storage import Storage

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: placeholders of its path, its query parameters, its body as it came."""

    storage: Storage
    path: dict[str, str]
    parameters: QueryParams
    body: bytes

    def parse(self, model: type[Model]) -> Model:
        """The body as a `model`; a RequestError (400) if it is not JSON or not of that shape."""
        parsed: Model = parse(model, self.body)
        return parsed

    def points_selector(self) -> models.PointsSelector:
        """As `parse`, for the union of a list of ids and a filter."""
        selector: models.PointsSelector = parse(models.PointsSelector, self.body)
        return selector

    def collection(self) -> StoredCollection:
        return self.storage.resolve(self.path["collection"])

    def waits(self) -> bool:
        """Whether the client waits for the update to be applied and durable."""
        wait = self.parameters.get("wait", "false")
        if wait not in ("true", "false"):
            raise bad_request("Deserialize error in query parameters: wait: provided string was not `true` or `false`")
        return wait == "true"


Answer = Callable[[Call], Any]


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def parse(model: Any, body: bytes) -> Any:
    try:
        return _adapter(model).validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from None
