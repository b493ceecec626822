"""Attention by content and by offset: where pixels look by either, and by both, on a whole map and round a block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

from npattn.pictures.attention_maps import HIGHEST_LOGIT, draw_rows, positions_of, tie_keys, unit_features
from npattn.pictures.scene import Scene
from npattn.pictures.showing import pixels_per_position
from npattn.typing import Array, Params

__all__ = ["BLOCK", "CHANNELS", "HALO", "draw_halos", "draw_offsets"]

BLOCK, HALO = 10, 10
"""Rows and columns of a block that is drawn, and of the halo on each side of it."""

CHANNELS = 54
"""Channels of features, and of queries and keys."""
SMOOTHNESS = 4
"""Positions over which the vectors of offsets are smoothed, as training would make neighbours alike."""
LOGIT_DEVIATION = 2.5
"""Standard deviation of the logits of offsets."""


def draw_offsets(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look by what is there alone, by how far off it is alone, and by both.

    Queries and keys are made by one projection, so that like looks at like; the vectors of offsets are random, and
    change slowly from one offset to the next.
    """
    changes: dict[str, Any] = {"channels": CHANNELS, "out_channels": None, "heads": 1, "head_dim": CHANNELS}
    module = replace(scene.inner, **changes, bias=False, stride=1)
    x = unit_features(CHANNELS, scene.size)
    params = with_smooth_vectors(tie_keys(module, module.init(scene.seed)), scene.seed)
    figure.suptitle(
        "where five pixels look by content alone, by offset alone and by both; queries and keys by one random "
        "projection, vectors of offsets random and smooth",
        fontsize=10,
    )
    positions = positions_of(scene.pixels, scene.size)
    rows = {name: module.attention_map(given, x, positions)[0, 0] for name, given in parts_and_whole(params).items()}
    draw_rows(figure, rows, scene.size, scene.pixels)


def draw_halos(figure: SubFigure, scene: Scene) -> None:
    """Draw where some pixels look by content alone, and by both, within the windows of their blocks, which are framed.

    Queries, keys and vectors are made as for `draw_offsets`.
    """
    changes: dict[str, Any] = {"channels": CHANNELS, "out_channels": None, "heads": 1, "head_dim": CHANNELS}
    module = replace(scene.inner, **changes, bias=False, stride=1, block_size=BLOCK, halo_size=HALO)
    params = module.init(scene.seed)
    queries = params["q.weight"]
    params["kv.weight"][:CHANNELS] = queries * (HIGHEST_LOGIT / (module.scale * CHANNELS * queries.var()))
    params = with_smooth_vectors(params, scene.seed)
    content = {name: 0 * value if name.startswith("pos_embed") else value for name, value in params.items()}
    figure.suptitle(
        f"where five pixels look by content alone and by both, within their block of {BLOCK} × {BLOCK} positions "
        f"(inner frame) and its halo of {HALO} (outer frame), seen close",
        fontsize=10,
    )
    positions, x = positions_of(scene.pixels, scene.size), unit_features(CHANNELS, scene.size)
    named = {"content": content, "both": params}
    rows = {name: module.attention_map(given, x, positions)[0, 0] for name, given in named.items()}
    draw_rows(figure, rows, scene.size, scene.pixels)
    step = pixels_per_position(np.empty(scene.size))
    for axis, position in zip(figure.axes, positions * len(named), strict=True):
        top, left = (place // BLOCK * BLOCK for place in divmod(position, scene.size[1]))
        for margin, style in ((0, "-"), (HALO, "--")):
            side = (BLOCK + 2 * margin) * step
            x0, y0 = (left - margin) * step - 0.5, (top - margin) * step - 0.5
            axis.add_patch(Rectangle((x0, y0), side, side, fill=False, edgecolor="cyan", linestyle=style))
        room = 2 * step  # nothing is seen beyond the outer frame: what is farther off is left out
        axis.set(xlim=(x0 - room, x0 + side + room), ylim=(y0 + side + room, y0 - room))


def parts_and_whole(params: Params) -> dict[str, Params]:
    """Return parameters with which a module looks by content alone, by offset alone, and by both."""
    content = {name: 0 * value if name.startswith("pos_embed") else value for name, value in params.items()}
    offset = {**params, "qkv.weight": params["qkv.weight"].copy()}
    offset["qkv.weight"][CHANNELS : 2 * CHANNELS] = 0
    return {"content": content, "offset": offset, "both": params}


def with_smooth_vectors(params: Params, seed: int) -> dict[str, Array]:
    """Draw vectors that change slowly from one offset to the next, and make logits of about this deviation."""
    random = np.random.RandomState([seed, 4])
    changed = dict(params)
    weight = params["q.weight"] if "q.weight" in params else params["qkv.weight"]
    lengths = np.linalg.norm(weight[:CHANNELS]) / np.sqrt(CHANNELS)  # of queries of unit features
    for name in ("pos_embed.height_rel", "pos_embed.width_rel"):
        vectors = scipy.ndimage.gaussian_filter1d(random.standard_normal(params[name].shape), SMOOTHNESS, axis=0)
        changed[name] = vectors * (LOGIT_DEVIATION / (np.sqrt(2) * vectors.std() * lengths))
    return changed
