"""Each kind of fault in the stores is found as the drift that it is, is mended alone, and leaves nothing behind.

The workspace is made once: each test ends with a deep census that finds nothing, and so begins with one.
"""

from collections.abc import Iterator

import pytest

from mcp_assets.embedded.stack import StackAddresses
from mcp_assets.platform import Platform
from mcp_assets.sync.consistency.validation import validate
from mcp_assets_tests.conftest import settings_on
from mcp_assets_tests.faults import BROKEN, FAULTS, Fault
from mcp_assets_tests.hashing import TASKS, HashEmbedder, censuses, fill, found, qdrant


@pytest.fixture(scope="module")
def workspace(addresses: StackAddresses) -> Iterator[Platform]:
    """Two partitions of tasks, embedded and linked; each fault has tasks of its own to break."""
    with settings_on(addresses) as settings:
        platform = Platform(settings.model_copy(update={"shards": 2}), embedder=HashEmbedder())
        try:
            fill(platform, _first_task(len(FAULTS)))
            assert found(censuses(platform, deep=True)) == {}
            yield platform
        finally:
            platform.close()


def _first_task(fault: int) -> int:
    """The number of the first task that a fault breaks, by its place among all: odd, because pairs begin with such."""
    return fault * BROKEN + 3


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_as_its_kind_and_mended_without_embedding_what_is_whole(
    workspace: Platform, fault: Fault
) -> None:
    embedder = workspace.embedder
    assert isinstance(embedder, HashEmbedder)
    embedder.texts.clear()
    with qdrant(workspace) as client:
        points = client.count(TASKS).count
    first = _first_task(FAULTS.index(fault))

    fault.make(workspace, range(first, first + BROKEN))
    report = validate(workspace, entity_types=["task"], repair=True, deep=True)

    assert {kind: count for kind, count in report.found.items() if kind not in fault.besides} == fault.drift
    assert report.refused is None
    assert report.left == {}
    assert len(embedder.texts) == report.embedded == fault.embedded
    left = {kind: fault.drift[kind] for kind in fault.left}
    assert found(censuses(workspace, deep=True)) == left
    if left:
        others = validate(workspace, entity_types=["task"], repair=True, foreign=True, foreign_edges=True)
        assert others.mended == left
        assert found(censuses(workspace, deep=True)) == {}
    with qdrant(workspace) as client:
        assert client.count(TASKS).count == points - fault.gone
