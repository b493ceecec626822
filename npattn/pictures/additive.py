"""Gates of the positions that a map and a second one make together."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.features import photo_inputs
from npattn.pictures.scene import Scene
from npattn.pictures.showing import enlarge, show
from npattn.typing import Array

__all__ = ["draw_additive"]


def draw_additive(figure: SubFigure, scene: Scene) -> None:
    """Draw what either map says by itself, the gate of both, and the photograph as it lets it through."""
    g = photo_inputs(scene.module, scene.size, scene.seed)["g"]
    gate = scene.run.attention["additive"][0, 0]
    alone = [gates(scene, scene.x, levelled(g)), gates(scene, levelled(scene.x), g)]
    low, high = np.quantile(gate, (0.01, 0.99))
    light = np.clip((gate - low) / max(high - low, 1e-9), 0, 1)
    axes = figure.subplots(1, 4)
    show(axes[0], alone[0], "gate a, g its mean everywhere", bar="", cmap="viridis")
    show(axes[1], alone[1], "gate a, x its mean everywhere", bar="", cmap="viridis")
    show(axes[2], gate, "gate a of both", bar="", cmap="viridis")
    show(axes[3], (photograph() * enlarge(light)[:, :, None]).astype(np.uint8), "photograph, lit by it")


def gates(scene: Scene, x: Array, g: Array) -> Array:
    """Return the gates of the positions for other maps than the scene's."""
    return scene.inner(scene.params, x, g).attention["additive"][0, 0]


def levelled(x: Array) -> Array:
    """Give every position of a map the mean of its channels."""
    return np.broadcast_to(x.mean(axis=(2, 3), keepdims=True), x.shape)
