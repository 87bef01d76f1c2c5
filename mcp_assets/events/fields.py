"""Fields: one JSON object read in both dialects, camelCase and snake_case, field by checked field."""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from mcp_assets.entities.refs import MAX_ID_LENGTH
from mcp_assets.events.model import ErrorKind, JsonValue
from mcp_assets.events.refusal import Path, Refusal, json_type, quote, render

_CAMEL_CASE = re.compile(r"[a-z][A-Za-z0-9_]*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(key: str) -> str:
    """`boardId` -> `board_id`, `parentPageID` -> `parent_page_id`; a key that is no camelCase name stays as it is."""
    return _HUMP.sub("_", key).lower() if _CAMEL_CASE.fullmatch(key) else key


class Fields:
    """The fields of one JSON object under their snake_case names. A null field is an absent field.

    Two spellings of one field (`taskId`, `task_id`) must agree. Every accessor returns None for an absent field, and
    raises Refusal (wrong_type, naming the JSON path as sent) for one of another type.
    """

    def __init__(self, document: dict[str, JsonValue], path: Path) -> None:
        self._path = path
        self._values: dict[str, JsonValue] = {}
        self._spellings: dict[str, str] = {}
        for key, value in document.items():
            if value is None:
                continue
            name = snake_case(key)
            if name in self._values and self._values[name] != value:
                raise Refusal(
                    ErrorKind.AMBIGUOUS,
                    f"{render(path)} has {quote(name)} in two spellings that disagree; send one of them.",
                )
            self._values[name] = value
            self._spellings[name] = key

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: str) -> Path:
        """Where the field stands, as the sender spelled it."""
        return (self._path, self._spellings.get(name, name))

    def rendered(self, name: str) -> str:
        return render(self.path(name))

    def raw(self, name: str) -> JsonValue:
        return self._values.get(name)

    def all_but(self, names: AbstractSet[str] = frozenset()) -> dict[str, JsonValue]:
        """The fields whose snake_case name is not in `names`."""
        return {name: value for name, value in self._values.items() if name not in names}

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise wrong_type(self.path(name), value, "a string")

    def object(self, name: str) -> "Fields | None":
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, dict):
            return Fields(value, self.path(name))
        raise wrong_type(self.path(name), value, "an object")

    def items(self, name: str) -> list[JsonValue] | None:
        value = self._values.get(name)
        if value is None or isinstance(value, list):
            return value
        raise wrong_type(self.path(name), value, "a list")

    def check_strings(self, name: str) -> None:
        """Refuse the field unless it is absent or a list of strings."""
        for index, item in enumerate(self.items(name) or ()):
            if not isinstance(item, str):
                raise wrong_type((self.path(name), index), item, "a string")

    def id(self, name: str) -> str | None:
        """The field as an id; also raises Refusal (missing_id, bad_id)."""
        value = self._values.get(name)
        return None if value is None else id_text(value, self.path(name))


def id_text(value: JsonValue, path: Path) -> str:
    """A string, or an integer in decimal, that can be an id. Raises Refusal (wrong_type, missing_id, bad_id)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise wrong_type(path, value, "a string or an integer")
    return checked_id(value, path)


def checked_id(entity_id: str, path: Path) -> str:
    """Raises Refusal (missing_id, bad_id)."""
    if not entity_id:
        raise Refusal(ErrorKind.MISSING_ID, f"{render(path)} is an empty id.")
    if len(entity_id) > MAX_ID_LENGTH:
        raise Refusal(
            ErrorKind.BAD_ID, f"{render(path)} has {len(entity_id)} characters; an id has at most {MAX_ID_LENGTH}."
        )
    if entity_id != entity_id.strip():
        raise Refusal(ErrorKind.BAD_ID, f"{render(path)} begins or ends with white space: {quote(entity_id)}.")
    return entity_id


def wrong_type(path: Path, value: JsonValue, wanted: str) -> Refusal:
    return Refusal(ErrorKind.WRONG_TYPE, f"{render(path)} is {json_type(value)}, and must be {wanted}.")
