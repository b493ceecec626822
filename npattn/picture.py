"""Pictures of what a system attends to on the photograph, and of what it changes there (extra ``plot``)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import scipy
from matplotlib.colors import TwoSlopeNorm, to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch, Rectangle
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.special import log_softmax

from npattn.data import photo_features, photo_filters, photograph
from npattn.module import Module, Pass

__all__ = ["FORMATS", "draw"]

FORMATS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
SIZE = 100, 150
"""Positions of the feature map that is drawn: every second pixel of the photograph."""
KEPT, CUT = "#1f6f8b", "#c8553d"
"""Colours of what is raised and what is lowered."""
CLASSES = "#30343f", "#e4a11b", "#2a9d8f", "#9b5de5", "#c8553d"
"""Colours of the background and of the classes, which take turns."""
EYE, OTHERS = (75, 115), ((78, 213), (152, 170), (130, 60), (25, 250))
"""Pixels of the photograph from which attention is drawn: the cat's eye; its other eye, nose, cheek and ear."""


def draw(module: Module, seed: int = 0, at: tuple[int, int] | None = None) -> Figure:
    """Draw a system at work on the photograph's features: what it changes, and each of its attention maps.

    Parameters
    ----------
    module : Module
    seed : int, default 0
        Of the parameters, which are random: the picture shows how the system works, not what training makes of it. A
        classifier's bias is moved so that its classes balance.
    at : tuple of int, optional
        Row and column of a pixel of the photograph: where it looks is drawn first, if the system has an
        `attention_map`. By default the cat's eye.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if hasattr(module, "window"):  # the example's windows are for small maps
        module = replace(module, window=24, stride=8)
    x = photo_features(module.channels, *SIZE)
    params = module.init(seed, generic=True)
    run = module(params, x)
    for name in params:
        if name.endswith("classifier.bias"):  # else a random classifier gives every window one class
            params[name] -= run.attention["windows"].mean(axis=(0, 2, 3))
            run = module(params, x)
    panels = [(draw_change, 2.6)] if getattr(run.output, "shape", None) == x.shape else []
    panels += [panel for name, panel in PANELS.items() if name in run.attention]
    if hasattr(module, "attention_map"):
        panels.append((functools.partial(draw_looks, pixels=(at or EYE, *OTHERS), seed=seed), 2.6))
    functions, heights = zip(*panels, strict=True)
    figure = Figure(figsize=(12, 0.6 + sum(heights)), dpi=110, layout="constrained")
    source = f"{module.paper.title} ({module.paper.citation})"
    figure.suptitle(f"{type(module).__name__}, random parameters of seed {seed}\n{source}", fontsize=12)
    rows = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    for row, function in zip(rows, functions, strict=True):
        function(row, module, x, run)
    return figure


def draw_change(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw the photograph, the strength of its features before and after, and where the balance has moved."""
    before, after = (np.sqrt(np.mean(features[0] ** 2, axis=0)) for features in (x, run.output))
    change = np.log2(after / before)
    change -= np.median(change)
    reach = max(np.quantile(np.abs(change), 0.995), 1e-9)
    axes = figure.subplots(1, 4)
    axes[0].imshow(photograph())
    axes[0].set_title("photograph")
    for axis, strength, title in ((axes[1], before, "features in"), (axes[2], after, "features out")):
        axis.imshow(strength, cmap="magma", vmin=0, vmax=np.quantile(strength, 0.995))
        axis.set_title(f"{title}: root mean square {np.sqrt(np.mean(strength**2)):.2f}")
    image = axes[3].imshow(change, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach))
    axes[3].set_title("gain against the median")
    bar = figure.colorbar(image, ax=axes[3], shrink=0.62, label="octaves")
    bar.ax.tick_params(labelsize=8)
    for axis in axes:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


