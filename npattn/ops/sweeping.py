"""Sweeps over large maps of the machine's own numbers: piece by piece, on all cores.

NumPy computes element by element on one core, and lets Python's other threads run meanwhile; so pieces of a map are
swept at the same time. The pieces are the same however many threads there are: every number comes from the same
operations in the same order, to the last bit. Only products of matrices are cut for as many threads as there are.
"""

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

import numpy as np

__all__ = [
    "average",
    "elementwise",
    "for_pieces",
    "on_cores",
    "pieces",
    "plain",
    "spread_piece",
    "threads",
    "worth_parting",
]

ENOUGH = 2**17
"""Numbers in a map that is large: from there on threads bring more than they cost, a twentieth of a millisecond."""
PIECE = 2**20
"""Numbers in a piece at most: memory is quickest read in long stretches."""
PIECES = 8
"""Pieces of a map, about, that is large but not so large."""
LONG = 4096
"""Numbers that may be added up one after the other: their rounding errors add up too."""
LIMITS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
"""Environment variables by which users keep numerical libraries from taking all cores."""
KEEPER = threading.Lock()
"""Held by who keeps BLAS to one thread."""


def plain(*arrays):
    """Tell whether arrays are NumPy's own and hold float32 or float64, all of them the same.

    They alone take a quicker way, which may round otherwise, and only where they are large. Half precision needs wider
    sums than it can hold, longdouble and complex numbers certify and differentiate the plain way, rounding arrays draw
    errors in the order of its operations, and a GPU has ways of its own.
    """
    kind = arrays[0].dtype
    return kind.char in "fd" and all(type(a) is np.ndarray and a.dtype == kind for a in arrays)


def worth_parting(*arrays):
    """Tell whether to sweep piece by piece: plain arrays, the first of them large."""
    return arrays[0].size >= ENOUGH and plain(*arrays)


def pieces(x, axis, size=PIECE):
    """Cut a map into pieces: some images, or a stretch of one image along an axis.

    Parameters
    ----------
    x : array, (B, ...)
        Not empty.
    axis : int
        0 leaves images whole.
    size : int, optional
        Numbers in a piece, about.

    Returns
    -------
    list of tuple of slice
        What to take along the axes up to `axis`.
    """
    image, length = x.size // len(x), x.shape[axis] if axis else 1
    size = min(size, x.size // PIECES)
    several, some = max(1, size // image), min(length, max(1, length * size // image))
    between = (slice(None),) * (axis - 1)
    return [
        (slice(i, i + several), *between, slice(j, j + some))[: axis + 1]
        for i in range(0, len(x), several)
        for j in range(0, length, some)
    ]


def spread_piece(a, piece):
    """Say what to take of an array that is spread over a map, for a piece of the map: all along axes of length 1."""
    return tuple(slice(None) if n == 1 else part for part, n in zip(piece, a.shape, strict=False))


def elementwise(ufunc, *arrays, out=None):
    """Apply a ufunc: ``ufunc(*arrays)``.

    Parameters
    ----------
    ufunc : numpy.ufunc
    *arrays : array
        The first has the result's shape, to which the others are broadcast; none has fewer axes.
    out : array, optional
        What to write the result to.

    Returns
    -------
    array
    """
    if not worth_parting(*arrays):
        return ufunc(*arrays) if out is None else ufunc(*arrays, out=out)
    result = np.empty_like(arrays[0]) if out is None else out

    def compute(piece):
        ufunc(*(a[spread_piece(a, piece)] for a in arrays), out=result[piece])

    # From the end: what the sweep before came to last is still in the cache.
    on_cores(compute, pieces(result, axis=min(1, result.ndim - 1))[::-1])
    return result


def average(x, axis):
    """Average along an axis, or along several, which stay with length 1.

    Parameters
    ----------
    x : array, (B, ...)
    axis : int or tuple of int
        From 1 on.

    Returns
    -------
    array

    Notes
    -----
    `np.einsum` adds up along one axis up to four times as quickly as `np.mean`, which is slow where rows are short. The
    rest is small. A long sum is left to `np.mean`, which adds up in pairs and so loses fewer digits.

    Examples
    --------
    >>> average(np.array([[[1.0, 2.0], [3.0, 6.0]]]), axis=(1, 2))
    array([[[3.]]])
    """
    last = axis if isinstance(axis, int) else max(axis)
    length = x.shape[last]
    if length > LONG or not worth_parting(x):
        return x.mean(axis=axis, keepdims=True)
    if axis == (x.ndim - 2, last) and x.shape[-2] * length <= LONG and x.flags.c_contiguous:
        one_row = x.reshape(*x.shape[:-2], x.shape[-2] * length)  # which is quicker than many short ones
        return average(one_row, last - 1)[..., None]
    letters = "abcdefgh"[: x.ndim]
    subscripts = f"{letters}->{letters.replace(letters[last], '')}"
    sums = np.empty_like(x, shape=x.shape[:last] + x.shape[last + 1 :])
    kept = next((i for i in range(1, x.ndim) if i != last), 0)

    def add_up(piece):
        target = [part for i, part in enumerate(piece) if i != last]
        np.einsum(subscripts, x[piece], out=sums[tuple(target)])

    on_cores(add_up, pieces(x, kept))
    return np.expand_dims(sums / length, last).mean(axis=axis, keepdims=True)


def on_cores(work, pieces, products=False):
    """Call ``work(piece)`` for every piece, on as many threads as may compute.

    The caller works too, and waits for no one who has not begun: called by a thread of the pool, or by more threads
    than the pool has, it does everything by itself. An exception stops the work and is raised once all have stopped.

    Parameters
    ----------
    work : callable
    pieces : sequence
    products : bool, default False
        Whether the work multiplies matrices. BLAS has threads of its own, and is kept to one meanwhile; where it can't
        be, it has the cores, and the pieces come one after the other.
    """
    keep_freed_memory()
    count = threads() if blas().lib_controllers or not products else 1
    alone = products and any(library.num_threads > 1 for library in blas().lib_controllers)
    left = deque(pieces)

    def take():
        while left:
            try:
                piece = left.popleft()
            except IndexError:  # another thread took the last
                return
            try:
                work(piece)
            except BaseException:
                left.clear()
                raise

    with blas_on_one_thread() if alone else nullcontext():
        helpers = hire(take, min(count, len(pieces)) - 1)
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


def for_pieces(work, pieces, parted, products=False):
    """Call ``work(piece)`` for every piece, if `parted` on all cores, or else one after the other."""
    if parted:
        on_cores(work, pieces, products)
    else:
        for piece in pieces:
            work(piece)


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


def threads():
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
