"""The one retry policy: which failures are worth another try, how often, and after what wait."""

import logging

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable

logger = logging.getLogger(__name__)


def retrying(settings: Settings) -> Retrying:
    """Tries a call RETRY_ATTEMPTS times while a store is unavailable, the wait doubling; then the store's error stands.

    What goes through it is safe to repeat. The embedding provider's requests are retried by its SDK, by the same
    settings; a whole batch is not embedded again on top of that.
    """
    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_after_attempt(settings.retry_attempts),
        wait=wait_exponential(multiplier=settings.retry_delay_ms / 1000, exp_base=2, max=60),
        before_sleep=_say,
        reraise=True,
    )


def _say(state: RetryCallState) -> None:
    if state.outcome is not None and state.next_action is not None:
        logger.warning(
            "try %d failed, next in %.1f s: %s",
            state.attempt_number,
            state.next_action.sleep,
            state.outcome.exception(),
        )
