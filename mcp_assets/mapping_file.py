"""Mapping file: the YAML file that says which tables hold the entities; it extends a preset, or stands by itself.

    preset: mcp              # mcp, cards or none; what stands below extends it
    without: [memory]        # types of the preset that this site does not have
    types:
      task:
        source: {table: tracker.tasks}

What a type says replaces what the preset says, field by field; of `metadata`, key by key. A key that is null is taken
away. A type with `preset: none` takes nothing from the preset.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mcp_assets.entities.registry import SOURCE_PRESETS, EntityType
from mcp_assets.setting_errors import SettingsError, meant, wanted
from mcp_assets.setting_fields.values import Identifier, SourcePreset, TypeMapping

if TYPE_CHECKING:
    import yaml

DEFAULT_NAME = "mcp_assets.yaml"
"""Read from the working folder, as `.env` is, if it is there and MCP_ASSETS_SOURCES_FILE is not set."""

NO_PRESET = "none"
"""The value of `preset` for a file, or a type, that takes nothing from a preset."""

Place = tuple[int | str, ...]
"""Keys and positions that lead to a value in the file."""


class _Document(BaseModel):
    """The file as a whole; what its types say is checked once they are merged with the preset."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = None
    without: tuple[str, ...] = ()
    types: dict[str, dict[str, Any] | None] = {}


