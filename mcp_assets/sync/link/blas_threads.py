"""BLAS threads: while searches run in several threads, each product of matrices uses one thread and not all cores.

Otherwise the threads wait for each other. Measured with two searches of 500 lists each on two cores: 147 GFLOP a second
in place of 104.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController


class _OneThread:
    """The limit is one of the whole process, so that the last of those who want it takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if not self._wanted:
                self._limits = ThreadpoolController().limit(limits=1, user_api="blas")
            self._wanted += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted -= 1
                if not self._wanted:
                    self._limits.restore_original_limits()


one_blas_thread = _OneThread().hold
"""While a block of it runs, in any thread, products of matrices use one thread each."""
