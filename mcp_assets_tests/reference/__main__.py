"""Write the reference pages and `.env.example`; for the page of the tables, PostgreSQL is started for a moment."""

import tempfile
from pathlib import Path

from pydantic import SecretStr

from mcp_assets.embedded import stack
from mcp_assets.platform import Platform
from mcp_assets.settings import Settings
from mcp_assets_tests.reference import tables
from mcp_assets_tests.reference.pages import PAGES, TABLES


def main() -> None:
    for path, page in PAGES.items():
        path.write_text(page())
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder)
        addresses = stack.start(state_dir, [stack.Part.POSTGRES])
        try:
            settings = Settings(
                _env_file=None,  # type: ignore[call-arg]
                database_url=SecretStr(addresses.database_url or ""),
                state_dir=state_dir,
            )
            platform = Platform(settings)
            try:
                TABLES.write_text(tables.page(platform))
            finally:
                platform.close()
        finally:
            stack.stop(state_dir)


if __name__ == "__main__":
    main()
