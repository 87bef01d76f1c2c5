"""Links: from the page of an asset to the page of the documentation about it."""

from collections.abc import Mapping

import dagster as dg

from mcp_assets.settings import Settings


def docs_link(settings: Settings, page: str) -> Mapping[str, dg.MetadataValue]:
    """The metadata entry for `docs/<page>.md`: its address if the documentation is served, otherwise its path.

    `page` may name a section behind a `#`.
    """
    path, _, section = page.partition("#")
    if settings.docs_url is None:
        return {"docs": dg.MetadataValue.path(f"docs/{path}.md")}
    anchor = f"#{section}" if section else ""
    return {"docs": dg.MetadataValue.url(f"{settings.docs_url.rstrip('/')}/docs/{path}/{anchor}")}
