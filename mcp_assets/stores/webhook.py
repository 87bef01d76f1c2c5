"""Webhook: posts a sentence to an address that a person reads, as Slack, Mattermost and others take it."""

import httpx

from mcp_assets.loopback import is_loopback, unusable_proxy
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable

_TIMEOUT_S = 10.0
"""Seconds for one post; a sensor waits for it."""

_VARIABLE = "MCP_ASSETS_ALERT_WEBHOOK"


def post(url: str, text: str) -> None:
    """Post `{"text": text}`. The address is a secret, and stands in no error.

    Raises:
        StoreUnavailable: nothing answers there, or it fails.
        StoreRefused: it refuses the post.
    """
    try:
        with httpx.Client(timeout=_TIMEOUT_S, trust_env=not is_loopback(url)) as client:
            answer = client.post(url, json={"text": text})
    except ImportError as error:
        raise StoreUnavailable(unusable_proxy(_VARIABLE, error)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StoreUnavailable(f"the webhook in {_VARIABLE} does not answer ({type(error).__name__})") from None
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        raise StoreUnavailable(f"the webhook in {_VARIABLE} failed ({answer.status_code})")
    if not answer.is_success:
        raise StoreRefused(f"the webhook in {_VARIABLE} refused ({answer.status_code}): is its address right?")
