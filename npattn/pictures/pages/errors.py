"""One element of a result, as many correct kernels give it, against its budget."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from npattn.attention import SqueezeExcitation
from npattn.data import photo_features
from npattn.oracle import FORMATS, golden
from npattn.oracle.rounding import Rounding
from npattn.pictures.showing import LOWERED, RAISED

__all__ = ["draw_kernels"]

NUM_KERNELS = 4000
ELEMENT = 6, 0, 3
"""Channel, row and column of one that cancels: there the format's numbers lie close together beside the errors."""


def draw_kernels() -> Figure:
    """Draw the errors of 4,000 kernels at one element of a gradient, in units of the budget that a case gives it."""
    module = SqueezeExcitation(channels=8, reduction=2)
    case = golden(module, inputs=photo_features(8, 5, 6), dtype="bfloat16", certify=False)
    name = "x.grad"
    rounding = Rounding(FORMATS["bfloat16"], seed=1)

    def copies(array):
        return rounding.array(np.repeat(array, NUM_KERNELS, axis=0))

    params = {key: rounding.array(value) for key, value in case.params.items()}
    dx, _ = module(params, copies(case.inputs["x"])).backward(copies(case.upstream["output"]))
    budget = case.budget[name][0, *ELEMENT]
    errors = (np.asarray(dx, float)[:, *ELEMENT] - case.expected[name][0, *ELEMENT]) / budget

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.add_subplot()
    axis.hist(errors, bins=list(np.linspace(-5, 5, 41)), color=RAISED)
    limit = case.compare({name: case.expected[name]}).judgements[name].worst_limit
    axis.axvspan(-1, 1, color=LOWERED, alpha=0.15, linewidth=0)
    axis.text(0, 1.01, "± one budget", transform=axis.get_xaxis_transform(), ha="center", color=LOWERED, fontsize=10)
    for edge in (-limit, limit):
        axis.axvline(edge, color=LOWERED)
        place: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "rotation": 90, "ha": "right", "va": "center"}
        axis.text(edge, 0.5, "refused beyond", **place)
    axis.set(
        xlabel=f"error in units of the element's budget, {budget:.2g}",
        ylabel="kernels",
    )
    rms = np.sqrt(np.mean(errors**2))
    axis.text(
        0.9,
        0.95,
        f"{NUM_KERNELS:,} kernels, bfloat16\nroot mean square {rms:.2f}\nworst {np.abs(errors).max():.1f}",
        transform=axis.transAxes,
        ha="right",
        va="top",
        fontsize=11,
    )
    axis.spines[["top", "right"]].set_visible(False)
    return figure
