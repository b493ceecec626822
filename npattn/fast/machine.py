"""The machine: how many cores it has, which powers are quick on it, and two ways to get more from it.

Helpers keep off the caller's core, and memory is not given back. Either can be switched off, to measure what it brings,
in a process that has not computed on several threads yet.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import sys
from typing import Any

import numpy as np

__all__ = ["NUM_CORES", "has_quick_powers_of_two", "keep_freed_memory", "other_cores", "quick_powers"]

NUM_CORES = os.cpu_count() or 1
"""Cores of the machine, however many of them this process may use."""

AVOID_CALLERS_CORE = True
"""Whether helpers keep off the core that their caller runs on (`other_cores`)."""
KEEP_FREED_MEMORY = True
"""Whether memory of freed arrays is kept for the next ones (`keep_freed_memory`)."""
MAX_FREED_MEMORY = 2**29
"""Bytes of freed memory that are kept for the next pass, or trace: twenty maps of (8, 256, 56, 56) in float32."""
TRIM_THRESHOLD = -1
"""What mallopt(3) calls M_TRIM_THRESHOLD."""


def other_cores() -> set[int]:
    """List the cores for threads that help this one, on Linux: all that it may use but the one that it runs on.

    A thread that wakes is often put on the core of the one that woke it, and both then share that core for
    milliseconds, while another idles.
    """
    if not AVOID_CALLERS_CORE or current_core() is None or not hasattr(os, "sched_setaffinity"):
        return set()
    return os.sched_getaffinity(0) - {current_core()()}


@functools.cache
def current_core() -> Any:
    """Find the system's function that tells on which core a thread runs, if it has one."""
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed arrays, so that the next ones need not get it from the system.

    A page that is new to a process costs more time than what is computed in it, and threads that meet new pages wait
    for each other. glibc returns large blocks when they are freed, up to a size that grows with the blocks it has seen
    freed, to 32 MB at most (mallopt(3), M_MMAP_THRESHOLD). This is such a block, of which no page is ever touched. By
    itself it would keep twice as much, which is less than a pass over large maps frees, or a trace with the copies of
    all its maps. The limit holds for the process; one that users set, as Dask does, is left.
    """
    if KEEP_FREED_MEMORY and os.name == "posix":
        library = ctypes.CDLL(None)
        library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
        library.free(library.malloc(2**25 - 2**16))
        set_option = getattr(library, "mallopt", None)
        if set_option is not None and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
            set_option(TRIM_THRESHOLD, MAX_FREED_MEMORY)


@functools.cache
def has_quick_powers_of_two() -> bool:
    """Tell whether NumPy computes powers of 2 sooner than powers of e.

    With AVX-512 on Linux it takes half the time, by Intel's SVML; elsewhere twice, as it computes one after the other.
    """
    found: Any = np.show_config(mode="dicts")
    names = found.get("SIMD Extensions", {}).get("found", [])
    return sys.platform == "linux" and not {"AVX512_SKX", "X86_V4"}.isdisjoint(names)


def quick_powers() -> tuple[np.ufunc, np.ufunc, float]:
    """Choose the base whose powers are the quicker ones: powers, logarithms, and what turns logits of base e into its.

    With p, l and u, exp(z) is p(u z) and log(a) is l(a) / u.
    """
    return (np.exp2, np.log2, math.log2(math.e)) if has_quick_powers_of_two() else (np.exp, np.log, 1.0)
