"""A near tie: where a hard choice changes, and what a kernel in few digits makes of it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from npattn.attention import SoftHardAttention
from npattn.oracle import FORMATS
from npattn.oracle.rounding import Rounding
from npattn.pictures.showing import LOWERED, RAISED
from npattn.typing import Array

__all__ = ["draw_jump"]

FEATURES = np.array([[3.0, 1.0, 1.0, -2.0], [0.0, 5.0, -5.0, 0.0]])
"""Two channels at four positions; the first channel is the score, and the second and third position tie."""
MODULE = SoftHardAttention(channels=2, k=2)
PARAMS = {"score.weight": np.array([1.0, 0.0]).reshape(1, 2, 1, 1), "score.bias": np.zeros(1)}
NUM_KERNELS = 4000


def raised(lifts: Array) -> Array:
    """Make a batch of maps, in each of which the third position's score is raised by another number."""
    maps = np.repeat(FEATURES[None, :, None], len(lifts), axis=0)
    maps[:, 0, 0, 2] += lifts
    return maps


def draw_jump() -> Figure:
    """Draw the output over the score that nears the tie, and what 4,000 kernels give a hair below it."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    lifts = np.linspace(-1, 1, 401)
    lifts = lifts[lifts != 0]
    y = MODULE(PARAMS, raised(lifts)).output[:, 1]
    for side in (lifts < 0, lifts > 0):
        left.plot(lifts[side], y[side], color=RAISED, linewidth=2)
    left.axvline(0, color="0.6", linestyle=":")
    left.set_title("second channel of the output", fontsize=11)
    left.set(xlabel="score of position 2 less that of position 1", ylabel="$y_2$", xticks=[-1, -0.5, 0, 0.5, 1])
    left.text(-0.95, 0.05, "positions 0 and 1\nare chosen", fontsize=9)
    left.text(0.4, 0.05, "positions 0 and 2\nare chosen", fontsize=9)

    rounding = Rounding(FORMATS["bfloat16"], seed=0)
    params = {name: rounding.array(value) for name, value in PARAMS.items()}
    maps = raised(np.full(NUM_KERNELS, -0.001))
    maps[:, 0, 0, 1:3] += 0.003  # between 1 and the next number of bfloat16, 1.0078
    found = np.asarray(MODULE(params, rounding.array(maps)).output)[:, 1]
    right.hist(found, bins=list(np.linspace(-0.8, 0.8, 81)), color=LOWERED)
    share = np.mean(found < 0)
    right.set_title(
        f"{NUM_KERNELS:,} kernels in bfloat16,\n0.001 below the tie: {share:.0%} choose position 2",
        fontsize=11,
    )
    right.set(xlabel="$y_2$", ylabel="kernels")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    return figure
