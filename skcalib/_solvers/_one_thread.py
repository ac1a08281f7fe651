"""BLAS at one thread while a search runs, whose blocks run side by side already."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController


class _Shared:
    """The limit that all threads share: the first search sets it, the last restores it.

    If each search put back what it had found, then of two that overlap the one that
    ends last would put back the limit of the other.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a process in which no search runs."""
        self._lock = Lock()
        self._running = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._running == 0:
                self._limit = _thread_pools().limit(limits=1, user_api="blas")
                _let_go()
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                self._limit.restore_original_limits()
                _let_go()


_shared = _Shared()
if hasattr(os, "register_at_fork"):
    # The searches of other threads do not go on in a fork.
    os.register_at_fork(after_in_child=_shared.forget)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS at one thread until the last of the blocks that overlap has ended."""
    # With OpenMP, BLAS has another limit in each thread that calls it.
    own = _thread_pools().select(threading_layer="openmp")
    with own.limit(limits=1, user_api="blas"), _shared:
        yield


@cache
def _thread_pools() -> ThreadpoolController:
    """Find the BLAS of NumPy and SciPy, once since it takes a millisecond."""
    return ThreadpoolController()


def _let_go() -> None:
    """Let any thread set the next limit, which threadpoolctl >= 3.8 keeps to one."""
    for pool in _thread_pools().lib_controllers:
        if hasattr(pool, "clear_controlling_thread"):
            pool.clear_controlling_thread()
