"""RMSNorm, a system of one's own, at work on the photograph's features, and its kernels against the budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from npattn.data import photo_features
from npattn.fields import integer, number
from npattn.module import Module, Pass
from npattn.oracle import golden
from npattn.parameters import Parameter, ones
from npattn.pictures.showing import LOWERED, RAISED, bright, show
from npattn.typing import Array, Params

__all__ = ["draw_judged_kernels"]

CHANNELS, SIZE = 12, (25, 38)


@dataclass(frozen=True)
class RMSNorm(Module):
    """The page's system: y = w ⊙ x / √(mean x² + ε), over the channels of each token."""

    channels: int = integer(least=1, default=8)
    eps: float = number(default=1e-6)

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Take tokens, (B, N, C)."""
        return {"x": (batch, height * width, self.channels)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare a weight for each channel."""
        return {"weight": ones(self.channels)}

    def forward(self, params: Params, x: Array) -> Pass:
        """Divide each token by its root mean square."""
        w = params["weight"]
        r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        n = r * x

        def backward(dy):
            dn, dw = w * dy, (n * dy).sum(axis=(0, 1))
            return r * (dn - n * (n * dn).mean(axis=-1, keepdims=True)), {"weight": dw}

        return Pass(w * n, backward)


def draw_judged_kernels() -> Figure:
    """Draw a channel before and after the norm, and the errors of a right and a wrong kernel's gradient in budgets."""
    x = np.moveaxis(photo_features(CHANNELS, *SIZE), 1, -1).reshape(1, -1, CHANNELS)
    module = RMSNorm(CHANNELS)
    case = golden(module, inputs=x, dtype="float16", certify=False)
    given = case.inputs["x"], case.params["weight"], case.upstream["output"]
    tokens, w, dy = (array.astype(np.float16) for array in given)
    r: Array = 1 / np.sqrt(mean(tokens * tokens) + module.eps).astype(np.float16)
    n, dn = r * tokens, w * dy
    right, wrong = r * (dn - n * mean(n * dn).astype(np.float16)), r * dn

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.1)).flat
    before, size, after = above.subplots(1, 3)
    maps = {
        before: (x[0, :, 0], "a channel of the tokens"),
        size: (1 / r[0, :, 0], "root mean square of a token"),
        after: (w[0] * n[0, :, 0], "the channel after the norm"),
    }
    for panel, (values, title) in maps.items():
        show(panel, np.reshape(values, SIZE).astype(float), title, bar="", shrink=0.8, **bright(values.astype(float)))
    axis = below.subplots()
    bins = list(np.geomspace(0.01, 1e4, 73))
    for kernel, colour, name in ((right, RAISED, "right"), (wrong, LOWERED, "second term left out")):
        off = np.abs(kernel.astype(float) - case.expected["x.grad"]) / case.budget["x.grad"]
        axis.hist(np.maximum(off.ravel(), bins[0]), bins=bins, color=colour, alpha=0.75, label=name)
    limit = case.compare({"x.grad": right}).judgements["x.grad"].worst_limit
    axis.axvline(limit, color="black", linewidth=1)
    axis.text(1.1 * limit, 0.9, "refused beyond", transform=axis.get_xaxis_transform(), fontsize=9)
    axis.set(xscale="log", xlabel="how far an element of x.grad is off, in budgets", ylabel="elements")
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def mean(values: Array) -> Array:
    """Average over channels in float32."""
    return values.mean(-1, keepdims=True, dtype=np.float32)
