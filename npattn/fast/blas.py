"""Products of matrices on the calling thread alone, whatever number of threads BLAS has.

BLAS computes large products on threads of its own. With another number of them the last bits of a result are others,
and its threads keep their cores busy for a while after a product, to be quick at the next one. Its number of threads
belongs to the whole process: who sets it for a while takes it from all others, and what is set by several at the same
time, or by someone who is interrupted, may never be put back. So it is left alone here. OpenBLAS multiplies one large
pair of matrices on the calling thread if it is called a batch of one (cblas_sgemm_batch, from OpenBLAS 0.3.29 on:
NumPy 2.3's own), and small ones in any case.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import platform
import time
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["add_product", "is_small_product", "multiplies_on_one_thread", "multiply", "num_threads", "serial_product"]

MAX_SERIAL_VECTOR_PRODUCT = 9215
"""Multiplications of a matrix with a vector up to which OpenBLAS takes one thread."""
MAX_SERIAL_PRODUCT = 2**18 if platform.machine() in ("x86_64", "AMD64") else 120_000
"""Multiplications of a matrix with a matrix up to which it does, on every such processor that it knows."""
MAX_SMALL_BATCH = 10**6
"""Multiplications up to which a batch goes another way, which crashes in builds for several processors until 0.3.34."""
ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112  # in CBLAS

MULTIPLYING: dict[int, None] = {}
"""Threads that are in BLAS."""
FORKING: deque[None] = deque()
"""An entry for every thread that is about to fork."""


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply matrices as ``np.matmul(a, b, out=out)`` does, on this thread alone.

    The bits depend on the arguments alone where `multiplies_on_one_thread`; elsewhere this is `np.matmul`. NumPy does
    not look for infinities that large products meet: it warns of none.

    Parameters
    ----------
    a : numpy.ndarray, (..., I, K)
        float32 or float64, in the machine's byte order, as are the others; other numbers are left to `np.matmul`.
    b : numpy.ndarray, (..., K, J)
        With the leading axes of `a`.
    out : numpy.ndarray, (..., I, J)
        Shares no memory with the others.

    Returns
    -------
    numpy.ndarray
        `out`.

    Raises
    ------
    ValueError
        If their shapes do not fit.

    Examples
    --------
    >>> multiply(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.empty((1, 1)))
    array([[11.]])
    """
    check_shapes(a, b, out)
    return between_forks(choose_product, a, b, out)


def serial_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return what `multiply` writes."""
    return multiply(a, b, out=np.empty((*a.shape[:-1], b.shape[-1]), a.dtype))


def add_product(
    a: np.ndarray, b: np.ndarray, out: np.ndarray, memory: Callable[[tuple[int, ...]], np.ndarray] | None = None
) -> np.ndarray:
    """Add a product to what `out` holds: large ones within BLAS, which spares to write the product and to read it.

    Parameters
    ----------
    a, b, out
        As `multiply` has them.
    memory : callable, optional
        ``memory(shape)`` gives an array for a small product, with any content.

    Returns
    -------
    numpy.ndarray
        `out`.

    Examples
    --------
    >>> add_product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([[100.0]]))
    array([[111.]])
    """
    check_shapes(a, b, out)
    gemm = None if is_small_product(a, b) else find_gemm(a, b, out)
    if gemm is None:
        out += serial_product(a, b) if memory is None else multiply(a, b, out=memory(out.shape))
        return out
    between_forks(gemm, a, b, out, 1)
    return out


def is_small_product(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether `add_product` would write a product and read it, so that it is no quicker than to do both apart."""
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    return rows * inner * columns <= MAX_SMALL_BATCH or min(rows, inner, columns) == 1


def check_shapes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Refuse matrices that do not fit."""
    batch = out.shape[:-2]
    if a.shape != (*batch, out.shape[-2], a.shape[-1]) or b.shape != (*batch, a.shape[-1], out.shape[-1]):
        raise ValueError(
            f"a, b and out must be (..., I, K), (..., K, J) and (..., I, J), got {a.shape}, {b.shape} and {out.shape}"
        )


def between_forks(product: Callable[..., Any], *arguments: Any) -> Any:
    """Multiply while no child is forked: BLAS holds locks meanwhile, which nobody would release there."""
    thread = get_ident()
    while True:
        MULTIPLYING[thread] = None
        try:
            if not FORKING:
                return product(*arguments)
        finally:
            MULTIPLYING.pop(thread, None)
        time.sleep(0.0005)


def choose_product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply matrices in a way that takes one thread."""
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    multiplications, vector = rows * inner * columns, min(rows, columns) == 1
    bound = MAX_SERIAL_VECTOR_PRODUCT if vector else MAX_SERIAL_PRODUCT
    if multiplications <= bound and not np.may_share_memory(a, b):
        return np.matmul(a, b, out=out)
    gemm = find_gemm(a, b, out)
    if gemm is None:
        return np.matmul(a, b, out=out)
    if inner == 1:
        return np.multiply(a, b, out=out)
    if vector:
        return np.einsum("...ik,...kj->...ij", a, b, out=out)
    if multiplications <= MAX_SMALL_BATCH:
        return multiply_in_blocks(a, b, out)
    gemm(a, b, out)
    return out


