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
    """For what a run does: once it is interrupted, its process sends nothing more to the embedding provider.

    A request that is in flight then may end in a thread that would send the next one.
    """
    try:
        yield platform
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        platform.stop_embedding()
        raise
