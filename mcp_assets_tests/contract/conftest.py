"""The Qdrant that the contract is held against: the one at QDRANT_URL, else an embedded one in a temporary folder."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from qdrant_client import QdrantClient, models

from mcp_assets.embedded.qdrant import STRICT_VARIABLE


@pytest.fixture(scope="session")
def qdrant_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if url := os.environ.get("QDRANT_URL"):
        yield url
        return
    storage: Path = tmp_path_factory.mktemp("qdrant")
    command = [sys.executable, "-m", "mcp_assets.embedded.qdrant", "--port", "0", "--storage", str(storage)]
    # A collection of the contract is strict only where the contract asks for it.
    environment = os.environ | {STRICT_VARIABLE: "0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        try:
            serving = server.stderr.readline()
            assert " on http://" in serving, serving + server.stderr.read()
            yield serving.split(" on ")[1].strip()
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=30)
        assert server.returncode == 0


@pytest.fixture(scope="session")
def client(qdrant_url: str) -> Iterator[QdrantClient]:
    client = QdrantClient(url=qdrant_url, api_key=os.environ.get("QDRANT_API_KEY"), timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="session")
def http(qdrant_url: str) -> Iterator[httpx.Client]:
    """For what qdrant-client would not send."""
    api_key = os.environ.get("QDRANT_API_KEY")
    with httpx.Client(base_url=qdrant_url, headers={"api-key": api_key} if api_key else None, timeout=30) as client:
        yield client


@pytest.fixture
def unused_name(client: QdrantClient) -> Iterator[Callable[[], str]]:
    """Makes collection names that nobody else uses; their collections are deleted after the test."""
    names: list[str] = []

    def unused() -> str:
        names.append(f"contract_{uuid.uuid4().hex}")
        return names[-1]

    yield unused
    for name in names:
        client.delete_collection(name)


@pytest.fixture
def collection(client: QdrantClient, unused_name: Callable[[], str]) -> str:
    """An empty collection of 4 dimensions under cosine."""
    name = unused_name()
    client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    return name
