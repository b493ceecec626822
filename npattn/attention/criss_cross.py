"""Criss-cross attention: every position gathers from its row and its column, and, the second time, from the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention.position import PositionAttention
from npattn.attention_maps import MapByRows
from npattn.fields import integer
from npattn.module import Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter
from npattn.typing import Array, Backward, Params


def criss_cross(x: Array, params: Params, times: int) -> tuple[Array, Backward]:
    """Add to every position what it gathers from its row and its column; then the same to what comes out."""
    q, back_query = layers.conv(x, params, "query_conv")        # (1)
    k, back_key = layers.conv(x, params, "key_conv")            # (2)
    v, back_value = layers.conv(x, params, "value_conv")        # (3)
    o, back_attention = ops.criss_cross_attention(q, k, v)      # (4)
    e, back_scale = layers.scale(o, params, "gamma")            # (5)
    y, back_add = ops.add(x, e)                                 # (6)
    if times > 1:
        y, back_rest = criss_cross(y, params, times - 1)        # (7)

    def backward(dy):
        rest = {}
        if times > 1:
            dy, rest = back_rest(dy)                            # (7')
        dx, de = back_add(dy)                                   # (6')
        do, grads_scale = back_scale(de)                        # (5')
        dq, dk, dv = back_attention(do)                         # (4')
        dx, grads_value = back_value(dv, accumulate_into=dx)    # (3')
        dx, grads_key = back_key(dk, accumulate_into=dx)        # (2')
        dx, grads_query = back_query(dq, accumulate_into=dx)    # (1')
        grads = grads_scale | grads_query | grads_key | grads_value
        return dx, {name: ops.accumulate(rest.get(name), gradient) for name, gradient in grads.items()}

    return y, backward


@dataclass(frozen=True)
class CrissCrossAttention(MapByRows):
    """Add to every position a weighted sum of the values in its row and its column; do so several times.

    Position attention compares all N positions with all N. Here each is compared with the W + H - 1 that share its row
    or its column, itself once, and the same module is applied to what comes out: the corner where a row and a column
    meet hands on what it gathered, so that after two times every position has heard of every other.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 8
        Queries and keys have max(1, C // reduction) channels.
    recurrence : int, default 2
        R, how many times it is applied, with the same parameters.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is no integer, or below 1.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). Parameters, named as in the authors' code: ``gamma`` (1,),
    ``query_conv.weight`` (D, C, 1, 1), ``query_conv.bias`` (D,), ``key_conv.weight`` (D, C, 1, 1), ``key_conv.bias``
    (D,), ``value_conv.weight`` (C, C, 1, 1), ``value_conv.bias`` (C,), with D = max(1, C // reduction). The layers
    start as that code's `Conv2d` do, uniform in ±1/√C; γ starts at 0. Each time weights for N (W + H) pairs are kept
    until backward. The pass has no attention map: `attention_map` makes the rows of it that are asked for,
    those of the last time. Row j holds the weights of all positions for position j: they add up to 1, and are 0 off its
    row and column.

    References
    ----------
    Huang, Wang, Huang, Huang, Wei, Liu: CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019, section 3.2
    (criss-cross attention) and 3.3 (recurrence).

    Examples
    --------
    >>> module = CrissCrossAttention(channels=16)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 7, 5))
    >>> run = module(params, x)
    >>> run
    Pass(output: float64 (2, 16, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["query_conv.weight"].shape
    (2, 16, 1, 1)
    >>> np.count_nonzero(module.attention_map(params, x, rows=[0, 34]), axis=2)
    array([[11, 11],
           [11, 11]])
    """

    key: ClassVar = "criss-cross"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="CCNet: Criss-Cross Attention for Semantic Segmentation",
        authors="Huang, Wang, Huang, Huang, Wei, Liu",
        venue="ICCV",
        year=2019,
        url="https://arxiv.org/abs/1811.11721",
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=8)
    recurrence: int = integer(least=1, default=2)

    @classmethod
    def example(cls) -> CrissCrossAttention:
        """Return a small instance: 16 channels, 2 in queries and keys."""
        return cls(channels=16)

    @property
    def key_channels(self) -> int:
        """D, channels of the queries and keys."""
        return self.position.key_channels

    @property
    def position(self) -> PositionAttention:
        """Position attention with the same layers."""
        return PositionAttention(self.channels, self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare what position attention has: the scale γ, and the layers that make queries, keys and values."""
        return self.position.parameters()

    def forward(self, params: Params, x: Array) -> Pass:
        """Attend along rows and columns, several times. The tags are the equation numbers of the derivation."""
        y, back = criss_cross(x, params, self.recurrence)       # (8)

        def backward(dy):
            dx, grads = back(dy)                                # (8')
            return dx, grads

        return Pass(y, backward)

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights of all positions for some positions, the last time that the module is applied."""
        if self.recurrence > 1:
            x, _ = criss_cross(x, params, self.recurrence - 1)
        q, k = (flatten_positions(layers.conv(x, params, name)[0]) for name in ("query_conv", "key_conv"))
        row, column = np.divmod(np.arange(k.shape[2]), x.shape[3])
        shares = (row == row[rows, None]) | (column == column[rows, None])
        return ops.softmax(np.where(shares, ops.matmul(q[:, :, rows].swapaxes(1, 2), k)[0], -np.inf))[0]
