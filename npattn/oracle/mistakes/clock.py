"""The time that a search takes of the processor, which is the same on a busy machine."""

from __future__ import annotations

import math
import time
from _thread import get_ident
from collections.abc import Callable, Iterable

from npattn.oracle.threads import PassThreads

__all__ = ["Clock"]

MOST_WALL_RATIO = 5.0
"""How many times as long a search may take where others use the processor."""


class Clock:
    """Seconds since it was made, as they would be if nobody else used the processor.

    Those count that the thread it was made in has computed, and of what other threads have computed for it meanwhile
    the longest. On a machine that is so busy that it takes many times as long, a share of what has passed counts.

    Examples
    --------
    >>> clock = Clock()
    >>> time.sleep(0.05)
    >>> clock.now() < 0.05
    True
    """

    def __init__(self) -> None:
        self.began, self.own = time.perf_counter(), time.thread_time()
        self.beside = 0.0

    def now(self) -> float:
        """Read it, in the thread that it was made in."""
        passed = (time.perf_counter() - self.began) / MOST_WALL_RATIO
        return max(time.thread_time() - self.own + self.beside, passed)

    def each_until(self, end: float, threads: PassThreads, works: Iterable[Callable[[], object]]) -> None:
        """Do some works on all threads, none of which is begun on a thread that has come to an end.

        Parameters
        ----------
        end : float
            When no more are to be begun.
        threads : PassThreads
        works : iterable of callable
        """
        began, used = self.now(), dict[int, float]()

        def do(work: Callable[[], object]) -> None:
            thread = get_ident()
            before = used.get(thread, 0.0)
            if began + before <= end:
                start = time.thread_time()
                work()
                used[thread] = before + time.thread_time() - start

        threads.map(do, works)
        self.beside += max(max(used.values(), default=0.0) - used.get(get_ident(), 0.0), 0.0)

    def needed(self, done: int, of: int) -> int:
        """Tell how many seconds it takes to do all, where so many of them took what has passed, and half as much more.

        Examples
        --------
        >>> clock = Clock()
        >>> clock.beside = 4.0
        >>> clock.needed(100, 300)
        19
        """
        return math.ceil(1.5 * self.now() * of / max(done, 1))
