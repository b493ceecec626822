"""Position attention: every position of a map gathers the features of all that match it, near and far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.attention_maps import MapByRows
from npattn.fields import integer
from npattn.module import Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class PositionAttention(MapByRows):
    """Add to every position a weighted sum of the values of all positions, near and far alike.

    Three 1×1 convolutions make of each position a query, a key and a value. Position j weighs position i by the softmax
    of its query's product with i's key, s_ji = exp(q_j · k_i) / Σ_n exp(q_j · k_n), and y_j = x_j + γ Σ_i s_ji v_i. The
    N × N weights are never held: memory grows as the number N of positions.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 8
        Queries and keys have max(1, C // reduction) channels.

    Raises
    ------
    TypeError
        If `channels` or `reduction` is no integer.
    ValueError
        If `channels` or `reduction` is below 1.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). Parameters, named as in the authors' code: ``gamma`` (1,),
    ``query_conv.weight`` (D, C, 1, 1), ``query_conv.bias`` (D,), ``key_conv.weight`` (D, C, 1, 1), ``key_conv.bias``
    (D,), ``value_conv.weight`` (C, C, 1, 1), ``value_conv.bias`` (C,), with D = max(1, C // reduction). The layers
    start as that code's `Conv2d` do, uniform in ±1/√C; γ starts at 0. The pass has no attention map, which would be
    N × N: `attention_map` makes the rows of it that are asked for. Row j holds the weights s_ji of all positions i for
    position j; they add up to 1.

    References
    ----------
    Fu et al.: Dual Attention Network for Scene Segmentation, CVPR 2019: eq. 1 (weights), 2 (output); its α is γ here.

    Examples
    --------
    >>> import numpy as np
    >>> module = PositionAttention(channels=16)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 7, 5))
    >>> run = module(params, x)
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["query_conv.weight"].shape
    (2, 16, 1, 1)
    >>> module.attention_map(params, x, rows=[0, 34]).shape
    (2, 2, 35)
    """

    key: ClassVar = "pam"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Dual Attention Network for Scene Segmentation",
        authors="Fu, Liu, Tian, Li, Bao, Fang, Lu",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1809.02983",
    )
    pairs_positions: ClassVar = True

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=8)

    @classmethod
    def example(cls) -> PositionAttention:
        """Return a small instance: 16 channels, 2 in queries and keys."""
        return cls(channels=16)

    @property
    def key_channels(self) -> int:
        """D, channels of the queries and keys."""
        return max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the scale γ, and the layers that make queries, keys and values."""
        return {
            "gamma": zeros(1),
            **layers.conv_parameters("query_conv", self.key_channels, self.channels),
            **layers.conv_parameters("key_conv", self.key_channels, self.channels),
            **layers.conv_parameters("value_conv", self.channels, self.channels),
        }

    def forward(self, params: Params, x: Array) -> Pass:
        """Make queries, keys and values, average the values, scale and add. The tags are the derivation's."""
        q, back_query = layers.conv(x, params, "query_conv")                       # (1)
        k, back_key = layers.conv(x, params, "key_conv")                           # (2)
        v, back_value = layers.conv(x, params, "value_conv")                       # (3)
        rows = map(flatten_positions, (q, k, v))
        o, back_attention = ops.dot_product_attention(*rows)                       # (4)
        e, back_scale = layers.scale(o.reshape(x.shape), params, "gamma")          # (5)
        y, back_add = ops.add(x, e)                                                # (6)

        def backward(dy):
            dx, de = back_add(dy)                                                  # (6')
            do, grads_scale = back_scale(de)                                       # (5')
            dq, dk, dv = back_attention(do.reshape(o.shape))                       # (4')
            del do  # here and below no map is held longer than it is needed
            dx, grads_value = back_value(dv.reshape(v.shape), accumulate_into=dx)  # (3')
            del dv
            dx, grads_key = back_key(dk.reshape(k.shape), accumulate_into=dx)      # (2')
            dx, grads_query = back_query(dq.reshape(q.shape), accumulate_into=dx)  # (1')
            return dx, grads_scale | grads_query | grads_key | grads_value

        return Pass(y, backward)

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights s_ji of all positions i for some positions j."""
        q, k = (flatten_positions(layers.conv(x, params, name)[0]) for name in ("query_conv", "key_conv"))
        s, _ = ops.softmax(ops.matmul(q[:, :, rows].swapaxes(1, 2), k)[0])
        return s
