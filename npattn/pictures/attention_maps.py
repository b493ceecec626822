"""Attention maps: where pixels look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from matplotlib.figure import SubFigure

from npattn import layers, ops
from npattn.data import photo_features
from npattn.parameters import strip_prefix
from npattn.pictures.features import smooth, standardise
from npattn.pictures.scene import Scene
from npattn.pictures.showing import enlarge, pixels_per_position, show, show_weights, signed
from npattn.pictures.weights import half_share
from npattn.typing import Array, Params

__all__ = [
    "HIGHEST_LOGIT",
    "draw_attention_maps",
    "draw_branch_attention",
    "draw_forms",
    "draw_recurrence",
    "draw_rows",
    "positions_of",
    "tie_keys",
    "unit_features",
]

Pixels: TypeAlias = tuple[tuple[int, int], ...]
"""Rows and columns of pixels of the photograph."""

HIGHEST_LOGIT = 8
"""Logit of a position with itself."""
HIGHEST_OF_ROW = 4
"""The same where it looks at few others."""
JOINT = "in_proj_weight", "qkv.weight"
"""What systems call one layer that makes queries, keys and values."""
LAYERS = ("query_conv", "key_conv"), ("t", "p")
"""What systems call the layers that make queries and keys."""


def draw_attention_maps(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look, over the photograph; with each head, where there are several.

    Untrained queries and keys have nothing to do with each other. Here one projection makes both, and features are
    smooth and of unit length: a product is large where two positions look alike.
    """
    several = hasattr(scene.inner, "heads")
    changes = {"channels": 14 * scene.inner.heads} if several else {"channels": 54, "reduction": 1}
    module = replace(scene.inner, **changes)
    figure.suptitle(
        f"where five pixels look{' with each head' if several else ''}, with queries and keys made by one random "
        f"projection{' a head' if several else ''} of smooth features of unit length: like looks at like",
        fontsize=10,
    )
    params = tie_keys(module, module.init(scene.seed))
    draw_heads(figure, module, params, unit_features(module.channels, scene.size), scene.pixels)