class MappingFile:
    """A mapping file that was read."""

    def __init__(self, path: Path, preset: SourcePreset, *, preset_is_set: bool) -> None:
        """`preset`: that of the settings, which counts where the file names none.

        `preset_is_set`: a setting names it, so that the file may not name another one.

        Raises:
            SettingsError: a sentence for each fault, with its line.
        """
        self.path = path
        self._name = _shown(path)
        self._lines: dict[Place, int] = {}
        content = self._read()
        try:
            document = _Document.model_validate(content)
        except ValidationError as error:
            raise self._error(error, list(_Document.model_fields), ()) from None
        self._preset = self._checked_preset(document, preset, preset_is_set=preset_is_set)
        self.types = self._merged(document)

    def place(self, *keys: int | str) -> str:
        """Where a value stands, for the beginning of a sentence: file and line."""
        return f"{self._name}, line {self._line(keys)}"

    def names(self, entity_type: str) -> bool:
        """The file itself says something about the type; otherwise its preset alone does."""
        return ("types", entity_type) in self._lines

    def _read(self) -> Any:
        """What the file says, as YAML has it; the lines of its values are noted."""
        import yaml

        text = self._text()
        try:
            loader = yaml.SafeLoader(text)
            try:
                root = loader.get_single_node()
                if root is None:
                    return {}
                self._note_lines(root, (), set())
                return loader.construct_document(root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark is not None else ""
            raise SettingsError(
                f"{self._name}{line}: this is not YAML ({error.problem or error.context}): check indentation, "
                "colons and quotes"
            ) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SettingsError(f"{self._name} is not YAML ({' '.join(str(error).split())})") from None

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise SettingsError(
                f"the mapping file {self.path} cannot be read ({error.strerror}): check MCP_ASSETS_SOURCES_FILE; "
                "`mcp-assets sources init` writes one"
            ) from None
        except UnicodeDecodeError:
            raise SettingsError(f"the mapping file {self.path} is not in UTF-8: save it as that") from None

    def _note_lines(self, node: "yaml.Node", place: Place, within: set[int]) -> None:
        """Note on which line each value stands. Raises SettingsError for a key that is no text or stands twice."""
        import yaml

        if id(node) in within:
            raise SettingsError(f"{self._name}, line {node.start_mark.line + 1}: an alias leads back to itself")
        self._lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._note_lines(item, (*place, number), within | {id(node)})
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.tag == "tag:yaml.org,2002:merge":
                    continue
                if key.tag != "tag:yaml.org,2002:str":
                    raise SettingsError(
                        f"{self._name}, line {line}: YAML reads the key {key.value} as no text: put quotes around it"
                    )
                inner = (*place, key.value)
                if inner in self._lines:
                    raise SettingsError(
                        f"{self._name}, line {line}: {_dotted(inner)} stands in line {self._lines[inner]}, too: "
                        "write one of them"
                    )
                # Of a key with a block below it, the line of the key.
                self._lines[inner] = line
                self._note_lines(value, inner, within | {id(node)})

    def _checked_preset(self, document: _Document, preset: SourcePreset, *, preset_is_set: bool) -> str:
        named = document.preset
        if named is None:
            if "preset" in document.model_fields_set:
                raise SettingsError(f"{self.place('preset')}: preset is empty: give {_presets()}")
            return preset
        if named not in (*get_args(SourcePreset), NO_PRESET):
            raise SettingsError(f"{self.place('preset')}: preset is {named!r}: give {_presets()}")
        if preset_is_set and named != preset:
            raise SettingsError(
                f"{self.place('preset')}: preset is {named!r}, and MCP_ASSETS_SOURCE_PRESET is {preset!r}: "
                "unset one of them"
            )
        return named

    def _merged(self, document: _Document) -> dict[str, TypeMapping]:
        """The entity types, those of the preset first. Raises SettingsError."""
        below = {} if self._preset == NO_PRESET else SOURCE_PRESETS[self._preset]
        raw: dict[str, Any] = {name: _as_written(entity_type) for name, entity_type in below.items()}
        for number, name in enumerate(document.without):
            if name not in below:
                known = f": its types are {', '.join(below)}" if below else ""
                raise SettingsError(
                    f"{self.place('without', number)}: {name!r} is no type of the preset {self._preset}{known}"
                )
            if name in document.types:
                raise SettingsError(f"{self.place('types', name)}: {name} stands under `without`, too: write one")
            del raw[name]
        for name, own in document.types.items():
            says = dict(own or {})
            if says.pop("preset", None) == NO_PRESET:
                raw.pop(name, None)
            elif own is not None and "preset" in own:
                raise SettingsError(f"{self.place('types', name, 'preset')}: the preset of a type can only be `none`")
            raw[name] = _extended(raw.get(name, {}), says)
        if not raw:
            raise SettingsError(f"{self._name} names no entity type: put one under `types`, or name a preset")
        for mapping in raw.values():
            _drop_nulls(mapping)
        try:
            return TypeAdapter(dict[Identifier, TypeMapping]).validate_python(raw)
        except ValidationError as error:
            raise self._error(error, [*TypeMapping.model_fields, "preset"], ("types",)) from None

    def _error(self, error: ValidationError, known: Sequence[str], before: Place) -> SettingsError:
        return SettingsError("\n".join(dict.fromkeys(self._sentences(error, known, before))))

    def _sentences(self, error: ValidationError, known: Sequence[str], before: Place) -> Iterator[str]:
        for problem in error.errors(include_url=False):
            keys = (*before, *(part for part in problem["loc"] if part != "[key]"))
            where = self.place(*keys)
            if problem["type"] == "extra_forbidden":
                choices = known if len(keys) == len(before) + (2 if before else 1) else None
                yield f"{where}: {_dotted(keys)} is no field of a mapping{_meant(keys, choices)}"
            else:
                named = _dotted(keys) or "the file"
                yield f"{where}: {named}: {wanted(problem, _WANTED_OBJECT)}{self._quotes(problem)}"

    def _quotes(self, problem: Mapping[str, Any]) -> str:
        """What to do where YAML has made a number, a date or a truth value of a name."""
        if problem["type"] != "string_type" or isinstance(problem["input"], dict | list | None):
            return ""
        return f" (YAML reads {problem['input']!r} here: put quotes around it)"

    def _line(self, keys: Place) -> int:
        """The line of a value, or of what it would stand in."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)


_WANTED_OBJECT = "give fields, each in a line of its own below it, such as `table: tasks`"


def find(named: Path | None) -> Path | None:
    """The mapping file: the one that a setting names, or that of the working folder if there is one; absolute.

    The null device stands for no file.
    """
    if named == Path(os.devnull):
        return None
    path = named if named is not None else Path(DEFAULT_NAME)
    return path.absolute() if named is not None or path.is_file() else None


def says_nothing(path: Path) -> bool:
    """Whether each line of the file is empty or a comment, as `mcp-assets init` writes it."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    return all(not line or line.startswith("#") for line in lines)


def _as_written(entity_type: EntityType) -> dict[str, Any]:
    """A type of a preset as a file would say it."""
    source = entity_type.source
    return {
        "source": None if source is None else source.model_dump(exclude_unset=True),
        "collection": entity_type.collection,
        "aliases": entity_type.aliases,
        "id_keys": entity_type.id_keys,
    }


def _extended(below: Any, above: Any) -> Any:
    """`below` with what `above` says in its place, field by field."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _extended(below.get(key), value) for key, value in above.items()}


def _drop_nulls(mapping: Any) -> None:
    """Leave out the keys of `metadata` that are null: the preset has them, and the file takes them away."""
    source = mapping.get("source")
    if isinstance(source, dict) and "metadata" in source:
        metadata = source["metadata"]
        if metadata is None:
            source["metadata"] = {}
        elif isinstance(metadata, dict):
            source["metadata"] = {key: column for key, column in metadata.items() if column is not None}


def _meant(keys: Place, choices: Sequence[str] | None) -> str:
    if choices is None:
        return meant(dict[str, TypeMapping], keys)
    near = get_close_matches(str(keys[-1]), choices, n=1)
    return f": did you mean {near[0]}?" if near else f": the fields are {', '.join(choices)}"


def _shown(path: Path) -> str:
    """The path as a person in this folder would write it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _dotted(keys: Place) -> str:
    return ".".join(map(str, keys))


def _presets() -> str:
    return f"{', '.join(get_args(SourcePreset))} or {NO_PRESET}"
