"""Threads for the passes of a golden case, each of which multiplies its matrices alone."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["pass_threads"]

LOCK = threading.Lock()
USERS: list[Any] = []
"""For each block of `pass_threads` that is entered, in any thread, what the first has limited."""


@contextlib.contextmanager
def pass_threads() -> Iterator[ThreadPoolExecutor]:
    """Start as many threads as there are cores that may compute: no more than BLAS may take.

    Meanwhile BLAS multiplies on one thread, in the whole process. Its own threads would wait for each other and for
    these; and where they share a product its last bits depend on how many there are. So a case is the same on any
    number of cores.

    Examples
    --------
    >>> with pass_threads() as pool:
    ...     list(pool.map(abs, [-1, 2]))
    [1, 2]
    """
    threads = max((library.num_threads for library in blas().lib_controllers), default=1)
    with one_thread(), ThreadPoolExecutor(max(1, min(count_cores(), threads))) as pool:
        yield pool


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread until the last of all who ask for it at once has ended."""
    with LOCK:
        USERS.append(USERS[0] if USERS else blas().limit(limits=1))
    try:
        yield
    finally:
        with LOCK:
            limit = USERS.pop()
            if not USERS:
                limit.restore_original_limits()


@functools.cache
def blas() -> ThreadpoolController:
    """Find the libraries of matrix products that are loaded."""
    return ThreadpoolController().select(user_api="blas")


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
