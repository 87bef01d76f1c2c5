"""Intake from a real cluster of three nodes, one of which is behind (I1): nothing lost, nothing taken twice."""

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from nats.js import api
from nats.js.errors import APIError
from pydantic import SecretStr

from mcp_assets.cli.load_entities import create_source_tables
from mcp_assets.platform import Platform
from mcp_assets.sync.inbox.drain_requests import wanted_full_syncs
from mcp_assets.sync.inbox.intake import intake
from mcp_assets_tests.nats_servers import Server, cluster, on_jetstream
from mcp_assets_tests.observing import inbox, send_looks, take_in
from mcp_assets_tests.waiting import until

STREAM = "SITE"
OUTAGES = 4
FOREIGN_MESSAGES = 2_500
FOREIGN = b"x" * 8_000
READS_AN_OUTAGE = 25


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Sequence[Server]]:
    with cluster(tmp_path / "cluster") as started:
        yield started


def make_stream(url: str) -> None:
    """Of three replicas, shared with others; a cluster takes some seconds to elect who may make it."""

    def is_made() -> bool:
        try:
            on_jetstream(url, lambda js: js.add_stream(name=STREAM, subjects=["mcp.>"], num_replicas=3))
        except (APIError, TimeoutError):
            return False
        return True

    until(is_made, "the cluster makes a stream")


def replicas(url: str) -> api.ClusterInfo:
    info = on_jetstream(url, lambda js: js.stream_info(STREAM))
    assert info.cluster is not None
    return info.cluster


def are_level(url: str) -> bool:
    """Whether each follower has what the leader has."""
    followers = replicas(url).replicas or []
    return len(followers) == 2 and all(follower.current and not follower.lag for follower in followers)


def test_a_follower_that_catches_up_makes_intake_lose_nothing_and_take_nothing_twice(
    nodes: Sequence[Server], make_platform: Callable[..., Platform]
) -> None:
    url = nodes[0].url
    make_stream(url)
    leader = replicas(url).leader
    behind = next(node for number, node in enumerate(nodes) if number and f"n{number}" != leader)
    asked = [node.url for node in nodes if node is not behind]
    platform = make_platform(nats_url=SecretStr(",".join(asked)), streams=(STREAM,), create_stream=False)
    create_source_tables(platform)
    sent = ["first"]
    send_looks(platform, *sent)
    take_in(platform)

    for outage in range(OUTAGES):
        behind.stop(signal.SIGKILL)
        platform.nats.publish((("mcp.board.get", FOREIGN) for _ in range(FOREIGN_MESSAGES)), flush_every=300)
        # Not waited for: it is asked for messages while it has few of them.
        behind.launch()
        for number in range(READS_AN_OUTAGE):
            sent.append(f"{outage}-{number}")
            send_looks(platform, sent[-1])
            intake(platform, wait_s=0.05)

    until(lambda: are_level(url), "the follower has caught up")
    take_in(platform)
    assert inbox(platform) == sent
    assert wanted_full_syncs(platform) == {}