def draw_forms(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look by the softmax of products, and by the products themselves, which have signs."""
    module = replace(scene.inner, channels=54, hidden=54, subsample=False)
    params, x = tie_keys(module, module.init(scene.seed)), unit_features(54, scene.size)
    figure.suptitle(
        "where five pixels look by a softmax (above), and products without one (below); queries and keys "
        "made by one random projection of smooth features of unit length",
        fontsize=10,
    )
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    draw_heads(above, module, params, x, scene.pixels)
    products = replace(module, variant="dot_product", scale=module.product_scale(1))
    rows = products.attention_map(params, x, positions_of(scene.pixels, scene.size))[0]
    rows /= np.abs(rows).max(axis=1, keepdims=True)
    for (row, column), weights, axis in zip(scene.pixels, rows, below.subplots(1, len(rows)), strict=True):
        title = f"from row {row}, column {column}:\n{np.mean(weights < 0):.0%} of the map taken off"
        show(axis, enlarge(weights.reshape(scene.size)), title, fontsize=9, **signed(1))
        axis.plot(column, row, "+", color="black", markersize=11, markeredgewidth=2)


def draw_recurrence(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look, in row and column, and what comes to them when all have looked before."""
    module = replace(scene.inner, channels=54, reduction=1, recurrence=1)
    params, x = tie_keys(module, module.init(scene.seed), HIGHEST_OF_ROW), unit_features(54, scene.size)
    figure.suptitle(
        "where five pixels look once (above), and from where they have something after two times (below: its "
        "logarithm);\nqueries and keys made by one random projection of smooth features of unit length",
        fontsize=10,
    )
    once = module.attention_map(params, x, positions_of(scene.pixels, scene.size))
    q, k = (layers.conv(x, params, name)[0] for name in LAYERS[0])
    maps = once.reshape(1, -1, *scene.size)
    _, back = ops.criss_cross_attention(q, k, np.zeros_like(maps))
    twice = back(maps)[2]  # the adjoint of gathering: what was looked at has its share of what it looked at
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    draw_rows(above, {"once": once[0]}, scene.size, scene.pixels)
    rows = zip(scene.pixels, once[0], twice.reshape(once.shape)[0], below.subplots(1, len(maps[0])), strict=True)
    for (row, column), crossed, weights, axis in rows:
        title = f"from row {row}, column {column}, twice:\n{weights[crossed == 0].sum():.0%} off row and column"
        shares = np.log10(weights.reshape(scene.size))
        show(axis, enlarge(shares), title, fontsize=9, cmap="hot", vmin=-6, vmax=-2)
        axis.plot(column, row, "+", color="cyan", markersize=11, markeredgewidth=2)


def unit_features(channels: int, size: tuple[int, int]) -> Array:
    """Make features of the photograph that are smooth and of unit length."""
    x = standardise(smooth(photo_features(channels, *size), 1.5))
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def tie_keys(module: Any, params: Params, highest: float = HIGHEST_LOGIT) -> dict[str, Array]:
    """Make the keys by the projection that makes the queries, and logits no higher than `highest`."""
    if hasattr(module, "heads"):
        name = next(name for name in JOINT if name in params)
        weight, each = params[name].copy(), module.head_channels or module.query_channels
        queries, keys = (weight[n * module.heads * each :][: module.heads * each] for n in (0, 1))
        keys[:] = queries * (highest / (module.scale * each * queries.var()))
        return {**params, name: weight}
    query, key = next(names for names in LAYERS if f"{names[0]}.weight" in params)
    weight, bias = params[f"{query}.weight"], params[f"{query}.bias"]
    scale = module.product_scale(1) if hasattr(module, "product_scale") else 1
    keys = weight * (highest / (scale * len(weight) * weight.var()))
    return {**params, f"{key}.weight": keys, f"{query}.bias": np.zeros_like(bias)}


def draw_branch_attention(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look in the position branch."""
    figure.suptitle("where five pixels look in the position branch, with random queries and keys", fontsize=10)
    (reduced, _), _ = layers.conv_norm_act(scene.x, scene.params, "conv5a", training=False)
    draw_heads(figure, scene.inner.position, strip_prefix("sa.", scene.params), reduced, scene.pixels)


def draw_heads(figure: SubFigure, module: Any, params: Params, x: Array, pixels: Pixels) -> None:
    """Draw where some pixels look, with each head."""
    size = x.shape[2:]
    attention = module.attention_map(params, x, positions_of(pixels, size))[0]
    heads = attention.reshape(-1, *attention.shape[-2:])
    names = [f"head {head + 1}" for head in range(len(heads))] if len(heads) > 1 else [""]
    draw_rows(figure, dict(zip(names, heads, strict=True)), size, pixels)


def positions_of(pixels: Pixels, size: tuple[int, int]) -> list[int]:
    """List the positions of a map, counted row by row, in which some pixels of the photograph lie."""
    step = pixels_per_position(np.empty(size))
    return [row // step * size[1] + column // step for row, column in pixels]


def draw_rows(figure: SubFigure, rows: Mapping[str, Array], size: tuple[int, int], pixels: Pixels) -> None:
    """Draw rows of attention maps, (pixels, positions), over the photograph; a row of panels for each map, by name."""
    axes = figure.subplots(len(rows), len(pixels), squeeze=False)
    for (name, attention), panels in zip(rows.items(), axes, strict=True):
        for (row, column), weights, axis in zip(pixels, attention, panels, strict=True):
            which = f", {name}" if name else ""
            half = f"half of it on {half_share(weights):.1%} of the map"
            show_weights(axis, weights.reshape(size), f"from row {row}, column {column}{which}\n{half}", fontsize=9)
            axis.plot(column, row, "+", color="cyan", markersize=11, markeredgewidth=2)
