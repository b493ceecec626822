"""Gates of a group of channels that two branches make of each other."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import SubFigure

from npattn.pictures.scene import Scene
from npattn.pictures.showing import show, signed
from npattn.tracing import trace

__all__ = ["draw_crossing"]


def draw_crossing(figure: SubFigure, scene: Scene) -> None:
    """Draw, of the group whose gates vary most, what is read of either branch, and the gate that both make."""
    gates = scene.run.attention["cross"][0]
    group = int(np.argmax(gates.std(axis=(1, 2))))
    steps = trace(scene.inner, scene.params, scene.x)
    gated, convolved = (steps[path].value.reshape(gates.shape)[group] for path in ("(16) q", "(15) r"))
    axes = figure.subplots(1, 4)
    mean = scene.x[0].reshape(len(gates), -1, *scene.size)[group].mean(axis=0)
    show(axes[0], mean, f"group {group}: mean of its channels", cmap="gray", vmax=np.quantile(mean, 0.995))
    for axis, product, title in ((axes[1], gated, "of the gated branch"), (axes[2], convolved, "of the 3×3 branch")):
        centred = product - np.median(product)
        limit = np.quantile(abs(centred), 0.99)
        show(axis, centred, f"{title}, less its median", fontsize=9, bar="", **signed(limit))
    show(axes[3], gates[group], "gate e", bar="", cmap="viridis")
