"""A loop on all cores: `parallel_for`, and the threads that it keeps.

What it promises, and why it can:

- Same bits. Which blocks there are is the caller's to say, and `npattn.fast.blocks` says it by shapes alone. No number
  depends on who computes a block, or on how many do.
- Interrupts. One can meet the main thread between any two steps. So there is nothing to undo: the caller takes no
  lock, sets no limit, and changes its context in a copy. What must be counted is counted by helpers, whom no signal
  meets, and by single operations on deques, which no thread sees half done.
- Forks. A child has none of its parent's threads, and makes its own when it needs them.
- Limits. BLAS's number of threads is read and never set (`npattn.fast.blas`), so nobody's limit is lost.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from npattn.fast import blas, machine

__all__ = ["Memory", "ReusedMemory", "num_threads", "parallel_for", "reusing_memory"]

Memory: TypeAlias = Callable[[tuple[int, ...]], np.ndarray]
"""Gives an array of a shape to write a result into."""

Block = TypeVar("Block")

LIMITING_VARIABLES = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
"""Environment variables by which users keep numerical libraries from taking all cores."""
BUFFER_SIZE = 2**11
"""Numbers that NumPy lays out at a time in work on a block, where it has to.

Where rows are shorter, it lays out an operand that is broadcast to them, one number of a gate say, and then takes three
times as long for a product that finds the rest in the cache. By itself it does so up to 8192, and rows of maps are
shorter: 3136 numbers of 56×56. Rows that are much shorter, those along one axis of a map, are quicker laid out.
"""
IN_PARALLEL: ContextVar[bool] = ContextVar("npattn.in_parallel", default=False)
"""Whether this is work of a loop that has helpers: a loop within it has none."""


def parallel_for(work: Callable[[Block], Any], blocks: Iterable[Block], *, products: bool = False) -> None:
    """Call ``work(block)`` for every block, on as many threads as may compute.

    The caller works too, and waits for no thread that has not begun, so loops within loops and loops of many callers
    come to an end. Work runs in copies of the caller's context (`numpy.errstate`, `npattn.definitions`).

    Parameters
    ----------
    work : callable
        Any order of calls must give the same result.
    blocks : iterable
    products : bool, default False
        Whether the work multiplies matrices, by `npattn.fast.blas.multiply`. Where it can't be kept to one thread, the
        blocks come one after the other, and BLAS has the cores.

    Raises
    ------
    BaseException
        The first exception that work raised. Blocks that were not begun are left out, and nobody works any more.

    Warns
    -----
    RuntimeWarning
        What NumPy warns of, once, however many blocks met it.

    Examples
    --------
    >>> x, y = np.arange(6.0), np.empty(6)
    >>> parallel_for(lambda block: np.sqrt(x[block], out=y[block]), [slice(0, 3), slice(3, 6)])
    >>> bool((y == np.sqrt(x)).all())
    True
    """
    loop = Loop(work, blocks)
    if IN_PARALLEL.get():
        loop.run()
        return
    alone = len(loop.left) < 2 or (products and not blas.multiplies_on_one_thread())
    helpers = 0 if alone else min(num_threads(), len(loop.left)) - 1
    machine.keep_freed_memory()
    context = copy_context()
    heard = context.run(log_warnings)
    context.run(np.setbufsize, BUFFER_SIZE)
    try:
        if helpers > 0:
            context.run(IN_PARALLEL.set, True)
            loop.invite(helpers, context)
        context.run(loop.run)
    finally:
        try:
            loop.finish()
        finally:  # for an interrupt that met the first on its way to wait
            loop.finish()
    if loop.failures:
        raise loop.failures[0]
    for message in sorted(set(heard)):
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def reusing_memory(work: Callable[..., Any], like: np.ndarray, count: int) -> Callable[[Any], None]:
    """Give work on a block memory that blocks before it have used, which is still in the core's cache.

    Parameters
    ----------
    work : callable
        ``work(block, *memories)``. A memory gives an array: ``memory(shape)``, with any content, which holds until the
        next is taken from it, or the block is done.
    like : numpy.ndarray
        Has the dtype of the arrays.
    count : int
        Memories for each block.

    Returns
    -------
    callable
        What `parallel_for` is given for `work`; there are as many memories as blocks are computed at the same time.

    Examples
    --------
    >>> squares = []
    >>> work = reusing_memory(lambda n, memory: squares.append(np.square(n, out=memory(()))[()]), np.empty(1), 1)
    >>> parallel_for(work, [3, 4])
    >>> sorted(squares)
    [np.float64(9.0), np.float64(16.0)]
    """
    unused: deque[list[ReusedMemory]] = deque()

    def work_in_memory(block):
        try:
            memories = unused.pop()
        except IndexError:
            memories = [ReusedMemory(np.empty_like(like, shape=0)) for _ in range(count)]
        work(block, *memories)
        unused.append(memories)

    return work_in_memory


class ReusedMemory:
    """Memory for one array after the other."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array with any content; the one before must not be used any more."""
        size = math.prod(shape)
        if self.numbers.size < size:
            self.numbers = np.empty_like(self.numbers, shape=size)
        return self.numbers[:size].reshape(shape)


