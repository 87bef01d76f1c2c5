"""Garbage is collected seldom while the block runs, and as before it afterwards, whatever happens in it."""

import gc

import pytest

from mcp_assets.sync.collections.gc_threshold import collected_seldom


def test_the_collector_is_as_it_was_after_the_block_and_after_an_error_in_it() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), collected_seldom():
        assert gc.get_threshold()[0] > 10 * before[0]
        assert gc.isenabled()
        raise KeyError
    assert gc.get_threshold() == before
