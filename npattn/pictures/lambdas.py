"""Lambdas: what keys gather for all positions, and the kernel that a position's query makes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn import layers
from npattn.data import photograph
from npattn.pictures.attention_maps import positions_of
from npattn.pictures.scene import Scene
from npattn.pictures.showing import hide_axes, show, show_weights, signed
from npattn.pictures.weights import half_share

__all__ = ["draw_lambdas"]


def draw_lambdas(figure: SubFigure, scene: Scene) -> None:
    """Draw where some channels of the keys gather and, below, the kernels that the queries of some pixels make."""
    module, params, keys = scene.inner, scene.params, scene.run.attention["keys"][0]
    above, below = figure.subplots(2, len(scene.pixels))
    show(above[0], photograph(), "photograph")
    for f, axis in enumerate(above[1:]):
        if f < len(keys):
            half = f"key channel {f}: half on {half_share(keys[f].ravel()):.1%}"
            show_weights(axis, keys[f], half, fontsize=9)
        else:
            hide_axes(axis)
    u, _ = layers.conv(scene.x, params, "qkv")
    (n, _), _ = layers.batch_norm(u[:, : module.heads * module.query_channels], params, "norm_q", training=False)
    queries = n[0, : module.query_channels].reshape(module.query_channels, -1)[
        :, positions_of(scene.pixels, scene.size)
    ]
    ways = params["pos_emb"] if module.feat_size else np.moveaxis(params["conv_lambda.weight"][:, 0, :, :, 0], 0, -1)
    kernels = np.moveaxis(ways @ queries, -1, 0)
    highest = np.abs(kernels).max()
    for (row, column), kernel, axis in zip(scene.pixels, kernels, below, strict=True):
        show(axis, kernel, f"kernel of row {row},\ncolumn {column}, head 1", fontsize=9, **signed(highest))
