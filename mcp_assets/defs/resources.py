"""Resources: how assets and sensors reach the platform. Clients live as long as the process, not as a resource."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from mcp_assets.platform import Platform, shared_platform


class PlatformResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The process's platform, by the settings in the environment. Tests put their own in its place."""

    def get(self) -> Platform:
        return shared_platform()


@contextmanager
def embedding_until_interrupted(platform: Platform) -> Iterator[Platform]:
    """The platform for a run. Once it is interrupted, its process sends no more requests to the embedding provider.

    Otherwise a thread whose request is in flight at that moment would send the next one.
    """
    try:
        yield platform
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        platform.stop_embedding()
        raise
