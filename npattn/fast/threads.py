"""Blocks of work on all cores."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context

__all__ = ["num_threads", "parallel_for"]

LIMITS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
"""Environment variables by which users keep numerical libraries from taking all cores."""
KEEPER = threading.Lock()
"""Held by who keeps BLAS to one thread."""


def parallel_for(work, blocks, *, products=False):
    """Call ``work(block)`` for every block, on as many threads as may compute.

    The caller works too, and waits for no one who has not begun: called by a thread of the pool, or by more threads
    than the pool has, it does everything by itself. An exception stops the work and is raised once all have stopped.

    Parameters
    ----------
    work : callable
    blocks : sequence
    products : bool, default False
        Whether the work multiplies matrices. BLAS has threads of its own, and is kept to one meanwhile; where it can't
        be, it has the cores, and the blocks come one after the other.
    """
    keep_freed_memory()
    count = num_threads() if blas().lib_controllers or not products else 1
    alone = products and any(library.num_threads > 1 for library in blas().lib_controllers)
    left = deque(blocks)

    def take():
        while left:
            try:
                block = left.popleft()
            except IndexError:  # another thread took the last
                return
            try:
                work(block)
            except BaseException:
                left.clear()
                raise

    with blas_on_one_thread() if alone else nullcontext():
        helpers = hire(take, min(count, len(blocks)) - 1)
        try:
            take()
        finally:
            begun = [helper for helper in helpers if not helper.cancel()]
            failures = [helper.exception() for helper in begun]
    for failure in filter(None, failures):
        raise failure


@functools.cache
def keep_freed_memory():
    """Have the C library keep the memory of freed maps, so that the next ones need not get it from the system.

    A page that is new to a process costs more time than what is computed in it. glibc returns large blocks when they
    are freed, up to a size that grows with the blocks it has seen freed, to 32 MB at most (mallopt(3),
    M_MMAP_THRESHOLD). This is such a block, of which no page is ever touched. Of freed memory up to twice as much is
    kept.
    """
    if os.name == "posix":
        library = ctypes.CDLL(None)
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
        library.free(library.malloc(2**25 - 2**16))


def hire(task, count):
    """Give a task to some threads of the pool, each with the caller's context: `np.errstate` is part of it."""
    if count < 1:
        return []
    others = other_cores()

    def move_and_work():
        if others:
            with suppress(OSError):  # a system that denies it has reasons of its own
                os.sched_setaffinity(0, others)
        task()

    helpers = []
    with suppress(RuntimeError):  # the interpreter is shutting down
        for _ in range(count):
            helpers.append(pool().submit(copy_context().run, move_and_work))
    return helpers


def num_threads():
    """Count the threads that may compute: one for every core that this process may use, or fewer if so limited.

    The limit of BLAS counts, as users set it, by threadpoolctl or in the environment; while products of one caller run,
    it is 1 for all others.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, LIMIT, max((library.num_threads for library in blas().lib_controllers), default=cores))


def other_cores():
    """List the cores for threads that help this one, on Linux: all that it may use but the one that it runs on.

    A thread that wakes is often put on the core of the one that woke it, and both then share that core for
    milliseconds, while another idles.
    """
    if current_core() is None or not hasattr(os, "sched_setaffinity"):
        return set()
    return os.sched_getaffinity(0) - {current_core()()}


@functools.cache
def current_core():
    """Find the system's function that tells on which core a thread runs, if it has one."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None


@functools.cache
def blas():
    """Find the libraries of matrix products that are loaded: threadpoolctl knows how to ask and to limit them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def blas_on_one_thread():
    """Keep BLAS to one thread, unless another caller does so already: only one may, who gives back what he found."""
    if not KEEPER.acquire(blocking=False):
        yield
        return
    try:
        with blas().limit(limits=1):
            yield
    finally:
        KEEPER.release()


def read_limit(environment):
    """Read the lowest limit that is set."""
    found = [environment.get(name, "").split(",")[0].strip() for name in LIMITS]
    return min((int(text) for text in found if text.isdecimal() and int(text)), default=sys.maxsize)


@functools.cache
def pool():
    """Make the pool of threads, when it is first needed."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="npattn")


LIMIT = read_limit(os.environ)
if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=pool.cache_clear)