def find_gemm(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> Gemm | None:
    """Find the product for these arrays, if there is one."""
    flags = a.flags, b.flags, out.flags
    fitting = a.dtype == b.dtype == out.dtype and flags[2].writeable and all(flag.aligned for flag in flags)
    return gemm_of(out.dtype) if fitting else None


def multiply_in_blocks(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply matrices of medium size: rows or columns at a time, two at least, and less than all.

    So the product of a matrix with its own transpose is one like any other too, which NumPy would have computed by a
    function that takes several threads.
    """
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    length = max(rows, columns)
    longest = max(1, MAX_SERIAL_PRODUCT // (inner * min(rows, columns)))
    count = max(2, -(-length // longest))
    if length < 2 * count:
        return np.einsum("...ik,...kj->...ij", a, b, out=out)
    bounds = [length * i // count for i in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        if rows == length:
            np.matmul(a[..., start:stop, :], b, out=out[..., start:stop, :])
        else:
            np.matmul(a, b[..., start:stop], out=out[..., start:stop])
    return out


@dataclass(frozen=True)
class Gemm:
    """OpenBLAS's product of a batch of matrices, called with one pair after the other, with no axis of length 1."""

    function: Any
    integer: Any
    real: Any

    def __call__(self, a: np.ndarray, b: np.ndarray, out: np.ndarray, times_out: int = 0) -> None:
        """Write a b + t out to `out`, where t, `times_out`, is 0 or 1."""
        c, layout, width = lay_out(out)
        if layout == TRANSPOSED:
            self(b.swapaxes(-1, -2), a.swapaxes(-1, -2), out.swapaxes(-1, -2), times_out)
            return
        a, layout_of_a, width_of_a = lay_out(a)
        b, layout_of_b, width_of_b = lay_out(b)
        sizes = a.shape[-2], b.shape[-1], a.shape[-1]
        before, after_a, after_b, after_c = arguments(
            self.integer, self.real, times_out, (layout_of_a, layout_of_b), sizes, width_of_a, width_of_b, width
        )
        pointer, byref = ctypes.c_void_p, ctypes.byref
        for at_a, at_b, at_c in zip(addresses_of(a), addresses_of(b), addresses_of(c), strict=True):
            self.function(
                *(*before, byref(pointer(at_a)), after_a, byref(pointer(at_b)), *after_b),
                *(byref(pointer(at_c)), *after_c),
            )
        if c is not out:
            np.copyto(out, c)


@functools.lru_cache(1024)
def arguments(
    integer: Any, real: Any, times_out: int, layouts: tuple[int, int], sizes: tuple[int, ...], *widths: int
) -> tuple[tuple[Any, ...], Any, tuple[Any, ...], tuple[Any, ...]]:
    """Make the arguments of a batch of one that stand before, between and behind the pointers: arrays of one number.

    Nobody writes to them. They are kept, as making them takes longer than the call.
    """
    laid = (ctypes.byref(ctypes.c_int(layout)) for layout in layouts)
    rows, columns, inner, width_a, width_b, width_c, one = (ctypes.byref(integer(n)) for n in (*sizes, *widths, 1))
    before = ROW_MAJOR, *laid, rows, columns, inner, ctypes.byref(real(1))
    return before, width_a, (width_b, ctypes.byref(real(times_out))), (width_c, integer(1), one)


@functools.cache
def gemm_of(dtype: np.dtype[Any]) -> Gemm | None:
    """Find the product for a kind of number, if there is one."""
    letter, real = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}.get(dtype.char, ("", None))
    if real is None or not dtype.isnative:
        return None
    for library, prefix, suffix in itertools.product(openblas(), ("scipy_", ""), ("64_", "_64", "")):
        function = getattr(library, f"{prefix}cblas_{letter}gemm_batch{suffix}", None)
        configuration = getattr(library, f"{prefix}openblas_get_config{suffix}", None)
        if function is not None and configuration is not None:
            configuration.restype, function.restype = ctypes.c_char_p, None
            return Gemm(function, ctypes.c_int64 if b"USE64BITINT" in configuration() else ctypes.c_int32, real)
    return None


def lay_out(x: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return matrices as BLAS takes them, copied if need be, with their layout and the numbers from row to row."""
    (rows, columns), (down, right), size = x.shape[-2:], x.strides[-2:], x.itemsize
    if right == size and down >= columns * size and not down % size:
        return x, AS_IT_IS, down // size
    if down == size and right >= rows * size and not right % size:
        return x, TRANSPOSED, right // size
    return lay_out(x.copy())


def addresses_of(x: np.ndarray) -> list[int]:
    """List where the matrices of a batch begin."""
    found = [x.ctypes.data]
    for length, stride in zip(x.shape[:-2], x.strides[:-2], strict=True):
        if length != 1:
            found = [begin + stride * i for begin in found for i in range(length)]
    return found


def num_threads(default: int) -> int:
    """Return BLAS's number of threads: that of the library that has the most, or `default` where none is found."""
    return max((library.num_threads for library in controllers()), default=default)


def multiplies_on_one_thread() -> bool:
    """Tell whether `multiply` takes one thread and gives the same bits whatever number of threads BLAS has."""
    return gemm_of(np.dtype(np.float32)) is not None


@functools.cache
def controllers() -> list[Any]:
    """Find the libraries of matrix products that are loaded: threadpoolctl knows how to ask them."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


def openblas() -> list[ctypes.CDLL]:
    """List those that are OpenBLAS, NumPy's own first."""
    found = [library for library in controllers() if library.internal_api == "openblas"]
    return [library.dynlib for library in sorted(found, key=lambda library: "numpy" not in library.filepath)]


def wait_for_products() -> None:
    """Begin to fork: keep all from BLAS, and wait for those who are in it."""
    FORKING.append(None)
    deadline = time.monotonic() + 10
    while set(MULTIPLYING) - {get_ident()} and time.monotonic() < deadline:
        time.sleep(0.0002)


def forget_products() -> None:
    """Begin a forked process, which has one thread."""
    FORKING.clear()
    MULTIPLYING.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait_for_products, after_in_parent=FORKING.pop, after_in_child=forget_products)