class Loop:
    """A loop under way.

    Attributes
    ----------
    left : deque
        Blocks that nobody has begun.
    inside : deque
        An entry for every helper that may be at a block. Helpers enter before they take one: if nothing is left and
        nobody inside, nobody will ever work on this loop again.
    failures : deque
        What helpers' work raised.
    """

    __slots__ = "failures", "inside", "left", "pool", "someone_left", "work"

    def __init__(self, work: Callable[[Any], Any], blocks: Iterable[Any]) -> None:
        self.work: Callable[[Any], Any] | None = work
        self.left, self.pool = deque(blocks), Pool.current
        self.inside: deque[None] = deque()
        self.failures: deque[BaseException] = deque()
        self.someone_left: SimpleQueue[None] = SimpleQueue()

    def run(self) -> None:
        """Work on blocks until none is left."""
        work = self.work
        while work is not None:  # it is forgotten when nothing is left
            try:
                block = self.left.popleft()
            except IndexError:
                return
            work(block)

    def invite(self, count: int, context: Context) -> None:
        """Ask helpers to come; whether they do depends on what else they have to do."""
        cores = machine.other_cores()
        for _ in range(self.pool.grow(count)):
            self.pool.tasks.put(functools.partial(context.copy().run, self.help, cores))

    def help(self, cores: set[int]) -> None:
        """Work on blocks as a helper."""
        self.inside.append(None)
        try:
            if self.left and cores:
                with suppress(OSError):  # a system that denies it has reasons of its own
                    os.sched_setaffinity(0, cores)
            self.run()
        except BaseException as error:
            self.left.clear()
            self.failures.append(error)
        finally:
            self.inside.pop()
            self.someone_left.put(None)

    def finish(self) -> None:
        """Leave out what nobody has begun, and wait until nobody works; may be called again.

        Interrupts are put off meanwhile. One that gets past both calls, by meeting each between two steps, leaves at
        once: then helpers end the block they are at, in arrays that live as long as the loop does.
        """
        self.left.clear()
        interrupt = None
        while self.inside:
            if self.pool is not Pool.current:
                raise RuntimeError("work forked this process: helpers that had begun are in its parent alone")
            try:
                self.someone_left.get(timeout=0.1)  # a wake-up call, no more: an interrupt may lose it
            except Empty:
                pass
            except BaseException as error:
                interrupt = error
        self.work = None  # an invitation that is still in the queue keeps no arrays
        if interrupt is not None:
            raise interrupt


class Pool:
    """Threads that wait for tasks, started when they are first needed; a process has one pool, `current`."""

    current: ClassVar[Pool]

    def __init__(self) -> None:
        self.tasks: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.threads: deque[int] = deque()

    def grow(self, count: int) -> int:
        """Start threads until there are `count`, or as many as the system allows; return how many of these there are.

        A thread that an interrupt keeps from being counted helps like the others.
        """
        with suppress(RuntimeError):  # the interpreter is shutting down, or the system has no more threads
            while len(self.threads) < count:
                # Not threading.Thread, whose start() takes locks, which an interrupt may leave locked.
                self.threads.append(start_new_thread(serve, (self.tasks,)))
        return min(count, len(self.threads))

    @classmethod
    def renew(cls) -> None:
        """Forget threads that a forked process does not have."""
        cls.current = cls()


Pool.renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Pool.renew)


def serve(tasks: SimpleQueue[Callable[[], Any]]) -> None:
    """Carry out tasks for ever, holding on to none."""
    while True:
        tasks.get()()


def log_warnings() -> deque[str]:
    """Have NumPy write down in this context what it would warn of, and return what it writes to."""
    heard: deque[str] = deque()
    reactions = np.geterr()
    if not {"call", "log"} & set(reactions.values()):  # which are the user's own
        logged: dict[str, Any] = {error: "log" for error, reaction in reactions.items() if reaction == "warn"}
        np.seterr(**logged)
        np.seterrcall(SimpleNamespace(write=lambda line: heard.append(line.removeprefix("Warning: ").rstrip())))
    return heard


def num_threads() -> int:
    """Count the threads that may compute: one for every core that this process may use, or fewer if so limited.

    Limits are those that users set to BLAS, by threadpoolctl or in the environment.

    Examples
    --------
    >>> from threadpoolctl import threadpool_limits
    >>> with threadpool_limits(1):
    ...     num_threads()
    1
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, LIMIT, blas.num_threads(default=cores)))


def read_limit(environment: Mapping[str, str]) -> int:
    """Read the lowest limit that is set."""
    found = [environment.get(name, "").split(",")[0].strip() for name in LIMITING_VARIABLES]
    return min((int(text) for text in found if text.isdecimal() and int(text)), default=sys.maxsize)


LIMIT = read_limit(os.environ)
