"""The one retry policy: which failures are worth another try, how often, and after what wait."""

import logging
from threading import Event
from typing import NoReturn

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)

from mcp_assets.settings import Settings
from mcp_assets.stores.errors import StoreUnavailable

logger = logging.getLogger(__name__)


def retrying(settings: Settings) -> Retrying:
    """Tries a call RETRY_ATTEMPTS times while a store is unavailable, with doubling waits; then raises its error.

    The call has to be safe to repeat. If retries are nested, an error that the inner ones have given up is not retried
    by the outer ones. Requests to the embedding provider have retries of their own, by the same settings, so that no
    text is embedded again because a store was slow to come back.
    """
    return Retrying(
        retry=retry_if_exception(_worth_another_try),
        stop=stop_after_attempt(settings.retry_attempts),
        wait=wait_exponential(multiplier=settings.retry_delay_ms / 1000, exp_base=2, max=60),
        before_sleep=_say,
        retry_error_callback=_give_up,
    )


def waiting(settings: Settings, stop: Event, wait_s: float) -> Retrying:
    """Tries a call for `wait_s` while a store is unavailable, at least each five seconds, until `stop` is set.

    For vectors that are paid: waiting outlasts the restart of a store, and no further run has to be asked for.
    """
    return Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=stop_any(stop_after_delay(wait_s), stop_when_event_set(stop)),
        wait=wait_exponential(multiplier=settings.retry_delay_ms / 1000, exp_base=2, max=5),
        sleep=sleep_using_event(stop),
        retry_error_callback=_give_up,
    )


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) and not error.tried_out


def _give_up(state: RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        raise RuntimeError("a call was given up that did not fail")
    if isinstance(error, StoreUnavailable):
        error.tried_out = True
    raise error


def _say(state: RetryCallState) -> None:
    if state.outcome is not None and state.next_action is not None:
        logger.warning(
            "try %d failed, next in %.1f s: %s",
            state.attempt_number,
            state.next_action.sleep,
            state.outcome.exception(),
        )
