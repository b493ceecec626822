"""Planted faults for the judge to find: mistakes that kernels are known to make, each put into one step of a system.

Most stand in a primitive, in forward (the value, or what it is computed from) or in backward (a gradient); the rest
concern the results of a whole pass. A faulty step takes the place of the primitive in one of its calls, so a system's
own code runs around it on any kind of number.
"""

from tests.benchmarks.faults import (
    affinity,
    attention,
    batch_norm,
    convolution,
    dropping,
    elementwise,
    gating,
    joining,
    l2_normalize,
    passes,
    pooling,
    products,
    resizing,
    selecting,
    softmax,
    windowing,
)
from tests.benchmarks.faults.fault import Fault
from tests.benchmarks.faults.planting import faulty, sites

__all__ = ["FAULTS", "HELD_OUT", "Fault", "faulty", "sites"]

TUNED_ON = (
    *convolution.TUNED_ON,
    *pooling.TUNED_ON,
    *elementwise.TUNED_ON,
    *gating.TUNED_ON,
    *batch_norm.TUNED_ON,
    *l2_normalize.TUNED_ON,
    *softmax.TUNED_ON,
    *products.TUNED_ON,
    *attention.TUNED_ON,
    *affinity.TUNED_ON,
    *joining.TUNED_ON,
    *resizing.TUNED_ON,
    *dropping.TUNED_ON,
    *selecting.TUNED_ON,
    *windowing.TUNED_ON,
    *passes.TUNED_ON,
)
"""Faults that were at hand when limits were tuned."""
HELD_OUT = (
    *convolution.HELD_OUT,
    *pooling.HELD_OUT,
    *softmax.HELD_OUT,
    *elementwise.HELD_OUT,
    *gating.HELD_OUT,
    *batch_norm.HELD_OUT,
    *joining.HELD_OUT,
    *resizing.HELD_OUT,
    *dropping.HELD_OUT,
    *selecting.HELD_OUT,
    *windowing.HELD_OUT,
    *l2_normalize.HELD_OUT,
    *products.HELD_OUT,
    *attention.HELD_OUT,
    *affinity.HELD_OUT,
    *passes.HELD_OUT,
)
FAULTS = [*TUNED_ON, *HELD_OUT]
HELD_OUT = frozenset(HELD_OUT)
"""Faults that no limit was tuned on: mistakes of tiles, accumulators and buffers, of geometry, and of one image taken
for another."""
