"""Fields: reads one JSON object in both dialects, camelCase and snake_case, and checks each field."""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache

from mcp_assets.entities.refs import id_excess
from mcp_assets.events.model import ErrorKind, JsonValue
from mcp_assets.events.oddities import Oddities
from mcp_assets.events.rejection import Path, Rejection, json_type, quote, render

_LABEL_KEYS = ("name", "label", "title", "value")
"""Keys under which tags that are sent as objects have their text, the likeliest first."""

_CAMEL_CASE = re.compile(r"[a-z][A-Za-z0-9_]*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""The borders of words in a camelCase name, also behind an abbreviation (`pageIDName`)."""


_KEYS_KNOWN = 2_000
"""Keys whose snake_case names are remembered: those of all publishers of a site."""

_LONGEST_KEY_KNOWN = 50
"""Characters of a key that is remembered, so that odd messages cannot fill the memory."""


def snake_case(key: str) -> str:
    """`boardId` -> `board_id`, `parentPageID` -> `parent_page_id`; any other key stays as it is."""
    return _known_snake_case(key) if len(key) <= _LONGEST_KEY_KNOWN else _snake_case(key)


def _snake_case(key: str) -> str:
    return _HUMP.sub("_", key).lower() if _CAMEL_CASE.fullmatch(key) else key


_known_snake_case = lru_cache(_KEYS_KNOWN)(_snake_case)


class Fields:
    """The fields of one JSON object under their snake_case names. A null field is an absent field.

    If two spellings of one field (`taskId`, `task_id`) disagree, the first counts and the oddity is noted; in an id it
    is a rejection. Accessors return None for an absent field. For a field of another type some raise Rejection
    (wrong_type, with the JSON path as sent) and others note the oddity, as their docstrings say.
    """

    def __init__(self, document: dict[str, JsonValue], path: Path, oddities: Oddities) -> None:
        self._path = path
        self._oddities = oddities
        self._values: dict[str, JsonValue] = {}
        self._spellings: dict[str, str] = {}
        self._ambiguous: dict[str, Rejection] = {}
        for key, value in document.items():
            name = snake_case(key)
            if value is None:
                self._spellings.setdefault(name, key)
                continue
            if name not in self._values:
                self._values[name] = value
                self._spellings[name] = key
            elif self._values[name] != value:
                self._ambiguous[name] = Rejection(
                    ErrorKind.AMBIGUOUS,
                    f"{render(path)} has {quote(name)} in two spellings that disagree; send one of them.",
                )
                oddities.add((path, key), self._ambiguous[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: str) -> Path:
        """The path of the field, as the sender spelled it."""
        return (self._path, self._spellings.get(name, name))

    def spelled(self, name: str) -> str:
        """The key of the field, as the sender spelled it."""
        return self._spellings.get(name, name)

    def rendered(self, name: str) -> str:
        return render(self.path(name))

    def raw(self, name: str) -> JsonValue:
        return self._values.get(name)

    def all_but(self, names: AbstractSet[str] = frozenset()) -> dict[str, JsonValue]:
        """The fields whose snake_case name is not in `names`."""
        return {name: value for name, value in self._values.items() if name not in names}

    def note(self, name: str, oddity: Rejection) -> None:
        """Note that the field is odd and left out."""
        self._oddities.add(self.path(name), oddity)

    def note_type(self, name: str, wanted: str) -> None:
        self.note(name, wrong_type(self.path(name), self._values.get(name), wanted))

    def mended(self, name: str) -> Rejection | None:
        """The oddity that decoding has found in the field; None if there is none."""
        return None if self._oddities.are_none else self._oddities.at(self.path(name))

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise wrong_type(self.path(name), value, "a string")

    def words(self, name: str) -> str | None:
        """The field as text, a number included; any other value is noted and left out."""
        value = self._values.get(name)
        return value if value is None or isinstance(value, str) else words(value, self.path(name), self._oddities)

    def labels(self, name: str) -> list[str] | None:
        """As the function `labels`."""
        value = self._values.get(name)
        return None if value is None else labels(value, self.path(name), self._oddities)

    def object(self, name: str) -> "Fields | None":
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, dict):
            return Fields(value, self.path(name), self._oddities)
        raise wrong_type(self.path(name), value, "an object")

    def as_sent(self, name: str, wanted: str = "an object") -> dict[str, JsonValue] | None:
        """The fields of an object under their own keys, without null ones; any other value is noted."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, dict):
            return {key: field for key, field in value.items() if field is not None}
        self.note_type(name, wanted)
        return None

    def items(self, name: str) -> list[JsonValue] | None:
        value = self._values.get(name)
        if value is None or isinstance(value, list):
            return value
        raise wrong_type(self.path(name), value, "a list")

    def id(self, name: str) -> str | None:
        """The field as an id. Also raises Rejection (missing_id, bad_id, ambiguous, or what decoding found)."""
        unclear = self._ambiguous.get(name) or self.mended(name)
        if unclear is not None:
            raise unclear
        value = self._values.get(name)
        return None if value is None else id_text(value, self.path(name))


def words(value: JsonValue, path: Path, oddities: Oddities) -> str | None:
    """A text, or a number as text; any other value is noted and left out."""
    if value is None or isinstance(value, str):
        return value
    oddities.add(path, wrong_type(path, value, "a string"))
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def labels(value: JsonValue, path: Path, oddities: Oddities) -> list[str] | None:
    """Tags as a list of texts; another form is noted, and read as far as its meaning is clear.

    "a, b" is two tags; the tag of an object is its `name`, `label`, `title` or `value`; a number becomes a text.
    """
    if value is None:
        return None
    if isinstance(value, str):
        oddities.add(path, wrong_type(path, value, "a list"))
        return [part for text in value.split(",") if (part := text.strip())]
    if not isinstance(value, list):
        oddities.add(path, wrong_type(path, value, "a list"))
        return None
    found = []
    for index, item in enumerate(value):
        if isinstance(item, str):
            found.append(item)
            continue
        oddities.add((path, index), wrong_type((path, index), item, "a string"))
        if isinstance(item, dict):
            item = next((item[key] for key in _LABEL_KEYS if isinstance(item.get(key), str)), None)
        if isinstance(item, str | int | float) and not isinstance(item, bool):
            found.append(str(item))
    return found


def id_text(value: JsonValue, path: Path) -> str:
    """A string, or an integer in decimal, that can be an id. Raises Rejection (wrong_type, missing_id, bad_id)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise wrong_type(path, value, "a string or an integer")
    return checked_id(value, path)


def checked_id(entity_id: str, path: Path) -> str:
    """Raises Rejection (missing_id, bad_id)."""
    if not entity_id:
        raise Rejection(ErrorKind.MISSING_ID, f"{render(path)} is an empty id.")
    excess = id_excess(entity_id)
    if excess is not None:
        raise Rejection(ErrorKind.BAD_ID, f"{render(path)} {excess}.")
    if entity_id != entity_id.strip():
        raise Rejection(ErrorKind.BAD_ID, f"{render(path)} begins or ends with white space: {quote(entity_id)}.")
    return entity_id


def wrong_type(path: Path, value: JsonValue, wanted: str) -> Rejection:
    return Rejection(ErrorKind.WRONG_TYPE, f"{render(path)} is {json_type(value)}, and must be {wanted}.")
