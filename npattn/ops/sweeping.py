"""Sweeps over large maps of the machine's own numbers: image by image, on all cores.

NumPy computes element by element on one core, and lets Python's other threads run meanwhile; so the images of a batch
are swept at the same time. Pieces are whole images, however many threads there are: every number comes from the same
operations in the same order, to the last bit.
"""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np

__all__ = ["average", "by_images", "elementwise", "for_images", "on_cores", "plain", "threads"]

ENOUGH = 2**17
"""Numbers in a map that is large: from there on threads bring more than they cost, a twentieth of a millisecond."""
LONG = 4096
"""Numbers that may be added up one after the other: their rounding errors add up too."""
LIMITS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
"""Environment variables by which users keep numerical libraries from taking all cores."""


def plain(*arrays):
    """Tell whether arrays are NumPy's own and hold float32 or float64, all of them the same.

    They alone take a quicker way, which may round otherwise, and only where they are large. Half precision needs wider
    sums than it can hold, longdouble and complex numbers certify and differentiate the plain way, rounding arrays draw
    errors in the order of its operations, and a GPU has ways of its own.
    """
    kind = arrays[0].dtype
    return kind.char in "fd" and all(type(a) is np.ndarray and a.dtype == kind for a in arrays)


def worth_parting(*arrays):
    """Tell whether to sweep image by image: plain arrays, of several images, the first of them large."""
    return len(arrays[0]) > 1 and arrays[0].size >= ENOUGH and plain(*arrays)


def elementwise(ufunc, *arrays, out=None):
    """Apply a ufunc: ``ufunc(*arrays)``.

    Parameters
    ----------
    ufunc : numpy.ufunc
    *arrays : array, (B, ...) or (1, ...)
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

    def compute(i):
        ufunc(*(a[i if len(a) > 1 else 0] for a in arrays), out=result[i])

    on_cores(compute, range(len(result)))
    return result


def by_images(function, *arrays):
    """Apply a function that keeps images apart: ``function(*arrays)``.

    Parameters
    ----------
    function : callable
        Takes arrays of one batch size and returns an array of it, a small one.
    *arrays : array, (B, ...)

    Returns
    -------
    array
    """
    if not worth_parting(*arrays):
        return function(*arrays)
    results = [None] * len(arrays[0])

    def compute(i):
        results[i] = function(*(a[i : i + 1] for a in arrays))

    on_cores(compute, range(len(results)))
    return np.concatenate(results)


def for_images(work, x):
    """Call ``work(i)`` for every image x[i]."""
    images = range(len(x))
    if worth_parting(x):
        on_cores(work, images)
    else:
        for i in images:
            work(i)


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
    if x.size < ENOUGH or length > LONG or not plain(x):
        return x.mean(axis=axis, keepdims=True)
    letters = "abcdefgh"[: x.ndim]
    sums = by_images(functools.partial(np.einsum, f"{letters}->{letters.replace(letters[last], '')}"), x)
    return np.expand_dims(sums / length, last).mean(axis=axis, keepdims=True)


def on_cores(work, pieces):
    """Call ``work(piece)`` for every piece, on as many threads as may compute.

    The caller works too, and waits for no one who has not begun: called by a thread of the pool, or by more threads
    than the pool has, it does everything by itself. An exception stops the work and is raised once all have stopped.

    Parameters
    ----------
    work : callable
    pieces : sequence
    """
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

    helpers = hire(take, min(threads(), len(left)) - 1)
    try:
        take()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]
        failures = [helper.exception() for helper in begun]
    for failure in filter(None, failures):
        raise failure


def hire(task, count):
    """Give a task to some threads of the pool, each with the caller's context: `np.errstate` is part of it."""
    try:
        return [pool().submit(copy_context().run, task) for _ in range(count)]
    except RuntimeError:  # the interpreter is shutting down
        return []


def threads():
    """Count the threads that may compute: one for every core that this process may use, or fewer if so limited."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, LIMIT)


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
