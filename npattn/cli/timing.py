"""How long a pass takes, and how that is written."""

from __future__ import annotations

import time

import numpy as np

from npattn.module import Module
from npattn.typing import Array, Params

__all__ = ["format_duration", "time_passes"]

NUM_TIMED_PASSES = 5
"""Passes of which the median time is taken."""


def time_passes(module: Module, params: Params, inputs: dict[str, Array]) -> tuple[float, float]:
    """Time forward and backward: the median of a few passes, in seconds."""
    forwards, backwards = [], []
    for _ in range(NUM_TIMED_PASSES):
        start = time.perf_counter()
        run = module(params, *inputs.values())
        middle = time.perf_counter()
        run.backward(run.output)
        forwards.append(middle - start)
        backwards.append(time.perf_counter() - middle)
    return float(np.median(forwards)), float(np.median(backwards))


def format_duration(seconds: float) -> str:
    """Write a time with three digits, and with no exponent.

    Examples
    --------
    >>> format_duration(0.00123), format_duration(12.3)
    ('1.23 ms', '12.3 s')
    """
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"
