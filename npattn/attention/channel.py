"""Dual attention's channel module: each channel takes in all channels, weighted by how much they are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.fields import choice, integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class ChannelAttention(Module):
    """Add to each channel a mixture of all channels, weighted by the softmax of their inner products with it.

    With the map as a matrix x of C rows, one channel each: s = softmax(x xᵀ) by rows, y = γ s x + x. Nothing but the
    scale γ is learnt. The released code takes softmax(max(x xᵀ) - x xᵀ) instead, the maximum that of each row. That is
    softmax(-x xᵀ), and turns the order round: the least similar channels weigh most.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    variant : {"paper", "code"}, default "paper"
        Whether similar channels attract each other, as in the paper, or dissimilar ones, as in the released code, on
        which the released checkpoints depend.

    Raises
    ------
    TypeError
        If `channels` is no integer, or `variant` no string.
    ValueError
        If `channels` is below 1, or `variant` is another string.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["affinity"]``: (B, C, C), in which row j holds the
    weights of all channels in the mixture for channel j. Parameter, named as in the authors' code: ``gamma`` (1,), the
    paper's β, which starts at 0: an untrained module hands its input on.

    References
    ----------
    Fu et al.: Dual Attention Network for Scene Segmentation, CVPR 2019, section 3.3, eq. 3 (affinity), 4 (sum).

    Examples
    --------
    >>> module = ChannelAttention(channels=8)
    >>> x = np.ones((2, 8, 7, 5))
    >>> run = module(module.init(seed=0), x)
    >>> run
    Pass(output: float64 (2, 8, 7, 5); affinity (2, 8, 8))
    >>> bool((run.output == x).all())
    True
    >>> dx, grads = run.backward(x)
    >>> grads["gamma"]
    array([560.])
    """

    key: ClassVar = "cam"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Dual Attention Network for Scene Segmentation",
        authors="Fu, Liu, Tian, Li, Bao, Fang, Lu",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1809.02983",
    )

    channels: int = integer(least=1)
    variant: str = choice(("paper", "code"), default="paper")

    @classmethod
    def example(cls) -> ChannelAttention:
        """Return a small instance: 32 channels, in the paper's variant."""
        return cls(channels=32)

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw a map so faint that the sums over its positions don't leave each channel one single affinity."""
        return super().draw_input(name, shape, random) * (2 / (shape[2] * shape[3])) ** 0.5

    def parameters(self) -> dict[str, Parameter]:
        """Declare the one scale."""
        return {"gamma": zeros(1)}

    def forward(self, params: Params, x: Array) -> Pass:
        """Compare, weigh, mix, scale, add. The tags are the equation numbers of the derivation."""
        weigh = ops.softmax if self.variant == "paper" else ops.softmin
        rows = flatten_positions(x)
        g, back_gram = ops.gram(rows)                     # (1)
        s, back_weigh = weigh(g)                          # (2)
        m, back_mix = ops.matmul(s, rows)                 # (3)
        e, back_scale = layers.scale(m, params, "gamma")  # (4)
        y, back_add = ops.add(x, e.reshape(x.shape))      # (5)

        def backward(dy):
            dx, de = back_add(dy)                         # (5')
            dm, grads = back_scale(de.reshape(e.shape))   # (4')
            ds, dmixed = back_mix(dm)                     # (3')
            dg = back_weigh(ds)                           # (2')
            dgram = back_gram(dg)                         # (1')
            dx, _ = ops.add(dx, dmixed.reshape(x.shape), dgram.reshape(x.shape))
            return dx, grads

        return Pass(y, backward, attention={"affinity": s})
