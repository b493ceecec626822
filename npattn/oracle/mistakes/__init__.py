"""Planted mistakes for the judge to find: mistakes that kernels are known to make, each put into one step of a system.

Most stand in a primitive, in forward (the value, or what it is computed from) or in backward (a gradient); the rest
concern the results of a whole pass. A faulty step takes the place of the primitive in one of its calls, so a system's
own code runs around it on any kind of number.
"""

from npattn.oracle.mistakes import (
    affinity,
    attention,
    batch_norm,
    convolution,
    dropping,
    elementwise,
    gating,
    joining,
    l2_normalize,
    masking,
    passes,
    pooling,
    products,
    resizing,
    selecting,
    softmax,
    windowing,
)
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import faulty, sites

__all__ = ["FAULTS", "HELD_OUT", "Mistake", "faulty", "sites"]

MAPS = convolution, pooling
POINTWISE = elementwise, gating, batch_norm
PRODUCTS = products, attention, masking, affinity
MOVING = joining, resizing, dropping, selecting, windowing
IN_ORDER = (*MAPS, *POINTWISE, l2_normalize, softmax, *PRODUCTS, *MOVING, passes)
HELD_OUT_IN_ORDER = (*MAPS, softmax, *POINTWISE, *MOVING, l2_normalize, *PRODUCTS, passes)

FAULTS = [mistake for file in IN_ORDER for mistake in file.TUNED_ON]
FAULTS += [mistake for file in HELD_OUT_IN_ORDER for mistake in file.HELD_OUT]
HELD_OUT = frozenset(mistake for file in HELD_OUT_IN_ORDER for mistake in file.HELD_OUT)
"""Mistakes that no limit was tuned on: mistakes of tiles, accumulators and buffers, of geometry, and of one image taken
for another."""