def draw_channels(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw every channel's gate above or below the median gate, and the maps at both ends of that order."""
    gates, averages = run.attention["channel"][0], x[0].mean(axis=(1, 2))
    order = np.argsort(-gates)
    filters = photo_filters(len(gates))
    grid = figure.add_gridspec(1, 2, width_ratios=(1, 1.15))
    left = grid[0].subgridspec(2, 1, height_ratios=(3, 1))
    places = range(len(gates))

    axis = figure.add_subplot(left[0])
    middle = np.median(gates)
    colours = [KEPT if gate >= middle else CUT for gate in gates[order]]
    axis.bar(places, gates[order] - middle, bottom=middle, color=colours)
    axis.axhline(middle, color="0.5", linewidth=0.8)
    axis.set_title("one gate a for each channel, against the median gate", fontsize=10)
    axis.set_ylabel("gate a")
    axis.tick_params(labelbottom=False)
    below = figure.add_subplot(left[1], sharex=axis)
    below.bar(places, averages[order], color="0.6")
    below.set(xlabel="channel, in the order of its gate", ylabel="average p", xlim=(-0.8, len(gates) - 0.2))
    below.set_xticks(places, order, fontsize=7, rotation=90)
    for part in (axis, below):
        part.spines[["top", "right"]].set_visible(False)

    shown = max(1, min(3, len(gates) // 2))
    thumbnails = grid[1].subgridspec(2, shown)
    for row, (channels, colour) in enumerate(((order[:shown], KEPT), (order[-shown:], CUT))):
        for column, channel in enumerate(channels):
            axis = figure.add_subplot(thumbnails[row, column])
            axis.imshow(x[0, channel], cmap="gray", vmin=0, vmax=np.quantile(x[0, channel], 0.99))
            axis.set_title(f"{channel}: times {gates[channel]:.3f}\n{filters[channel]}", fontsize=8, color=colour)
            axis.set_axis_off()


def draw_positions(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw the two maps that the gate is made of, the gate, and the photograph as it lets it through."""
    gate = run.attention["spatial"][0, 0]
    shown = np.kron(gate, np.ones([n // m for n, m in zip(photograph().shape, gate.shape, strict=False)]))
    axes = figure.subplots(1, 4)
    axes[0].imshow(x[0].max(axis=0), cmap="magma")
    axes[0].set_title("maximum over the channels")
    axes[1].imshow(x[0].mean(axis=0), cmap="magma")
    axes[1].set_title("mean over the channels")
    image = axes[2].imshow(gate, cmap="viridis")
    axes[2].set_title("gate a")
    figure.colorbar(image, ax=axes[2], shrink=0.62).ax.tick_params(labelsize=8)
    weight = (shown - shown.min()) / max(np.ptp(shown), 1e-9)
    axes[3].imshow((photograph() * weight[:, :, None]).astype(np.uint8))
    axes[3].set_title("photograph, lit by the gate")
    for axis in axes:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


def draw_directions(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw each channel's gates along both axes, and the product of the two for the channels where it varies most."""
    down, across = run.attention["height"][0, :, :, 0], run.attention["width"][0, :, 0, :]
    product = down[:, :, None] * across[:, None, :]
    order = np.argsort(-product.std(axis=(1, 2)))
    low, high = min(down.min(), across.min()), max(down.max(), across.max())
    gates, maps = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    axes = gates.subplots(2, 1)
    for axis, gate, name, along in ((axes[0], down, "a_h", "row"), (axes[1], across, "a_w", "column")):
        image = axis.imshow(gate[order], cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axis.set_title(f"gates {name}: one for each channel and {along}", fontsize=10)
        axis.set(xlabel=along, ylabel="channel")
        axis.set_yticks([])
    gates.colorbar(image, ax=axes, shrink=0.7).ax.tick_params(labelsize=8)
    filters = photo_filters(len(product))
    shown = min(3, len(order))
    for column, channel in enumerate(order[:shown]):
        before, gate = (maps.add_subplot(2, shown, row * shown + column + 1) for row in (0, 1))
        before.imshow(x[0, channel], cmap="gray", vmin=0, vmax=np.quantile(x[0, channel], 0.99))
        before.set_title(f"{channel}: {filters[channel]}", fontsize=8)
        gate.imshow(product[channel], cmap="viridis")
        spread = f"{product[channel].min():.2f} to {product[channel].max():.2f}"
        gate.set_title(f"{channel}: times {spread}", fontsize=8)
        before.set_axis_off()
        gate.set_axis_off()


def draw_affinity(figure: SubFigure, module: Module, x: np.ndarray, run: Pass) -> None:
    """Draw how alike the channels are, how much each takes in of each other, and the pairs at both ends of that."""
    affinity = run.attention["affinity"][0]
    channels = len(affinity)
    compared = run.attention.get("branch", x)[0]
    rows = compared.reshape(channels, -1)
    energy = rows @ rows.T
    norm = np.sqrt(np.diag(energy) + np.finfo(energy.dtype).tiny)  # a rectified channel may be 0 everywhere
    cosine = energy / np.outer(norm, norm)
    order = by_likeness(cosine)
    grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.1))
    for place, values, title, low in (
        (0, cosine, "how alike: cosine of two channels", cosine.min()),
        (1, affinity, "affinity: what channel j takes in of channel i", 0),
    ):
        axis = figure.add_subplot(grid[place])
        image = axis.imshow(values[np.ix_(order, order)], cmap="magma", vmin=low, vmax=1)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel="channel i", ylabel="channel j")
        axis.set_xticks(range(channels), order, fontsize=6, rotation=90)
        axis.set_yticks(range(channels), order, fontsize=6)
        figure.colorbar(image, ax=axis, shrink=0.6).ax.tick_params(labelsize=8)

    # Many affinities are 0 in this precision; their logarithms still have an order.
    logarithms = log_softmax(energy if module.variant == "paper" else -energy, axis=1)
    pairs = sorted(np.argwhere(~np.eye(channels, dtype=bool)), key=lambda pair: -logarithms[*pair])
    names = [""] * channels if "branch" in run.attention else [f"\n{bank}" for bank in photo_filters(channels)]
    thumbnails = grid[2].subgridspec(2, 2)
    ends = ((pairs[0], "most", KEPT), (pairs[-1], "least", CUT)) if pairs else ()
    for row, ((j, i), extent, colour) in enumerate(ends):
        for column, channel, role in (
            (0, j, f"{j} takes in {extent} of {i}"),
            (1, i, f"{i}: affinity {affinity[j, i]:.2g}"),
        ):
            axis = figure.add_subplot(thumbnails[row, column])
            axis.imshow(compared[channel], cmap="gray", vmin=0, vmax=np.quantile(compared[channel], 0.99))
            axis.set_title(f"{role}{names[channel]}", fontsize=8, color=colour)
            axis.set_axis_off()


def by_likeness(cosine: np.ndarray) -> np.ndarray:
    """Order channels so that those which are alike stand together."""
    if len(cosine) == 1:
        return np.array([0])
    distance = np.clip(1 - cosine[np.triu_indices(len(cosine), 1)], 0, None)
    return leaves_list(linkage(distance, "average", optimal_ordering=True))


def draw_looks(
    figure: SubFigure, module: Module, _x: np.ndarray, _run: Pass, *, pixels: tuple[tuple[int, int], ...], seed: int
) -> None:
    """Draw where some pixels look, over the photograph.

    Untrained queries and keys have nothing to do with each other. Here one projection makes both, and features are
    smooth and of unit length: a product is large where two positions look alike.
    """
    channels, sharpness = 54, 8
    module = replace(module, channels=channels, reduction=1)
    x = scipy.ndimage.gaussian_filter(photo_features(channels, *SIZE), (0, 0, 1.5, 1.5))
    x = (x - x.mean(axis=(2, 3), keepdims=True)) / x.std(axis=(2, 3), keepdims=True)
    x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
    params = module.init(seed)
    weight = params["query_conv.weight"]
    params["key_conv.weight"] = weight * (sharpness / (channels * weight.var()))
    params["query_conv.bias"] = np.zeros(channels)
    photo = photograph()
    step = photo.shape[0] // SIZE[0]
    rows = module.attention_map(params, x, [row // step * SIZE[1] + column // step for row, column in pixels])[0]
    figure.suptitle(
        "where five pixels look, with queries and keys made by one random projection of smooth features "
        "of unit length: like looks at like",
        fontsize=10,
    )
    for axis, (row, column), weights in zip(figure.subplots(1, len(pixels)), pixels, rows, strict=True):
        shown = np.kron(weights.reshape(SIZE), np.ones((step, step)))
        shown = np.minimum(shown / np.quantile(shown, 0.995), 1)
        axis.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
        axis.imshow(shown, cmap="hot", vmin=0, vmax=1, alpha=0.9 * shown)
        axis.plot(column, row, "+", color="cyan", markersize=11, markeredgewidth=2)
        axis.set_title(f"from row {row}, column {column}\nhalf of it on {share(weights):.1%} of the map", fontsize=9)
        axis.set_axis_off()


def share(weights: np.ndarray) -> float:
    """Count the largest weights that make up half of all, as a share of their number."""
    return (1 + np.searchsorted(np.cumsum(np.sort(weights)[::-1]), weights.sum() / 2)) / len(weights)


def draw_windows(figure: SubFigure, module: Module, x: np.ndarray, run: Pass) -> None:
    """Draw the photograph, the map that the windows see, the foreground they find, the best of them, and the mask."""
    seen = run.attention.get("reweighted", x)[0]
    foreground = run.output[0, 1:].max(axis=0) - run.output[0, 0]
    mask = module.mask(run.output)[0]
    photo = photograph()
    step = photo.shape[0] // mask.shape[0]
    strength = np.sqrt(np.mean(seen**2, axis=0))
    colours = np.array([to_rgb(colour) for colour in CLASSES])[mask % len(CLASSES)]
    axes = figure.subplots(1, 5)
    axes[0].imshow(photo)
    axes[0].set_title("photograph")
    axes[1].imshow(strength, cmap="magma", vmin=0, vmax=np.quantile(strength, 0.995))
    axes[1].set_title("re-weighted map" if "reweighted" in run.attention else "features in")
    reach = max(np.abs(foreground).max(), 1e-9)
    image = axes[2].imshow(foreground, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach))
    axes[2].set_title("foreground against background")
    figure.colorbar(image, ax=axes[2], shrink=0.5, label="logits").ax.tick_params(labelsize=8)
    axes[3].imshow(photo)
    axes[3].set_title("windows of interest")
    for (top, left, bottom, right), label in best_apart(module.regions(run, top=mask.size), shown=4):
        corner, extent = (left * step, top * step), ((right - left) * step, (bottom - top) * step)
        colour = CLASSES[label % len(CLASSES)]
        axes[3].add_patch(Rectangle(corner, *extent, fill=False, linewidth=2.5, edgecolor=colour))
    axes[4].imshow(0.5 * photo / 255 + 0.5 * np.kron(colours, np.ones((step, step, 1))))
    axes[4].set_title("mask")
    handles = [
        Patch(color=CLASSES[k % len(CLASSES)], label=f"{f'class {k}' if k else 'background'}, {np.mean(mask == k):.0%}")
        for k in range(run.output.shape[1])
    ]
    axes[4].legend(handles=handles, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    for axis in axes:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


def best_apart(regions: Any, shown: int) -> list[tuple[np.ndarray, int]]:
    """Pick the best windows that do not overlap."""
    picked = []
    for box, label in zip(regions.boxes[0], regions.labels[0], strict=True):
        if len(picked) < shown and all(
            (box[:2] >= other[2:]).any() or (box[2:] <= other[:2]).any() for other, _ in picked
        ):
            picked.append((box, int(label)))
    return picked


PANELS = {
    "channel": (draw_channels, 4.2),
    "spatial": (draw_positions, 2.6),
    "height": (draw_directions, 4.2),
    "affinity": (draw_affinity, 4.2),
    "windows": (draw_windows, 2.6),
}
"""How each attention map is drawn, and how many inches high."""
