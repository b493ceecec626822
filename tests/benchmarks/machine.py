"""What the machine can do at most: the two rates that bound every system; and how to have it do less."""

import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["Machine", "is_limited_to_avx2", "limit_to_avx2"]

PRODUCT = 256, 4096, 512
"""Rows, inner length and columns of the matrix product: a tile of position attention's weights times the values."""
SIZE = 2**25
"""Numbers in each array that is passed over: 128 MB in float32, far beyond any cache."""
BLOCK_SIZE = 2**15
"""Numbers that a pass takes at once, so that starting a step costs little and none is held up by another."""
REST = 0.1
"""Seconds after which BLAS's threads, which wait for more work at first, have gone to sleep."""


class Machine:
    """Two kinds of work, timed between the systems: products without memory to wait for, and memory without arithmetic.

    Parameters
    ----------
    dtype : str
    """

    def __init__(self, dtype):
        rows, inner, columns = PRODUCT
        self.weights, self.values = np.ones((rows, inner), dtype), np.ones((inner, columns), dtype)
        self.out = np.empty((rows, columns), dtype)
        self.a, self.b, self.c = (np.ones(SIZE, dtype) for _ in range(3))
        self.flops = 2 * rows * inner * columns
        self.bytes = 3 * self.a.nbytes
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self.pool = ThreadPoolExecutor(self.threads)

    def rates(self, repeats):
        """Measure both rates, one after the other, by medians: flops and bytes in a second."""
        found = []
        for work, amount in ((self.multiply, self.flops), (self.pass_over_memory, self.bytes)):
            times = []
            for _ in range(repeats + 1):
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
            found.append(amount / statistics.median(times[1:]))
            time.sleep(REST)
        return tuple(found)

    def multiply(self):
        """Multiply two matrices, on as many cores as BLAS takes."""
        np.matmul(self.weights, self.values, out=self.out)

    def pass_over_memory(self):
        """Read two arrays and write a third, each core its own range."""
        ends = [SIZE * i // self.threads for i in range(self.threads + 1)]
        list(self.pool.map(self._add, ends[:-1], ends[1:]))

    def _add(self, start, end):
        for i in range(start, end, BLOCK_SIZE):
            some = slice(i, min(i + BLOCK_SIZE, end))
            np.add(self.a[some], self.b[some], out=self.c[some])


def limit_to_avx2():
    """Start this program anew, unless that was done, with libraries that use no wider vectors than AVX2's.

    They choose their instructions as they are loaded.
    """
    if not is_limited_to_avx2():
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | avx2_settings())


def is_limited_to_avx2():
    """Tell whether this process was started so."""
    return avx2_settings().items() <= os.environ.items()


def avx2_settings():
    """List by what OpenBLAS, NumPy and PyTorch, with its oneDNN and MKL, choose their instructions."""
    kinds = np.show_config(mode="dicts")["SIMD Extensions"]
    known = sorted({*kinds.get("found", ()), *kinds.get("not found", ())})
    return {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in known if name.startswith(("AVX512", "X86_V4"))),
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
