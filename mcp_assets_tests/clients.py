"""Clients of a test's own, beside the platform's, and the settings of other processes: with the keys of the stores."""

from typing import Any

from qdrant_client import QdrantClient

from mcp_assets.embedded.stack import StackAddresses
from mcp_assets.settings import Settings


def qdrant_of(settings: Settings, **options: Any) -> QdrantClient:
    """A client of the Qdrant that the settings name; the caller closes it."""
    key = settings.qdrant_api_key
    return _client(settings.require_qdrant_url(), key.get_secret_value() if key else None, options)


def qdrant_at(addresses: StackAddresses, **options: Any) -> QdrantClient:
    """A client of the Qdrant of an embedded stack; the caller closes it."""
    assert addresses.qdrant_url is not None
    return _client(addresses.qdrant_url, addresses.qdrant_api_key, options)


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """The variables with which another process works on the stores, and with the embedder, of a test."""
    assert settings.openai_base_url is not None
    return {
        "DATABASE_URL": settings.require_database_url(),
        "NATS_URL": settings.require_nats_url(),
        "QDRANT_URL": settings.require_qdrant_url(),
        "QDRANT_API_KEY": key_in(settings),
        "OPENAI_BASE_URL": settings.openai_base_url,
        "EMBEDDING_MODEL": "stub",
        "EMBEDDING_DIMENSION": str(settings.embedding_dimension),
        **more,
    }


def key_in(settings: Settings) -> str:
    """The key of Qdrant in the settings."""
    assert settings.qdrant_api_key is not None
    return settings.qdrant_api_key.get_secret_value()


def _client(url: str, key: str | None, options: dict[str, Any]) -> QdrantClient:
    # As a header, because the client warns of a key that goes over HTTP, on loopback, too.
    headers = {"api-key": key} if key else None
    return QdrantClient(url=url, headers=headers, check_compatibility=False, **options)


def key_of(addresses: StackAddresses) -> str:
    """The key of the stack's Qdrant."""
    assert addresses.qdrant_api_key is not None
    return addresses.qdrant_api_key
