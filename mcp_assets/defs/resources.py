"""Resources: how assets and sensors reach the platform. Clients live as long as the process, not as a resource."""

import dagster as dg

from mcp_assets.sync.platform import Platform, shared_platform


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The process's platform, by the settings in the environment. Tests put their own in its place."""

    def get(self) -> Platform:
        return shared_platform()
