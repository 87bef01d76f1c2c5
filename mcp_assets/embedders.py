"""Embedders: the embedder of the model that the settings name, and that of the model before."""

from collections.abc import Callable

from pydantic import SecretStr

from mcp_assets.embedding.local import LocalEmbedder
from mcp_assets.embedding.profiles import WORDLLAMA, ModelProfile
from mcp_assets.embedding.protocol import Embedder
from mcp_assets.embedding.request_gate import OPEN_GATE, RequestGate
from mcp_assets.embedding.shared_limit import OWN_LIMIT_ALONE, SharedLimit
from mcp_assets.settings import Settings

GateOf = Callable[[ModelProfile], RequestGate]
"""The gate of the requests to a model."""


SharedLimitOf = Callable[[str], SharedLimit]
"""The limit of requests in flight that all processes keep at a provider, by its host and port."""


def _no_gate(profile: ModelProfile) -> RequestGate:  # noqa: ARG001  (a GateOf)
    return OPEN_GATE


def _no_shared_limit(provider: str) -> SharedLimit:  # noqa: ARG001  (a SharedLimitOf)
    return OWN_LIMIT_ALONE


def make_embedder(
    settings: Settings, gate_of: GateOf = _no_gate, shared_limit_of: SharedLimitOf = _no_shared_limit
) -> Embedder:
    """The embedder that the settings name."""
    if settings.provider == "local":
        return LocalEmbedder(settings.profile)
    return _openai_embedder(
        settings, settings.profile, settings.openai_api_key, settings.openai_base_url, gate_of, shared_limit_of
    )


def make_previous_embedder(
    settings: Settings, gate_of: GateOf = _no_gate, shared_limit_of: SharedLimitOf = _no_shared_limit
) -> Embedder | None:
    """The embedder of the previous model; the local one, uncut, needs no setting, because it is always there."""
    profile = settings.previous_profile
    if profile is None:
        is_uncut = (settings.profile.name, settings.profile.dimension) == (WORDLLAMA.name, WORDLLAMA.dimension)
        return None if is_uncut else LocalEmbedder()
    if profile.name == WORDLLAMA.name:
        return LocalEmbedder(profile)
    return _openai_embedder(
        settings,
        profile,
        settings.previous_api_key or settings.openai_api_key,
        settings.previous_base_url or settings.openai_base_url,
        gate_of,
        shared_limit_of,
    )


def _openai_embedder(
    settings: Settings,
    profile: ModelProfile,
    key: SecretStr | None,
    base_url: str | None,
    gate_of: GateOf,
    shared_limit_of: SharedLimitOf,
) -> Embedder:
    # Not at the top, because the SDK takes longer to load than most commands work, and the local model needs none.
    from mcp_assets.embedding.embedding_requests import server_of
    from mcp_assets.embedding.openai_compatible import OPENAI_URL, OpenAICompatibleEmbedder

    return OpenAICompatibleEmbedder(
        profile,
        api_key=key.get_secret_value() if key else None,
        base_url=base_url,
        concurrency=settings.embedding_concurrency,
        attempts=settings.retry_attempts,
        retry_delay_s=settings.retry_delay_ms / 1000,
        timeout_s=settings.embedding_timeout_s,
        tls_ca_file=settings.embedding_tls_ca_file,
        gate=gate_of(profile),
        shared=shared_limit_of(server_of(base_url or OPENAI_URL)),
    )
