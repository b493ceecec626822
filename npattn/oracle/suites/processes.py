"""Processes that make cases, and end when the one that started them does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

from threadpoolctl import threadpool_limits

from npattn.checks import require_integers

__all__ = ["worker_processes"]

PATIENCE = 0.5
"""Seconds in which a worker notices that it is to end."""


@contextlib.contextmanager
def worker_processes(jobs: int) -> Iterator[Executor]:
    """Start processes for a suite, each of which computes in one thread.

    They end with the block. If it ends by an exception, such as KeyboardInterrupt, or the process is killed, they end
    at once, whatever they compute.

    Parameters
    ----------
    jobs : int

    Raises
    ------
    TypeError, ValueError
        If `jobs` is no integer of at least 1.
    """
    require_integers("worker_processes", jobs=jobs)
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    stopped = context.Event()
    pool = ProcessPoolExecutor(jobs, context, prepare_worker, (stopped,))
    try:
        yield pool
    except BaseException:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def prepare_worker(stopped: Any) -> None:
    """Set up a worker: it leaves Ctrl-C to its parent, and watches it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threadpool_limits(1)
    threading.Thread(target=end_with_parent, args=(stopped,), daemon=True).start()


def end_with_parent(stopped: Any) -> None:
    """Wait until the worker is to end, or its parent has ended."""
    parent = multiprocessing.parent_process()
    with contextlib.suppress(OSError, EOFError):  # the parent is gone, and the event with it
        while not stopped.wait(PATIENCE) and parent is not None and parent.is_alive():
            pass
    os._exit(1)
