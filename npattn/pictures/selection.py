"""Branches among which each channel chooses."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn import layers
from npattn.attention.selective_kernel import CONV_AND_NORM
from npattn.pictures.scene import Scene
from npattn.pictures.showing import CLASS_COLOURS, bright, show
from npattn.typing import Array

__all__ = ["draw_selection"]


def draw_selection(figure: SubFigure, scene: Scene) -> None:
    """Draw each channel's weights of the branches, and the channels that choose most decidedly, branch by branch."""
    weights, y = scene.run.attention["branch_weights"][0], scene.run.output[0]
    count, names = len(weights), [f"{k}×{k}" for k in scene.inner.kernel_sizes]
    u = read(scene)
    passed = np.min([(branch > 0).mean(axis=(1, 2)) for branch in u], axis=0)  # by all branches' rectifiers
    chosen = [np.where(passed >= np.quantile(passed, 0.7), share, -1).argmax() for share in weights]
    bars, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 0.75 + 0.5 * count)).flat

    axis, order, below = bars.subplots(), np.argsort(-weights[0]), np.zeros(weights.shape[1])
    for share, name, colour in zip(weights, names, CLASS_COLOURS, strict=False):
        axis.bar(range(len(order)), share[order], bottom=below, color=colour, label=name)
        below = below + share[order]
    axis.set(title="how much of each branch a channel takes", xlabel="channel", ylabel="weight a")
    axis.set_xticks(range(len(order)), order, fontsize=7)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=count)
    axis.spines[["top", "right"]].set_visible(False)

    for row, channel in enumerate(chosen):
        axes = [maps.add_subplot(count, count + 1, row * (count + 1) + column + 1) for column in range(count + 1)]
        for axis, branch, name, share in zip(axes, u, names, weights, strict=False):
            show(
                axis,
                branch[channel],
                f"{channel}: {name}, times {share[channel]:.2f}",
                fontsize=8,
                **bright(branch[channel]),
            )
        show(axes[-1], y[channel], f"{channel}: their sum", fontsize=8, **bright(y[channel]))


def read(scene: Scene) -> list[Array]:
    """Return what each branch gives of the image."""
    module, parts = scene.inner, [scene.x] * len(scene.inner.kernels)
    if module.split_input:
        parts = np.split(scene.x, len(parts), axis=1)
    found = []
    for m, (part, (_, apart)) in enumerate(zip(parts, module.kernels, strict=True)):
        (u, _), _ = layers.conv_norm_act(
            part, scene.params, f"paths.{m}", training=False, parts=CONV_AND_NORM, dilation=apart
        )
        found.append(u[0])
    return found
