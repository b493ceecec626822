"""A third set, of the systems that came last, whose author has not read the catalogue of mistakes either.

They can be measured by themselves:

    python tests/benchmarks/diagnosis.py --foreign tests/benchmarks/foreign/recent.py
"""

from tests.benchmarks.foreign import (
    pieces,
    recent_channel,
    recent_cross,
    recent_gates,
    recent_halo,
    recent_lambda,
    recent_relative,
    recent_self_attention,
    recent_spatial,
    recent_windows,
)
from tests.benchmarks.foreign.recent_kinds import KINDS

PARTS = (
    *(recent_channel, recent_gates, recent_cross, recent_lambda, recent_halo, recent_relative, recent_windows),
    *(recent_spatial, recent_self_attention),
)

FORMS = {
    "sk": recent_channel.sk,
    "split": recent_channel.split,
    "triplet": recent_spatial.triplet,
    "shuffle": recent_spatial.shuffle,
    "non-local": recent_self_attention.non_local,
    "double": recent_self_attention.double,
    "linear": recent_self_attention.linear,
    "external": recent_self_attention.external,
    "ema": recent_gates.ema,
    "attention-gate": recent_gates.attention_gate,
    "polarized": recent_cross.polarized,
    "criss-cross": recent_cross.criss_cross,
    "lambda": recent_lambda.lambda_layer,
    "halo": recent_halo.halo,
    "bottleneck": recent_relative.bottleneck,
    "window": recent_windows.window,
}
"""The systems without a mistake, as in the package's own list."""

MISTAKES = [one for one in pieces.MISTAKES if one[2].__module__ in {part.__name__ for part in PARTS}]
"""This set alone."""

__all__ = ["FORMS", "KINDS", "MISTAKES"]
