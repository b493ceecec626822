"""What a system changes of its map."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.data import photograph
from npattn.pictures.scene import Scene
from npattn.pictures.showing import bright, show, signed

__all__ = ["draw_change"]


def draw_change(figure: SubFigure, scene: Scene) -> None:
    """Draw the photograph, the strength of its features before and after, and where the balance has moved."""
    before, after = (np.sqrt(np.mean(features[0] ** 2, axis=0)) for features in (scene.x, scene.run.output))
    change = np.log2(after / before)
    change -= np.median(change)
    limit = max(np.quantile(np.abs(change), 0.995), 1e-9)
    axes = figure.subplots(1, 4)
    show(axes[0], photograph(), "photograph")
    for axis, strength, name in ((axes[1], before, "features in"), (axes[2], after, "features out")):
        title = f"{name}: root mean square {np.sqrt(np.mean(strength**2)):.2f}"
        show(axis, strength, title, **bright(strength, low=strength.min()))
    show(axes[3], change, "gain against the median", bar="octaves", **signed(limit))
