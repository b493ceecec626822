"""The catalogue: all mistakes by name, those that the judge is measured on first."""

from __future__ import annotations

from npattn.oracle.mistakes import (
    affinity,
    attention,
    batch_norm,
    choosing,
    convolution,
    convolution_1d,
    covering,
    criss_cross,
    cross_entropy,
    dropping,
    elementwise,
    energy,
    exchanging,
    gathering,
    gating,
    heads,
    joining,
    l2_normalize,
    lambdas,
    linear_attention,
    masked_logits,
    masked_products,
    masking,
    own_masks,
    partial_sums,
    partitioning,
    passes,
    polarized,
    pooling,
    precision,
    products,
    regrouping,
    relative,
    repeating,
    resizing,
    saved_statistics,
    selecting,
    several_steps,
    shifting,
    softmax,
    standardizing,
    sum_normalize,
    tiled_convolution,
    two_gates,
    weights_again,
    windowing,
)
from npattn.oracle.mistakes.carrying import carried, in_forward_alone
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.saving import by_saved_sums, leaves_sums

__all__ = ["ADDED", "FAULTS", "HELD_OUT", "MISTAKES"]

MAPS = convolution, convolution_1d, pooling
POINTWISE = elementwise, gating, batch_norm
PRODUCTS = products, attention, masking, masked_logits, masked_products, repeating, affinity
MOVING = joining, resizing, dropping, selecting, windowing
IN_ORDER = (*MAPS, *POINTWISE, l2_normalize, softmax, *PRODUCTS, *MOVING, exchanging, passes, several_steps, precision)
HELD_OUT_IN_ORDER = (*MAPS, softmax, *POINTWISE, *MOVING, l2_normalize, *PRODUCTS, passes)

FAULTS: list[Mistake] = [mistake for file in IN_ORDER for mistake in getattr(file, "TUNED_ON", ())]
FAULTS += [mistake for file in HELD_OUT_IN_ORDER for mistake in file.HELD_OUT]
"""Mistakes that the judge is measured on."""
HELD_OUT = frozenset(mistake for file in HELD_OUT_IN_ORDER for mistake in file.HELD_OUT)
"""Mistakes that no limit was tuned on: mistakes of tiles, accumulators and buffers, of geometry, and of one image taken
for another."""

ADDED_IN_ORDER = (
    *(*IN_ORDER, heads, standardizing, shifting, energy, choosing),
    *(linear_attention, sum_normalize, gathering, partitioning, lambdas, criss_cross, polarized, relative),
    *(two_gates, covering, tiled_convolution, regrouping, cross_entropy, own_masks, saved_statistics, partial_sums),
    weights_again,
)
ADDED: list[Mistake] = [mistake for file in ADDED_IN_ORDER for mistake in getattr(file, "ADDED", ())]
"""Mistakes that are looked for beside them."""


def in_both_forms(mistakes: list[Mistake]) -> list[Mistake]:
    """Add what is missing of those in a primitive's forward pass: it alone wrong, and what autograd makes of it."""
    found, done = list(mistakes), {(str(one), one.way) for one in mistakes}
    for one in mistakes:
        name = str(one)
        if one.primitive and one.way in ("forward", "both") and (name, "carried") not in done:
            found += [other for other in (carried(one), in_forward_alone(one)) if (name, other.way) not in done]
            done |= {(name, "carried"), (name, "forward")}
    return found


def read_again(mistakes: list[Mistake]) -> list[Mistake]:
    """List mistakes of attention whose logsumexp backward reads, each once."""
    forward = {str(one): one for one in mistakes if leaves_sums(one)}
    return [by_saved_sums(one) for one in forward.values()]


IN_BOTH_FORMS = in_both_forms([*FAULTS, *ADDED])
MISTAKES = [*IN_BOTH_FORMS, *read_again(IN_BOTH_FORMS)]
"""All, each mistake in forward both alone and carried through backward; those of attention read by backward too."""
