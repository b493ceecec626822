"""Double attention: what a few maps gather from all positions is distributed to every position."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, he_normal
from npattn.typing import Array, Params


@dataclass(frozen=True)
class DoubleAttention(Module):
    """Gather features from the whole map by n attention maps, and hand them out to each position by its own weights.

    Each of n maps weighs the positions by a softmax over them, and gathers one descriptor, Σ_i s_i a_i. Each position
    then takes a mixture of the n descriptors, by a softmax over these, and a last layer makes channels of the map of
    it. No two positions are compared, so work grows as their number.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 4
        r; features, and maps, are max(1, C // r) each.
    hidden : int, optional
        m, channels of the features that are gathered, in place of C // r.
    maps : int, optional
        n, how many maps gather, in place of C // r.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W); `Residual` adds the map, as the paper's networks do.
    ``attention["gather"]``: (B, n, H, W), each map's weights; ``attention["distribute"]``: (B, n, H, W), each
    position's. Parameters, named as PyTorch code has them: ``convA.weight`` (m, C, 1, 1) and ``convA.bias`` (m,), the
    features; ``convB.weight`` (n, C, 1, 1) and ``convB.bias`` (n,), the maps; ``convV.weight`` (n, C, 1, 1) and
    ``convV.bias`` (n,), the positions' weights; ``conv_reconstruct.weight`` (C, m, 1, 1) and ``conv_reconstruct.bias``
    (C,). In most copies of that code the softmaxes run over other axes than the paper's, which are meant here. Kernels
    start from a normal distribution of variance 2 / fan-out, biases at 0.

    References
    ----------
    Chen, Kalantidis, Li, Yan, Feng: A²-Nets: Double Attention Networks, NeurIPS 2018, eq. 1 to 6.

    Examples
    --------
    >>> import numpy as np
    >>> module = DoubleAttention(channels=8, reduction=2)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); gather (2, 4, 7, 5); distribute (2, 4, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> grads["convB.weight"].shape
    (4, 8, 1, 1)
    """

    key: ClassVar = "double"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="A²-Nets: Double Attention Networks",
        authors="Chen, Kalantidis, Li, Yan, Feng",
        venue="NeurIPS",
        year=2018,
        url="https://arxiv.org/abs/1810.11579",
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=4)
    hidden: int | None = integer(least=1, default=None)
    maps: int | None = integer(least=1, default=None)

    @classmethod
    def example(cls) -> DoubleAttention:
        """Return a small instance: 16 channels, 6 in features, 4 maps."""
        return cls(channels=16, hidden=6, maps=4)

    def parameters(self) -> dict[str, Parameter]:
        """Declare what makes features, maps and positions' weights, and the layer that leads back."""
        fewer = max(1, self.channels // self.reduction)
        features, maps = self.hidden or fewer, self.maps or fewer
        layer = functools.partial(layers.conv_parameters, initial=functools.partial(he_normal, fan="out"))
        return {
            **layer("convA", features, self.channels),
            **layer("convB", maps, self.channels),
            **layer("convV", maps, self.channels),
            **layer("conv_reconstruct", self.channels, features),
        }

    def forward(self, params: Params, x: Array) -> Pass:
        """Weigh positions, gather, distribute, lead back. The tags are the equation numbers of the derivation."""
        (a, b, v), back_layers = layers.project(x, params, ("convA", "convB", "convV"))  # (1)
        s, back_gather = ops.softmax(flatten_positions(b), axis=-1)                      # (2)
        w, back_distribute = ops.softmax(flatten_positions(v), axis=1)                   # (3)
        o, back_attention = ops.linear_attention(w, s, flatten_positions(a))             # (4)
        y, back_last = layers.conv(o.reshape(a.shape), params, "conv_reconstruct")       # (5)

        def backward(dy):
            do, grads_last = back_last(dy)                                               # (5')
            dw, ds, da = back_attention(do.reshape(o.shape))                             # (4')
            dv = back_distribute(dw)                                                     # (3')
            db = back_gather(ds)                                                         # (2')
            parts = da.reshape(a.shape), db.reshape(b.shape), dv.reshape(v.shape)
            dx, grads = back_layers(parts)                                               # (1')
            return dx, grads | grads_last

        return Pass(y, backward, attention={"gather": s.reshape(b.shape), "distribute": w.reshape(v.shape)})
