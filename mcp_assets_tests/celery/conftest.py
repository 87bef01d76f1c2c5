"""The platform with two Celery workers, one for a module, and the Dagster instance that they share."""

from collections.abc import Iterator

import dagster as dg
import pytest

from mcp_assets_tests.acceptance.live import end, launch
from mcp_assets_tests.celery.cluster import BROKER, Cluster

NAMES = ("east", "west")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Stores, broker and two workers; no process of it is left when the module's tests are done."""
    if BROKER is None:
        pytest.skip("no broker: redis-server is not on the path (Debian: apt-get install redis-server)")
    live = launch(tmp_path_factory.mktemp("celery"))
    cluster = Cluster(live)
    try:
        live.settings |= {
            "MCP_ASSETS_SHARDS": "4",
            "MCP_ASSETS_PARTITIONS_A_RUN": "2",
            "EMBEDDING_SHARED_CONCURRENCY": "8",
            "MCP_ASSETS_DRAIN_LINGER_S": "2",
            # It would do what the full sync is to do.
            "MCP_ASSETS_SWEEP": "false",
        }
        cluster.start()
        for name in NAMES:
            cluster.start_worker(name, processes=4)
        cluster.wait_for_workers(*NAMES)
        live.start_daemon()
        yield cluster
    finally:
        live.stop_daemon()
        cluster.end()
        left = end(live)
    assert left == []


@pytest.fixture
def instance(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance as deploy/celery/dagster.yaml describes it."""
    for name, value in cluster.live.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cluster.live.folder)
    with dg.DagsterInstance.from_config(str(cluster.live.folder)) as opened:
        yield opened
