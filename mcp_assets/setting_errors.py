"""Setting errors: a wrong setting as a sentence that names its variable, says what is wrong, and what to do."""

import json
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

_SHOWN = 60
"""Characters of a wrong value that are shown: enough to find it in a file, and a line stays a line."""


class SettingsError(Exception):
    """A setting is missing, wrong, or contradicts another; the message names it and says what to do."""


def settings_error(error: ValidationError, fields: Mapping[str, FieldInfo]) -> SettingsError:
    """One sentence for each setting at fault. `fields`: those of the settings class."""
    by_variable = {str(field.validation_alias): field for field in fields.values()}
    sentences = [_sentence(problem, by_variable) for problem in error.errors(include_url=False)]
    return SettingsError("\n".join(dict.fromkeys(sentences)))


def _sentence(problem: Mapping[str, Any], by_variable: Mapping[str, FieldInfo]) -> str:
    place: Sequence[int | str] = problem["loc"]
    if not place:
        # A check of ours over several settings: its message names them.
        return str(problem["ctx"]["error"]) if "ctx" in problem else str(problem["msg"])
    variable = str(place[0])
    field = by_variable.get(variable)
    inside = ".".join(map(str, place[1:]))
    if problem["type"] == "extra_forbidden":
        return f"{variable}: {inside} is no field of a mapping{meant(field and field.annotation, place)}"
    named = f"{variable}, {inside}" if inside else f"{variable}{_shown(variable, field)}"
    an_object = _not_json(variable) or "give a JSON object, such as " + '{"task": {"source": {"table": "tasks"}}}'
    return f"{named}: {wanted(problem, an_object)}"


def wanted(problem: Mapping[str, Any], an_object: str) -> str:
    """What the value has to be, in the imperative; `an_object`: the same for a value that has to have fields."""
    limits = problem.get("ctx", {})
    match problem["type"]:
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "give a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "give a number"
        case "bool_parsing" | "bool_type":
            return "give true or false"
        case "greater_than":
            return f"give a number above {limits['gt']:g}"
        case "greater_than_equal":
            return f"give a number of at least {limits['ge']:g}"
        case "less_than":
            return f"give a number below {limits['lt']:g}"
        case "less_than_equal":
            return f"give a number of at most {limits['le']:g}"
        case "literal_error":
            return f"give {limits['expected']}"
        case "missing":
            return "this field is missing"
        case "dict_type" | "model_type" | "model_attributes_type" | "mapping_type":
            return an_object
        case "string_type":
            return "give a text"
        case "tuple_type" | "list_type":
            return "give a list of texts"
        case "too_short":
            return "give at least one"
        case "string_too_short":
            return "it is empty"
        case "value_error":
            return str(limits["error"])
    message = str(problem["msg"])
    return message[:1].lower() + message[1:]


def _not_json(variable: str) -> str | None:
    """Why the value of `variable` is not JSON; None if it is."""
    try:
        json.loads(_value_of(variable))
    except ValueError as error:
        return f"this is not JSON ({error}): check its quotes and braces"
    return None


def _shown(variable: str, field: FieldInfo | None) -> str:
    """The value as it was given; never that of a secret, nor of an address, which may hold one."""
    value = _value_of(variable)
    if not value or field is None or "Secret" in str(field.annotation) or "://" in value:
        return ""
    return f" is {value!r}" if len(value) <= _SHOWN else f" begins with {value[:_SHOWN]!r}"


def _value_of(variable: str) -> str:
    return os.environ.get(variable) or dotenv_values(".env").get(variable) or ""


def meant(annotation: Any, place: Sequence[int | str]) -> str:
    """The fields that exist where `place` names another one, and the one that was probably meant.

    `annotation`: the type of the value that `place` begins with.
    """
    known = _fields_at(annotation, place)
    if not known:
        return ""
    near = get_close_matches(str(place[-1]), known, n=1)
    return f": did you mean {near[0]}?" if near else f": the fields are {', '.join(known)}"


def _fields_at(annotation: Any, place: Sequence[int | str]) -> list[str]:
    found: list[str] = []
    for model in _models_in(annotation):
        # The mapping of a type is itself such a model, and so is the source table in it.
        depth = len([part for part in place[1:-1] if isinstance(part, str)])
        if depth == 2 and "source" in model.model_fields:
            found += [
                name for inner in _models_in(model.model_fields["source"].annotation) for name in inner.model_fields
            ]
        elif depth == 1:
            found += list(model.model_fields)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not SecretStr:
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
