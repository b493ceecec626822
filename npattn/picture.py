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
from scipy.special import log_softmax, softmax

from npattn import layers
from npattn.data import photo_features, photo_filters, photograph
from npattn.module import Module, Pass
from npattn.ops import resize_bilinear
from npattn.parameters import strip_prefix

__all__ = ["FORMATS", "draw"]

FORMATS = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
SIZE = 100, 150
"""Positions of the feature map that is drawn: every second pixel of the photograph."""
CHOSEN, HALF, BLOCK = 100, 0.01, 10
"""Positions chosen, share of the map on which half of the weight lies, side of the blocks where draws are counted."""
KEPT, CUT = "#1f6f8b", "#c8553d"
"""Colours of what is raised and what is lowered."""
CLASSES = "#30343f", "#e4a11b", "#2a9d8f", "#9b5de5", "#c8553d"
"""Colours of the background and of the classes, which take turns."""
LARGE = {"window": 24, "stride": 8, "rates": (4, 12, 24), "k": CHOSEN, "embedding": 48}
"""Hyperparameters in place of the examples', which are for small maps."""
EYE, OTHERS = (75, 115), ((78, 213), (152, 170), (130, 60), (25, 250))
"""Pixels of the photograph from which attention is drawn: the cat's eye; its other eye, nose, cheek and ear."""
COARSE = {"one eye": EYE, "stripes": (20, 145), "background": (25, 285)}
"""What a coarse class map is of, and the pixel of the photograph round which it is."""


def draw(module: Module, seed: int = 0, at: tuple[int, int] | None = None) -> Figure:
    """Draw a system at work on the photograph's features: what it changes, and each of its attention maps.

    Parameters
    ----------
    module : Module
    seed : int, default 0
        Of the parameters, which are random: the picture shows how the system works, not what training makes of it. A
        classifier's bias is moved so that its classes balance, and running statistics are those of the photograph.
    at : tuple of int, optional
        Row and column of a pixel of the photograph: where it looks is drawn first, if the system has an
        `attention_map`. By default the cat's eye.

    Returns
    -------
    matplotlib.figure.Figure
    """
    module = replace(module, **{name: value for name, value in LARGE.items() if hasattr(module, name)})
    if hasattr(module, "branch_channels"):  # so many that each branch has as many as other systems' maps
        module = replace(module, in_channels=128, size=None, training=False)
    inputs = photo_inputs(module, SIZE, seed)
    x = next(iter(inputs.values()))
    params = module.init(seed, generic=True)
    if "score.weight" in params:  # else hardly any position weighs more than another, or one outweighs all
        params["score.weight"] *= sharpness(score_map(params, x))
    if hasattr(module, "branch_channels"):
        params |= {f"{name}.1.weight": params["conv8.1.weight"] for name in ("conv6", "conv7")}
        params = with_photo_statistics(module, params, x)
    run = module(params, *inputs.values())
    for name in params:
        if name.endswith("classifier.bias"):  # else a random classifier gives every window one class
            params[name] -= run.attention["windows"].mean(axis=(0, 2, 3))
            run = module(params, x)
    panels = [(draw_change, 2.6)] if "x" in inputs and getattr(run.output, "shape", None) == x.shape else []
    panels += [panel for name, panel in PANELS.items() if name in run.attention]
    if hasattr(module, "branch_channels"):
        panels.append((functools.partial(draw_branch_looks, params=params, pixels=(at or EYE, *OTHERS)), 2.6))
    part = module  # the one that attends, within any residual connections
    while hasattr(part, "inner"):
        part = part.inner
    if hasattr(part, "attention_map"):
        height = 0.5 + 2.1 * getattr(part, "heads", 1)
        panels.append((functools.partial(draw_looks, pixels=(at or EYE, *OTHERS), seed=seed), height))
    if hasattr(module, "k"):
        panels.append((functools.partial(draw_chosen, params=params), 4.8))
    functions, heights = zip(*panels, strict=True)
    figure = Figure(figsize=(12, 0.6 + sum(heights)), dpi=110, layout="constrained")
    source = f"{module.paper.title} ({module.paper.citation})"
    name = type(module).__name__ + (f" round {type(part).__name__}" if part is not module else "")
    figure.suptitle(f"{name}, random parameters of seed {seed}\n{source}", fontsize=12)
    rows = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
    for row, function in zip(rows, functions, strict=True):
        function(row, part, x, run)
    return figure


