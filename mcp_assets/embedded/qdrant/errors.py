"""The errors that the server answers with, in the status codes and words of a Qdrant server."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# How the engine begins its messages about a request that is wrong; it raises bare `Exception` for all of its errors.
_ENGINE_BLAMES_REQUEST = (
    "Vector dimension error",
    "Not existing vector name error",
    "No range index for",
    "No appropriate index for",
    "Wrong",
    "Validation",
)


class RequestError(Exception):
    """A request that is answered with `status` and `message` in place of a result."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def wrong_input(description: str) -> RequestError:
    return RequestError(400, f"Wrong input: {description}")


def bad_request(description: str) -> RequestError:
    return RequestError(400, f"Bad request: {description}")


def unsupported(what: str) -> RequestError:
    """`what` exists in Qdrant and not here."""
    return bad_request(f"{what} not supported by the embedded Qdrant; set QDRANT_URL to a Qdrant server to use it")


def format_error(description: str) -> RequestError:
    return RequestError(400, f"Format error in JSON body: {description}")


def out_of_range(field: str, value: int, limits: str) -> RequestError:
    return RequestError(422, f"Validation error in JSON body: [{field}: value {value} invalid, {limits}]")


def already_exists(collection: str) -> RequestError:
    return RequestError(409, f"Wrong input: Collection `{collection}` already exists!")


def not_found(description: str) -> RequestError:
    return RequestError(404, f"Not found: {description}")


def no_collection(name: str) -> RequestError:
    return not_found(f"Collection `{name}` doesn't exist!")


def no_point(point_id: object) -> RequestError:
    return not_found(f"No point with id {point_id} found")


def wrong_dimension(expected: int, got: int) -> RequestError:
    return wrong_input(f"Vector dimension error: expected dim: {expected}, got {got}")


def no_vector_name(name: str) -> RequestError:
    return wrong_input(f"Not existing vector name error: {name}")


def from_engine(error: Exception) -> RequestError:
    """The answer to an error that the engine raised: 400 or 404 where it blames the request, else 500."""
    message = str(error)
    if message.startswith("No point with id"):
        return not_found(f"{message} found")
    if isinstance(error, ValueError | TypeError | OverflowError):
        return format_error(message)
    if message.startswith(_ENGINE_BLAMES_REQUEST):
        return wrong_input(message)
    return RequestError(500, f"Service internal error: {message}")


def from_validation(error: ValidationError) -> RequestError:
    """The answer to a body that is not JSON or not of the request's shape."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    # A union fails once per alternative: the alternative that got furthest is the one that was meant.
    meant: ErrorDetails = max(details, key=lambda detail: len(detail["loc"]))
    if meant["type"] == "json_invalid":
        return format_error(meant["msg"].removeprefix("Invalid JSON: "))
    return format_error(f"{'.'.join(str(part) for part in meant['loc'])}: {meant['msg']}")
