"""Type names: the names that messages use for entity types, and the keys that hold their ids."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_NO_EXTRA_ID_KEYS: Mapping[str, Iterable[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TypeNames:
    """The registered entity types with their aliases and id keys; build it with `of`. Immutable."""

    _type_of_name: Mapping[str, str]
    _type_of_id_key: Mapping[str, str]
    _id_keys_of_type: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, aliases: Mapping[str, Iterable[str]], id_keys: Mapping[str, Iterable[str]] = _NO_EXTRA_ID_KEYS
    ) -> "TypeNames":
        """`aliases`: entity type -> its other names. A type `x` has the id key `x_id` (`xId` in camelCase);
        `id_keys`: entity type -> further id keys, in snake_case. Aliases make no id keys, because a page's
        `wikiId` is the id of the wiki that contains the page.

        Raises ValueError if a name or key is malformed, or belongs to two types, or `id_keys` names an unknown type.
        """
        type_of_name: dict[str, str] = {}
        type_of_id_key: dict[str, str] = {}
        # Types first: none of them may be taken as an alias of another.
        for entity_type in aliases:
            _claim(type_of_name, entity_type, entity_type)
            _claim(type_of_id_key, f"{entity_type.replace('-', '_')}_id", entity_type)
        for entity_type, names in aliases.items():
            for name in names:
                _claim(type_of_name, name, entity_type)
        for entity_type, keys in id_keys.items():
            if entity_type not in aliases:
                raise ValueError(f"id_keys names the entity type {entity_type!r}, which is not among {[*aliases]}")
            for key in keys:
                _claim(type_of_id_key, key, entity_type)
        id_keys_of_type = {
            entity_type: tuple(key for key, owner in type_of_id_key.items() if owner == entity_type)
            for entity_type in aliases
        }
        return cls(MappingProxyType(type_of_name), MappingProxyType(type_of_id_key), MappingProxyType(id_keys_of_type))

    def canonical(self, name: str) -> str | None:
        """The entity type of the name or alias `name`, in any case; None if there is none."""
        return self._type_of_name.get(name.lower())

    def types_of_id_keys(self, keys: Iterable[str]) -> dict[str, str]:
        """By entity type, that of `keys` (snake_case) which holds its ids; the last one if there are several."""
        known = self._type_of_id_key
        return {known[key]: key for key in keys if key in known}

    def id_keys(self, entity_type: str) -> tuple[str, ...]:
        """The snake_case keys that hold an id of `entity_type`; its own, `<type>_id`, comes first."""
        return self._id_keys_of_type.get(entity_type, ())

    def known(self) -> tuple[str, ...]:
        """The registered entity types, in the order they were given."""
        return tuple(dict.fromkeys(self._type_of_name.values()))


def _claim(owners: dict[str, str], name: str, entity_type: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} of entity type {entity_type!r} must match {_NAME.pattern}")
    owner = owners.setdefault(name, entity_type)
    if owner != entity_type:
        raise ValueError(f"{name!r} is claimed by two entity types, {owner!r} and {entity_type!r}")


DEFAULT_TYPE_NAMES = TypeNames.of(
    {
        "task": ("tasks", "card", "kanban"),
        "page": ("pages", "wiki", "wiki_page"),
        "memory": ("memories", "node", "memory_node"),
    },
    id_keys={"memory": ("node_id",)},
)