def photo_inputs(module: Module, size: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Make the inputs: the photograph's features where a map is wanted, else what the system draws."""
    random = np.random.RandomState([seed, 1])  # another stream than that of the parameters
    inputs = {
        name: photo_features(shape[1], *size) if shape[2:] == size else module.draw_input(name, shape, random)
        for name, shape in module.input_shapes(1, *size).items()
    }
    if "maps" in inputs:  # to be refined by features that may point any way
        inputs = {"maps": coarse_maps(size, random), "features": standard(smooth(inputs["features"], 1))}
    return inputs


def coarse_maps(size: tuple[int, int], random: np.random.RandomState) -> np.ndarray:
    """Make class maps as a network's last layers give them: coarse, noisy, and high round one place only."""
    photo = np.array(photograph().shape[:2])
    grid = np.moveaxis(np.indices((12, 18)), 0, -1) * photo / (12, 18) + photo / (24, 36)
    blobs = [np.exp(-((grid - place) ** 2).sum(axis=-1) / (2 * 16**2)) for place in COARSE.values()]
    return resize_bilinear(np.array([blobs]) + 0.3 * random.uniform(size=(1, len(blobs), 12, 18)), size)[0]


def smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    """Smooth a map over its positions."""
    return scipy.ndimage.gaussian_filter(x, (0, 0, sigma, sigma))


def standard(x: np.ndarray) -> np.ndarray:
    """Give every channel mean 0 and variance 1."""
    return (x - x.mean(axis=(2, 3), keepdims=True)) / x.std(axis=(2, 3), keepdims=True)


def with_photo_statistics(module: Module, params: dict[str, Any], x: np.ndarray) -> dict[str, Any]:
    """Put the features' own mean and variance in the place of running statistics that have nothing to do with them."""
    training = replace(module, training=True)
    masks = [np.ones(shape) for shape in list(training.input_shapes(1, *SIZE).values())[1:]]
    remembered = training(params, x, *masks).buffers  # a tenth of the way from the old to those of the batch
    return params | {name: params[name] + 10 * (value - params[name]) for name, value in remembered.items()}


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
        axis.imshow(strength, cmap="magma", vmin=strength.min(), vmax=np.quantile(strength, 0.995))
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

    # Many affinities are 0 in this precision; their logarithms still have an order. Of a rectified channel that is 0
    # nearly everywhere there is nothing to see.
    logarithms = log_softmax(energy if module.variant == "paper" else -energy, axis=1)
    live = np.quantile(rows, 0.9, axis=1) > rows.min(axis=1)
    pairs = np.argwhere(np.outer(live, live) & ~np.eye(channels, dtype=bool))
    pairs = sorted(pairs, key=lambda pair: -logarithms[*pair])
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
    """Draw where some pixels look, over the photograph; with each head, where there are several.

    Untrained queries and keys have nothing to do with each other. Here one projection makes both, and features are
    smooth and of unit length: a product is large where two positions look alike.
    """
    several = hasattr(module, "heads")
    wide = {"channels": 14 * module.heads} if several else {"channels": 54, "reduction": 1}
    module = replace(module, **wide)
    x = standard(smooth(photo_features(module.channels, *SIZE), 1.5))
    x /= np.sqrt((x**2).sum(axis=1, keepdims=True))
    params = alike(module, module.init(seed))
    figure.suptitle(
        f"where five pixels look{' with each head' if several else ''}, with queries and keys made by one random "
        f"projection{' a head' if several else ''} of smooth features of unit length: like looks at like",
        fontsize=10,
    )
    draw_rows(figure, module, params, x, pixels)


def alike(module: Module, params: dict[str, Any], sharpness: float = 8) -> dict[str, Any]:
    """Make the keys by the projection that makes the queries; features of unit length then have logits up to 8."""
    if hasattr(module, "heads"):
        weight = params["in_proj_weight"].copy()
        queries, keys, _ = np.split(weight, 3)
        keys[:] = queries * (sharpness / (module.scale * module.head_channels * queries.var()))
        return params | {"in_proj_weight": weight}
    weight, bias = params["query_conv.weight"], params["query_conv.bias"]
    keys = weight * (sharpness / (len(weight) * weight.var()))
    return params | {"key_conv.weight": keys, "query_conv.bias": np.zeros_like(bias)}


def draw_branch_looks(
    figure: SubFigure, module: Module, x: np.ndarray, _run: Pass, *, params: dict[str, Any], pixels: Any
) -> None:
    """Draw where some pixels look in the position branch."""
    figure.suptitle("where five pixels look in the position branch, with random queries and keys", fontsize=10)
    (reduced, _), _ = layers.conv_norm_act(x, params, "conv5a", training=False)
    draw_rows(figure, module.position, strip_prefix("sa.", params), reduced, pixels)


def draw_rows(figure: SubFigure, module: Module, params: dict[str, Any], x: np.ndarray, pixels: Any) -> None:
    """Draw the rows of an attention map that belong to some pixels, over the photograph; a row of panels a head."""
    photo = photograph()
    step = photo.shape[0] // SIZE[0]
    rows = module.attention_map(params, x, [row // step * SIZE[1] + column // step for row, column in pixels])[0]
    heads = rows.reshape(-1, *rows.shape[-2:])
    axes = figure.subplots(len(heads), len(pixels), squeeze=False)
    for (head, pixel), axis in np.ndenumerate(axes):
        (row, column), weights = pixels[pixel], heads[head, pixel]
        shown = np.kron(weights.reshape(SIZE), np.ones((step, step)))
        shown = np.minimum(shown / np.quantile(shown, 0.995), 1)
        axis.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
        axis.imshow(shown, cmap="hot", vmin=0, vmax=1, alpha=0.9 * shown)
        axis.plot(column, row, "+", color="cyan", markersize=11, markeredgewidth=2)
        which = f", head {head + 1}" if len(heads) > 1 else ""
        half = f"half of it on {share(weights):.1%} of the map"
        axis.set_title(f"from row {row}, column {column}{which}\n{half}", fontsize=9)
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


def draw_branches(figure: SubFigure, module: Module, _x: np.ndarray, run: Pass) -> None:
    """Draw what the branches read from one pixel, what each answers everywhere, which stands out, and all mixed."""
    near, *far, image = run.attention["branches"][0]
    photo = photograph()
    step = photo.shape[0] // near.shape[0]
    colours = [CLASSES[i % len(CLASSES)] for i in range(len(far) + 2)]
    columns = -(-(len(far) + 5) // 2)
    taken, first, *middle, pooled, strongest, mixed = figure.subplots(2, columns).flat[: len(far) + 5]
    taken.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
    row, column = EYE
    for rate, colour in zip(module.rates, colours[1:], strict=False):
        taps = [(row + i * rate * step, column + j * rate * step) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        inside = [(r, c) for r, c in taps if 0 <= r < photo.shape[0] and 0 <= c < photo.shape[1]]
        taken.plot(*np.array(inside).T[::-1], "s", color=colour, markersize=5, label=f"rate {rate}")
    taken.legend(fontsize=7, loc="lower right")
    taken.set_title("what the eye's position reads")
    titles = ["1×1", *(f"3×3 at rate {rate}" for rate in module.rates)]
    for axis, answer, title in zip((first, *middle), (near, *far), titles, strict=True):
        axis.imshow(answer, cmap="magma", vmin=0, vmax=max(np.quantile(answer, 0.995), 1e-9))
        axis.set_title(title)
    means = [near.mean(), *(answer.mean() for answer in far), image.mean()]
    pooled.bar(range(len(means)), means, color=colours)
    pooled.set_xticks(range(len(means)), ["1×1", *module.rates, "image"], fontsize=8)
    pooled.set_title("mean answer of each branch")
    pooled.spines[["top", "right"]].set_visible(False)
    relative = run.attention["branches"][0] / np.maximum(means, 1e-9)[:, None, None]
    rank = relative[: len(far) + 1].argmax(axis=0)
    strongest.imshow(np.array([to_rgb(colour) for colour in colours])[rank])
    strongest.set_title("branch farthest above its mean")
    strength = run.output[0].mean(axis=0)
    mixed.imshow(strength, cmap="magma", vmin=0, vmax=max(np.quantile(strength, 0.995), 1e-9))
    mixed.set_title("all mixed: mean over the channels")
    for axis in figure.axes:
        axis.title.set_fontsize(10)
        if axis is not pooled:
            axis.set_axis_off()


def best_apart(regions: Any, shown: int) -> list[tuple[np.ndarray, int]]:
    """Pick the best windows that do not overlap."""
    picked = []
    for box, label in zip(regions.boxes[0], regions.labels[0], strict=True):
        if len(picked) < shown and all(
            (box[:2] >= other[2:]).any() or (box[2:] <= other[:2]).any() for other, _ in picked
        ):
            picked.append((box, int(label)))
    return picked


def draw_scores(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw the photograph, the classes that a head's three scores name, and how sure the first of them is."""
    photo = photograph()
    step = photo.shape[0] // x.shape[2]
    axes = figure.subplots(1, 5)
    axes[0].imshow(photo)
    axes[0].set_title("photograph")
    names = "both branches", "position branch alone", "channel branch alone"
    scores = [y[0] - np.median(y[0], axis=(1, 2), keepdims=True) for y in run.output]
    labels = [score.argmax(axis=0) for score in scores]
    figure.suptitle("classes of one random classifier, balanced", fontsize=10)
    for axis, label, name in zip(axes[1:], labels, names, strict=False):
        colours = np.array([to_rgb(colour) for colour in CLASSES])[label % len(CLASSES)]
        axis.imshow(0.35 * photo / 255 + 0.65 * np.kron(colours, np.ones((step, step, 1))))
        axis.set_title(f"{name}\n{np.mean(label == labels[0]):.0%} as by both" if axis is not axes[1] else name)
    ordered = np.sort(scores[0], axis=0)
    sure = ordered[-1] - ordered[max(-2, -len(ordered))]
    image = axes[4].imshow(sure, cmap="magma", vmin=0, vmax=max(np.quantile(sure, 0.995), 1e-9))
    axes[4].set_title("both: best class before the next")
    figure.colorbar(image, ax=axes[4], shrink=0.5, label="logits").ax.tick_params(labelsize=8)
    handles = [
        Patch(color=CLASSES[k % len(CLASSES)], label=f"class {k}, {np.mean(labels[0] == k):.0%}")
        for k in range(run.output[0].shape[1])
    ]
    axes[1].legend(handles=handles, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False)
    for axis in axes:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


def score_map(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """Score every position."""
    return np.tensordot(params["score.weight"][0, :, 0, 0], x[0], 1) + params["score.bias"]


def sharpness(scores: np.ndarray) -> float:
    """Find by what to multiply scores so that half of their softmax falls on a given share of the map."""
    factors = np.geomspace(100, 1e-4, 400) / scores.std()
    return next(factor for factor in factors if share(softmax(factor * scores.ravel())) >= HALF)


def draw_selection(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw the probabilities, the position that was selected, many that might have been, and what is like it."""
    probability = run.attention["probability"][0]
    logarithm = np.log(probability).ravel()
    random = np.random.RandomState(0)
    draws = np.concatenate([(logarithm + random.gumbel(size=(50, logarithm.size))).argmax(axis=1) for _ in range(20)])
    (selected,) = np.argwhere(run.attention["selected"][0])
    photo = photograph()
    step = photo.shape[0] // len(probability)
    blocks = SIZE[0] // BLOCK, BLOCK, SIZE[1] // BLOCK, BLOCK
    counts = np.bincount(draws, minlength=logarithm.size)
    drawn, expected = (a.reshape(blocks).sum(axis=(1, 3)) for a in (counts, len(draws) * probability))
    alike = np.tensordot(run.output[0], x[0], 1)
    alike -= (alike * probability).sum()
    axes = figure.subplots(2, 4)
    axes[0, 0].imshow(photo)
    axes[0, 0].plot(step * selected[1], step * selected[0], "+", color="cyan", markersize=13, markeredgewidth=2.5)
    axes[0, 0].set_title(f"selected: row {step * selected[0]}, column {step * selected[1]}")
    image = axes[0, 1].imshow(logarithm.reshape(SIZE) / np.log(10), cmap="viridis")
    axes[0, 1].set_title("probability of every position")
    figure.colorbar(image, ax=axes[0, 1], shrink=0.62, label="power of 10").ax.tick_params(labelsize=8)
    shown = np.kron(probability, np.ones((step, step)))
    shown = np.minimum(shown / np.quantile(shown, 0.995), 1)
    axes[0, 2].imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
    axes[0, 2].imshow(shown, cmap="hot", vmin=0, vmax=1, alpha=0.9 * shown)
    axes[0, 2].set_title(f"half of it on {share(probability.ravel()):.1%} of the map")
    axes[0, 3].imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
    axes[0, 3].plot(step * (draws[:200] % SIZE[1]), step * (draws[:200] // SIZE[1]), ".", color=CUT, markersize=5)
    axes[0, 3].set_title("200 other draws")
    highest = max(drawn.max(), expected.max())
    for axis, values, title in ((axes[1, 0], expected, "expected"), (axes[1, 1], drawn, "drawn")):
        image = axis.imshow(values, cmap="magma", vmin=0, vmax=highest)
        axis.set_title(f"{title} of {len(draws)}, by blocks")
    figure.colorbar(image, ax=axes[1, 1], shrink=0.62).ax.tick_params(labelsize=8)
    axes[1, 2].plot(expected.ravel(), drawn.ravel(), ".", color=KEPT)
    axes[1, 2].plot([0, highest], [0, highest], color="0.5", linewidth=0.8)
    axes[1, 2].set(xlabel="expected", ylabel="drawn", box_aspect=2 / 3)
    axes[1, 2].set_title("one point for each block")
    reach = np.quantile(np.abs(alike), 0.995)
    image = axes[1, 3].imshow(alike, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach))
    axes[1, 3].set_title("product with the selected feature")
    figure.colorbar(image, ax=axes[1, 3], shrink=0.62).ax.tick_params(labelsize=8)
    for axis in axes.flat:
        axis.title.set_fontsize(10)
        if axis is not axes[1, 2]:
            axis.set_axis_off()


def draw_chosen(figure: SubFigure, module: Module, x: np.ndarray, _: Pass, *, params: dict[str, Any]) -> None:
    """Draw the scores, what is chosen as k grows, and how the output comes to be that of soft attention."""
    scores = score_map(params, x)
    photo = photograph()
    step = photo.shape[0] // len(scores)
    soft = replace(module, k=scores.size)(params, x).output
    axes = figure.subplots(2, 4)
    axes[0, 0].imshow(photo)
    axes[0, 0].set_title("photograph")
    image = axes[0, 1].imshow(scores, cmap="viridis")
    axes[0, 1].set_title("scores")
    figure.colorbar(image, ax=axes[0, 1], shrink=0.62).ax.tick_params(labelsize=8)
    for axis, k in zip((*axes[0, 2:], *axes[1, :3]), (1, 10, CHOSEN, 1000, 5000), strict=True):
        weights = replace(module, k=k)(params, x).attention["weights"][0]
        down, across = np.nonzero(weights)
        area = 60 * weights[down, across] / weights.max() + 2
        axis.imshow(photo.mean(axis=2), cmap="gray", vmin=0, vmax=400)
        axis.scatter(step * across, step * down, s=area, color=CUT, alpha=0.7, linewidth=0)
        axis.set_title(f"k = {k}: half of the weight on {round(share(weights.ravel()) * weights.size)}")
    chosen = np.unique(np.geomspace(1, scores.size, 40).astype(int))
    distance = [np.linalg.norm(replace(module, k=int(k))(params, x).output - soft) for k in chosen]
    axes[1, 3].plot(chosen, distance / np.linalg.norm(soft), color=KEPT)
    axes[1, 3].set(xscale="log", xlabel="k", ylabel="relative", box_aspect=2 / 3)
    axes[1, 3].set_title("distance to soft attention's output")
    for axis in axes.flat:
        axis.title.set_fontsize(10)
        if axis is not axes[1, 3]:
            axis.set_axis_off()


def draw_refinement(figure: SubFigure, _: Module, x: np.ndarray, run: Pass) -> None:
    """Draw coarse maps and what becomes of them, and how much of the photograph looks like each position."""
    axes = figure.subplots(2, 1 + len(COARSE))
    axes[0, 0].imshow(photograph())
    axes[0, 0].set_title("photograph")
    similarity = run.attention["similarity"][0, 0] / x[0, 0].size
    image = axes[1, 0].imshow(similarity, cmap="magma")
    axes[1, 0].set_title("mean affinity s / N to all positions")
    figure.colorbar(image, ax=axes[1, 0], shrink=0.62).ax.tick_params(labelsize=8)
    for column, name in enumerate(COARSE):
        for row, maps, title in ((0, x, f"coarse map: {name}"), (1, run.output, "refined")):
            shown = maps[0, column]
            axis = axes[row, 1 + column]
            axis.imshow(shown, cmap="viridis")
            axis.set_title(f"{title}, {shown.min():.2f} to {shown.max():.2f}")
    for axis in axes.flat:
        axis.set_axis_off()
        axis.title.set_fontsize(10)


PANELS = {
    "branch": (draw_scores, 3.0),
    "channel": (draw_channels, 4.2),
    "spatial": (draw_positions, 2.6),
    "height": (draw_directions, 4.2),
    "affinity": (draw_affinity, 4.2),
    "windows": (draw_windows, 2.6),
    "branches": (draw_branches, 4.6),
    "similarity": (draw_refinement, 4.4),
    "selected": (draw_selection, 4.8),
}
"""How each attention map is drawn, and how many inches high."""
