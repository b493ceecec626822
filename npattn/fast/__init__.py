"""Faster ways to compute primitives of large float32 and float64 arrays; each registers itself with its primitive.

Nothing in `npattn.ops` depends on them: without this folder, or in ``with npattn.definitions():``, all numbers are the
same but for rounding. Every number comes from the same operations in the same order however many threads there are.
"""

from npattn.fast import (
    adding,
    affinity,
    attention,
    convolution,
    elementwise,
    energy,
    gathering,
    gating,
    joining,
    lambdas,
    masking,
    normalisation,
    partitioning,
    pooling,
    products,
    relative,
    resizing,
    selecting,
    toeplitz,
    weighting,
    windowing,
)

__all__ = [
    "adding",
    "affinity",
    "attention",
    "convolution",
    "elementwise",
    "energy",
    "gathering",
    "gating",
    "joining",
    "lambdas",
    "masking",
    "normalisation",
    "partitioning",
    "pooling",
    "products",
    "relative",
    "resizing",
    "selecting",
    "toeplitz",
    "weighting",
    "windowing",
]
