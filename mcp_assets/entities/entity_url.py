"""Entity URL: the address of an entity's page in the team's own tools, by the pattern that settings give."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urlsplit

from mcp_assets.entities.refs import EntityRef

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class EntityUrl:
    """A pattern such as `https://wiki.example.org/{type}/{id}`; build it with `of`."""

    pattern: str

    @classmethod
    def of(cls, pattern: str) -> "EntityUrl":
        """The pattern, checked.

        Raises:
            ValueError: the pattern leads elsewhere than to a server by http or https, does not hold `{id}`, or holds
                another placeholder than `{id}` and `{type}`, one in the server's name, a user, or white space.
        """
        names = set(_PLACEHOLDER.findall(pattern))
        if "id" not in names or not names <= {"id", "type"} or re.search("[{}]", _PLACEHOLDER.sub("", pattern)):
            raise ValueError(f"{pattern!r} must hold {{id}}, may hold {{type}}, and must hold no other braces")
        # A browser reads a backslash as a slash and drops white space, so it would go to another server than it seems.
        if not pattern.isprintable() or re.search(r"[\s\\]", pattern):
            raise ValueError(f"{pattern!r} must not hold white space, control characters or backslashes")
        parts = _parts(pattern)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{pattern!r} must begin with http:// or https:// and the name of a server")
        if "{" in parts.netloc:
            raise ValueError(f"{pattern!r} must not have a placeholder in the name of the server")
        if "@" in parts.netloc:
            # The pattern is not repeated, because a password would go into logs.
            raise ValueError("it must not hold a user or a password, because each reader of the file would see them")
        return cls(pattern)

    def url(self, ref: EntityRef) -> str:
        """The address of `ref`. Type and id are percent-encoded, their slashes too."""
        values = {"type": ref.type, "id": ref.id}
        return _PLACEHOLDER.sub(lambda found: quote(values[found[1]], safe="", errors="replace"), self.pattern)


def _parts(pattern: str) -> SplitResult | None:
    """The parts of the URL; None if it is none."""
    try:
        parts = urlsplit(pattern)
        _ = parts.port  # raises ValueError if it is no number
    except ValueError:
        return None
    return parts
