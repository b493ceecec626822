"""Branches among which each channel chooses."""

from __future__ import annotations

import functools

import numpy as np
from matplotlib.figure import SubFigure

from npattn import layers
from npattn.attention.selective_kernel import BRANCH_PARTS
from npattn.pictures.scene import Scene
from npattn.pictures.showing import CLASS_COLOURS, bright, show
from npattn.typing import Array

__all__ = ["draw_selection"]


def draw_selection(figure: SubFigure, scene: Scene) -> None:
    """Draw each channel's weights of the branches, and the channels that choose most decidedly, branch by branch."""
    weights, y = scene.run.attention["branch_weights"][0], scene.run.output[0]
    names, u = zip(*read(scene), strict=True)
    count = len(names)
    colours, cmap = (CLASS_COLOURS[2:], "viridis") if hasattr(scene.inner, "radix") else (CLASS_COLOURS, "magma")
    passed = np.min([(branch > 0).mean(axis=(1, 2)) for branch in u], axis=0)  # by all branches' rectifiers
    chosen = [np.where(passed >= np.quantile(passed, 0.7), share, -1).argmax() for share in weights]
    bars, maps = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 0.75 + 0.5 * count)).flat

    axis, order, below = bars.subplots(), np.argsort(-weights[0]), np.zeros(weights.shape[1])
    for share, name, colour in zip(weights, names, colours, strict=False):
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
                **bright(branch[channel]) | {"cmap": cmap},
            )
        show(axes[-1], y[channel], f"{channel}: their sum", fontsize=8, **bright(y[channel]) | {"cmap": cmap})


def read(scene: Scene) -> list[tuple[str, Array]]:
    """Name the branches, and return what each gives of the image."""
    module, params = scene.inner, scene.params
    if hasattr(module, "radix"):  # one convolution, whose result is cut
        padding = module.dilation * (module.kernel_size // 2)
        u, _ = layers.conv(scene.x, params, "conv", padding=padding, groups=module.groups * module.radix)
        (n, _), _ = layers.batch_norm(u, params, "bn0", training=False)
        splits = np.split(np.maximum(n[0], 0), module.radix)
        return [(f"split {r}", v) for r, v in enumerate(splits, start=1)]
    count = len(module.kernels)
    parts = np.split(scene.x, count, axis=1) if module.split_input else [scene.x] * count
    layer = functools.partial(layers.conv_norm_act, params=params, training=False, parts=BRANCH_PARTS)
    results = [layer(parts[m], name=f"paths.{m}", dilation=apart) for m, (_, apart) in enumerate(module.kernels)]
    return [(f"{k}×{k}", u[0]) for k, ((u, _), _) in zip(module.kernel_sizes, results, strict=True)]
