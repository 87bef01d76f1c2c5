"""Store outage: whether Qdrant answers, asked before a run is asked for.

A run that cannot reach Qdrant fails within seconds, and without this probe each sensor tick would ask for the next run.
The probe costs a millisecond, and is repeated every few seconds, so that runs go on soon after Qdrant has returned.
"""

import math
import threading
import time

from mcp_assets.platform import Platform
from mcp_assets.setting_errors import SettingsError
from mcp_assets.stores.errors import StoreRefused, StoreUnavailable
from mcp_assets.stores.qdrant import Qdrant

_ANSWER_WITHIN_S = 10.0
"""A server that is frozen counts as silent after this, because a tick must not wait for it as long as a run does.

A server that takes some seconds for each answer is slow, and runs work with it.
"""


class QdrantProbe:
    """Whether Qdrant answers now; one for each platform. Thread-safe."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._asking = threading.Lock()
        self._asked_at = -math.inf
        self._silence: str | None = None
        self._qdrant: Qdrant | None = None

    def silence(self) -> str | None:
        """Why no run can work with Qdrant now; None if it answers."""
        with self._asking:
            if time.monotonic() - self._asked_at > self._platform.tuning.index.qdrant_answer_valid_s:
                self._silence = self._ask()
                self._asked_at = time.monotonic()
            return self._silence

    def close(self) -> None:
        with self._asking:
            self._let_go()

    def _ask(self) -> str | None:
        try:
            self._qdrant = self._qdrant or self._platform.open_qdrant(timeout_s=_ANSWER_WITHIN_S)
            self._qdrant.collections()
        except (StoreUnavailable, StoreRefused, SettingsError) as error:
            self._let_go()
            return str(error)
        return None

    def _let_go(self) -> None:
        if self._qdrant is not None:
            self._qdrant.close()
            self._qdrant = None
