"""Processes that compute for a suite, and end when the one that started them does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from npattn.checks import require_integers

__all__ = ["interrupts_put_off", "results_in_turn", "worker_processes"]

Result = TypeVar("Result")

PATIENCE_SECONDS = 0.1
"""Seconds after which a worker that is to end, and is not computing, looks again."""
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)
]  # Windows lacks two
"""Signals whose handlers, where they are functions, end what is under way by an exception."""
COMPUTING, STATE = threading.Event(), threading.Lock()
"""Whether this worker computes, and what is held while that changes."""


@contextlib.contextmanager
def worker_processes(jobs: int) -> Iterator[Executor]:
    """Start processes for a suite, each of which computes in one thread.

    They end with the block. If it ends by an exception, such as KeyboardInterrupt, or the process is killed, they end
    at once, whatever they compute.

    Parameters
    ----------
    jobs : int

    Yields
    ------
    concurrent.futures.Executor

    Raises
    ------
    TypeError, ValueError
        If `jobs` is no integer of at least 1.

    Examples
    --------
    >>> with worker_processes(1) as executor:
    ...     executor.submit(pow, 2, 10).result()
    1024
    """
    require_integers("worker_processes", jobs=jobs)
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    # Workers are to end when the other end is closed: by the block's exception, or with this process.
    end, held = context.Pipe(duplex=False)
    pool = Workers(jobs, context, prepare_worker, (end,))
    try:
        yield pool
    except BaseException:
        with interrupts_put_off():
            # First: a pool that finds a worker ended before it has dropped what was cancelled fails, and ends no other.
            pool.shutdown(wait=False, cancel_futures=True)
            held.close()
        raise
    else:
        pool.shutdown()
        held.close()
    finally:
        end.close()


def results_in_turn(
    executor: Executor, function: Callable[..., Result], calls: Sequence[tuple[Any, ...]]
) -> Iterator[Result]:
    """Call a function with each of some arguments on an executor, and give the results in their order.

    Not as its `map`, whose waiting an interrupt may leave with locks that the executor's threads wait for.

    Examples
    --------
    >>> with worker_processes(1) as executor:
    ...     list(results_in_turn(executor, pow, [(2, 3), (3, 2)]))
    [8, 9]
    """
    finished: SimpleQueue[Future[Result]] = SimpleQueue()
    numbers: dict[Future[Result], int] = {}
    with interrupts_put_off():
        for number, arguments in enumerate(calls):
            future = executor.submit(function, *arguments)
            numbers[future] = number
            future.add_done_callback(finished.put)
    ready: dict[int, Future[Result]] = {}
    for number in range(len(calls)):
        while number not in ready:
            future = finished.get()
            ready[numbers[future]] = future
        yield ready.pop(number).result()


class Workers(ProcessPoolExecutor):
    """Processes that may be ended while they compute, and not while they hand over a result."""

    def submit(self, function: Callable[..., Result], /, *arguments: Any, **options: Any) -> Future[Result]:
        """Have a function called. A worker that this starts never gets Ctrl-C, which is its parent's.

        A future keeps the pool: its thread, which knows it by a weak reference, asks it whether to drop what was
        cancelled, and fails on that in Python 3.11 if the pool is gone.
        """
        with interrupts_put_off(), interrupts_kept_from_children():
            future = super().submit(compute, function, *arguments, **options)
            future.add_done_callback(lambda _: self)
        return future


@contextlib.contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Let Ctrl-C, and other signals by which programs end, come when the block has ended.

    A handler that raises within `concurrent.futures` may leave locked what the threads of a pool wait for, for ever. It
    is no use to block signals in this thread alone: Python handles here those that any other thread has been sent.
    """
    noted: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # handlers run in no other
        before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: noted.append((number, frame)))
        yield
    finally:
        for number, handler in reversed(before.items()):  # Ctrl-C last: it may come at once
            signal.signal(number, handler)
        for number, frame in noted:
            before[number](number, frame)


@contextlib.contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Block Ctrl-C in this thread for a moment, and for ever in the processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def compute(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call a function in a worker, which may end meanwhile."""
    with STATE:
        COMPUTING.set()
    try:
        return function(*arguments, **options)
    finally:
        with STATE:
            COMPUTING.clear()


def prepare_worker(end: Connection) -> None:
    """Set up a worker: it leaves Ctrl-C to its parent, and watches it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_module("numpy")  # a BLAS that is loaded later would have no limit
    threadpool_limits(1)
    threading.Thread(target=end_with_parent, args=(end,), daemon=True).start()


def end_with_parent(end: Connection) -> None:
    """Wait until the worker is to end, and end it where no half of a result is left to a parent that waits for it."""
    parent = multiprocessing.parent_process()
    with contextlib.suppress(OSError, EOFError):
        end.poll(None)
    while True:
        with STATE:
            if COMPUTING.is_set() or parent is None or not parent.is_alive():
                os._exit(1)
        time.sleep(PATIENCE_SECONDS)
