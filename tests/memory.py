"""How much memory arrays take while something is computed."""

import tracemalloc

import numpy as np
from threadpoolctl import threadpool_limits

from npattn.oracle import generic_values


def peak_memory(work):
    """Bytes that Python and NumPy hold at most while a function runs, beyond what they held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_of_both(primitive, *arguments, **options):
    """The same of a primitive, forward and backward, on one core: each other holds more."""

    def work():
        value, backward = primitive(*arguments, **options)
        backward(value)

    with threadpool_limits(1):
        return peak_memory(work)


def peak_of_pass(module, side):
    """The same of a system, forward and backward, on a square map of float32."""
    params, inputs = generic_values(module, batch=1, height=side, width=side, dtype=np.float32)

    def work():
        run = module(params, *inputs.values())
        run.backward(run.output)

    with threadpool_limits(1):
        return peak_memory(work)
