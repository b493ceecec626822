"""Threads for the passes of a golden case, each of which multiplies its matrices alone."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

from threadpoolctl import LibController, ThreadpoolController

__all__ = ["Follower", "PassThreads", "leaving_no_limit", "most_threads", "pass_threads"]

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")

ARRAY_BYTES = 2**16
"""Of the arrays that a pass makes, on average, for each thread on which passes take place."""
LOCK = threading.Lock()
USERS: dict[object, int] = {}
"""One for each block of `pass_threads` that is entered, and the thread that it is entered in."""
BEFORE: list[tuple[LibController, int]] = []
"""Libraries of matrix products, and the threads that each took before the first of them."""


class PassThreads:
    """So many threads, on which passes run.

    Parameters
    ----------
    count : int
        The caller's among them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting: deque[Callable[[], object]] = deque()

    def add(self, work: Callable[[], object]) -> None:
        """Have some work done beside the next passes, or at the end."""
        self.waiting.append(work)

    def map(self, run: Callable[[Item], Result], items: Iterable[Item], at_once: float = math.inf) -> list[Result]:
        """Call ``run(item)`` for every item, several at once, but no more than asked; return what they return."""
        found: dict[int, Result] = {}

        def keep(place: int, item: Item) -> None:
            found[place] = run(item)

        added = [self.waiting.popleft() for _ in range(len(self.waiting))]
        tasks: list[Callable[[], object]] = [functools.partial(keep, *pair) for pair in enumerate(items)]
        self.share(deque(added + tasks), at_once)
        return [found[place] for place in range(len(tasks))]

    def share(self, left: deque[Callable[[], object]], at_once: float) -> None:
        """Do some work on all threads; once any of it fails, leave out what nobody has begun, and raise the failure."""
        failures: deque[BaseException] = deque()
        ended: SimpleQueue[None] = SimpleQueue()

        def help() -> None:
            try:
                do_all(left)
            except BaseException as error:
                left.clear()
                failures.append(error)
            finally:
                ended.put(None)

        helpers = 0
        try:
            for _ in range(int(min(self.count, at_once, len(left))) - 1):
                # Not threading.Thread, nor an executor's: an interrupt may leave locked what they lock.
                start_new_thread(copy_context().run, (help,))
                helpers += 1
            do_all(left)
        finally:
            left.clear()
            for _ in range(helpers):
                ended.get()
        if failures:
            raise failures[0]

    def end(self) -> None:
        """Do what is still waiting."""
        self.map(lambda _: None, ())


class Follower(Generic[Item]):
    """Work in a thread of its own that takes what its maker hands over, one item at a time; the first begins it.

    Parameters
    ----------
    work : callable
        Called with an iterator of the items, in a copy of the maker's context.

    Examples
    --------
    >>> found = []
    >>> with Follower(found.extend) as follower:
    ...     follower.hand_over(1)
    ...     follower.hand_over(2)
    >>> found
    [1, 2]
    """

    def __init__(self, work: Callable[[Iterator[Item]], object]) -> None:
        self.work = work
        self.items: SimpleQueue[Item | None] = SimpleQueue()
        self.room: SimpleQueue[None] = SimpleQueue()
        self.room.put(None)
        self.ended: SimpleQueue[None] = SimpleQueue()
        self.failures: deque[BaseException] = deque()
        self.kept: deque[Item] = deque()
        self.begun = self.over = False

    def hand_over(self, item: Item, *, later: bool = False) -> None:
        """Wait until the item before was taken, and hand over this one; or keep it for later, unless work has begun."""
        if later and not self.begun:
            self.kept.append(item)
            return
        if not self.begun:
            start_new_thread(copy_context().run, (self.run,))
            self.begun = True
            while self.kept:
                self.hand_over(self.kept.popleft())
        while not self.over:
            with contextlib.suppress(Empty):
                self.room.get(timeout=0.1)
                self.items.put(item)
                return

    def run(self) -> None:
        """Do the work; note what it raises."""
        try:
            self.work(self.take())
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.over = True
            self.ended.put(None)

    def take(self) -> Iterator[Item]:
        """Yield what is handed over until that ends."""
        while (item := self.items.get()) is not None:
            self.room.put(None)
            yield item

    def __enter__(self) -> Follower[Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Hand over no more, wait until the work has ended, and raise what it raised.

        If there is nothing but what was kept, it is done here.
        """
        self.items.put(None)
        if self.kept and kind is None:
            self.work(iter(self.kept))
        if self.begun:
            self.ended.get()
        if self.failures and kind is None:
            raise self.failures[0]


def most_threads(mean: float) -> int:
    """Tell on how many threads passes are worth it that make arrays of so many bytes, on average.

    While NumPy computes on small arrays, another thread gets little done before both want the interpreter again, and to
    wait for it takes longer than such a computation.

    Examples
    --------
    >>> most_threads(1_000), most_threads(300_000)
    (1, 4)
    """
    return max(1, int(mean // ARRAY_BYTES))


def do_all(left: deque[Callable[[], object]]) -> None:
    """Do what is left until nothing is, whoever does the rest."""
    while True:
        try:
            work = left.popleft()
        except IndexError:
            return
        work()


@contextlib.contextmanager
def pass_threads() -> Iterator[PassThreads]:
    """Take as many threads as there are cores that may compute: no more than BLAS may take.

    Meanwhile BLAS multiplies on one thread, in the whole process. Its own threads would wait for each other and for
    these; and where they share a product its last bits depend on how many there are. So a case is the same on any
    number of cores.

    Examples
    --------
    >>> with pass_threads() as threads:
    ...     threads.map(abs, [-1, 2])
    [1, 2]
    """
    count = max((library.num_threads for library in blas().lib_controllers), default=1)
    with one_thread():
        yield PassThreads(max(1, min(count_cores(), count)))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread until the last of all who ask for it at once has ended, or was interrupted."""
    user = object()
    try:
        with LOCK:
            if not USERS:
                BEFORE[:] = [(library, library.num_threads) for library in blas().lib_controllers]
            USERS[user] = get_ident()
            for library, _ in BEFORE:
                library.set_num_threads(1)
        yield
    finally:
        try:
            leave(user)
        finally:  # for an interrupt that met the first
            leave(user)


def leave(*users: object) -> None:
    """Count some users less, and restore what was limited if there is no other; may be called again."""
    with LOCK:
        for user in users:
            USERS.pop(user, None)
        if not USERS:
            for library, threads in BEFORE:
                library.set_num_threads(threads)
            BEFORE.clear()


def leaving_no_limit(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have a function end all blocks of `pass_threads` that it entered in this thread.

    An interrupt may keep a block's end from being seen. It would then end when the interrupt's traceback is dropped,
    which a console keeps until there is another.

    Examples
    --------
    >>> @leaving_no_limit
    ... def leave_entered():
    ...     kept.append(pass_threads())
    ...     kept[0].__enter__()
    >>> kept, before = [], len(USERS)
    >>> leave_entered()
    >>> len(USERS) == before
    True
    """

    @functools.wraps(function)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        before = set(USERS)
        try:
            return function(*arguments, **options)
        finally:
            try:
                leave_others(before)
            finally:  # for an interrupt that met the first
                leave_others(before)

    return call


def leave_others(users: set[object]) -> None:
    """Leave this thread's users but for some."""
    with LOCK:
        own = [user for user, thread in USERS.items() if thread == get_ident() and user not in users]
    leave(*own)


@functools.cache
def blas() -> ThreadpoolController:
    """Find the libraries of matrix products that are loaded."""
    return ThreadpoolController().select(user_api="blas")


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
