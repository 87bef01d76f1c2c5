"""Provider places: what the processes of all machines together have in flight at one provider."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest

from mcp_assets.platform import Platform
from mcp_assets.stores.provider_places import ProviderPlaces
from mcp_assets_tests.observing import put_tasks, rows, sync_all
from mcp_assets_tests.openai_stub import OpenAIStub
from mcp_assets_tests.waiting import until

OPEN = threading.Event()
"""Of an embedder that is not closed."""

Make = Callable[[int], ProviderPlaces]


@pytest.fixture
def process(make_platform: Callable[..., Platform], platform: Platform) -> Iterator[Make]:
    """Makes the places at one provider as another process has them: with connections of its own."""
    with ExitStack() as stack:

        def make(places: int) -> ProviderPlaces:
            own = make_platform()
            return stack.enter_context(closing(ProviderPlaces(lambda: own.postgres, "provider:1", places)))

        yield make


def is_free(places: ProviderPlaces, within_s: float = 0.5) -> bool:
    """Whether a place is had within some looks."""
    given_up = threading.Event()
    timer = threading.Timer(within_s, given_up.set)
    timer.start()
    with places.place(given_up):
        had = not given_up.is_set()
    timer.cancel()
    return had


def test_all_processes_together_have_no_more_requests_in_flight_than_there_are_places(process: Make) -> None:
    guard, in_flight, most = threading.Lock(), 0, 0

    def ask(places: ProviderPlaces) -> None:
        nonlocal in_flight, most
        with places.place(OPEN):
            with guard:
                in_flight += 1
                most = max(most, in_flight)
            threading.Event().wait(0.05)
            with guard:
                in_flight -= 1

    processes = [process(3), process(3)]
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(ask, places) for places in processes for _ in range(10)]:
            done.result()
    assert most == 3


def test_a_process_that_is_killed_gives_its_places_back(process: Make, platform: Platform) -> None:
    dying, living = process(1), process(1)
    with dying.place(OPEN):
        assert not is_free(living)
        rows(
            platform,
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
        )
        until(lambda: is_free(living), "the place of the killed process is free")
    with living.place(OPEN):
        assert not is_free(process(1)), "the end of the killed one's request does not free the place of another"


def test_when_a_provider_asks_one_process_to_wait_no_process_asks_it_meanwhile(process: Make) -> None:
    one, other = process(2), process(2)
    one.asked_to_wait(1.5)
    one.asked_to_wait(0.1)
    assert not is_free(other)
    until(lambda: is_free(other), "the pause is over")


def test_while_postgresql_does_not_answer_requests_go_out_within_the_limit_of_the_process(process: Make) -> None:
    places = process(1)
    with places.place(OPEN):
        pass
    places._postgres().url = "postgresql://127.0.0.1:9/none"
    places.close()
    with places.place(OPEN), places.place(OPEN):
        pass


def test_a_full_sync_holds_the_places_of_the_settings_while_its_texts_are_embedded(
    make_platform: Callable[..., Platform], platform: Platform, stub: OpenAIStub
) -> None:
    put_tasks(platform, {f"t{number}": f"Task {number}" for number in range(12)})
    sharing = make_platform(embedding_shared_concurrency=1, batch_size=1)
    server = sharing.settings.openai_base_url
    assert server is not None
    other = ProviderPlaces(lambda: platform.postgres, server.split("/")[2], 1)
    with closing(other), ThreadPoolExecutor(1) as pool:
        with other.place(OPEN):
            syncing = pool.submit(sync_all, sharing)
            until(lambda: rows(platform, "SELECT FROM {schema}.entities"), "the full sync has begun")
            assert stub.stats()["texts"] == 0
        assert syncing.result().embedded == 12
