"""The platform for Python programs: `from mcp_assets import search`. It reads, and changes nothing."""

import atexit
import threading
from collections.abc import Sequence

from mcp_assets.entities.conditions import conditions_of
from mcp_assets.platform import Platform
from mcp_assets.settings import load_settings
from mcp_assets.sync.search.search import By, SearchAnswer
from mcp_assets.sync.search.search import search as search_entities

_opening = threading.Lock()
_platforms: list[Platform] = []
"""The one platform of this process, once it is used."""


def search(
    query: str,
    *,
    types: Sequence[str] = (),
    where: Sequence[str] = (),
    limit: int = 10,
    offset: int = 0,
    min_score: float | None = None,
    by: By = "both",
) -> SearchAnswer:
    """The entities that answer the query, as `mcp-assets search` finds them, with the settings of the environment.

    `where`: conditions on metadata, such as `status=open` or `due_date<2026-12-01`. The connections are kept for the
    next search.

    Raises:
        SettingsError, ConditionError, and what `mcp_assets.sync.search.search.search` raises.
    """
    conditions = conditions_of(where)
    return search_entities(
        _platform(), query, types=types, where=conditions, limit=limit, offset=offset, min_score=min_score, by=by
    )


def _platform() -> Platform:
    with _opening:
        if not _platforms:
            _platforms.append(Platform(load_settings(), reads_only=True))
            atexit.register(_close)
        return _platforms[0]


def _close() -> None:
    with _opening:
        while _platforms:
            _platforms.pop().close()
