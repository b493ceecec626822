"""Products of matrices on several threads, for the tests and the programs that they run."""

import numpy as np
from threadpoolctl import threadpool_info

from npattn.fast import blas
from npattn.fast.blocks import blocks_of_product
from npattn.fast.threads import parallel_for


def product(a, b):
    """Multiply matrices in blocks on several threads."""
    out = np.empty((*a.shape[:-1], b.shape[-1]), a.dtype)

    def multiply(block):
        at, i, j = block
        blas.multiply(a[at][..., i, :], b[at][..., j], out[at][..., i, j])

    parallel_for(multiply, blocks_of_product(a.shape[:-2], *a.shape[-2:], b.shape[-1]), products=True)
    return out


def matrices(*shape, dtype=np.float32, seed=0):
    return np.random.RandomState(seed).standard_normal(shape).astype(dtype)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
