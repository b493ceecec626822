"""Efficient attention: softmaxes on queries and keys apart, so that work grows as the number of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.checks import require_equal_shares
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter
from npattn.typing import Array, Params


@dataclass(frozen=True)
class EfficientAttention(Module):
    """Add to every position a mixture of contexts that keys have gathered from the whole map.

    In softmax attention the softmax is taken of products of queries and keys. Here it is taken of the keys, over the
    positions, and of the queries, over their channels: each channel of the keys is a map that gathers one context of
    the values, and each query mixes these. The two products can then be taken in the cheaper order, without weights of
    every position for every position. Heads do so beside each other.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    heads : int, default 1
        h, which share the channels of keys and values.
    key_channels, value_channels : int, optional
        Channels of queries and keys, and of values: multiples of h, by default C/2 or the next one below, at least h.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these, or the heads don't share the channels evenly.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["gather"]``: (B, K, H, W), the keys' weights, each
    channel's over the positions; ``attention["distribute"]``: (B, K, H, W), the queries', each position's over the
    channels of a head. Parameters, named as in the authors' code: ``keys.weight`` (K, C, 1, 1) and ``keys.bias`` (K,),
    ``queries.weight`` (K, C, 1, 1) and ``queries.bias`` (K,), ``values.weight`` (V, C, 1, 1) and ``values.bias`` (V,),
    ``reprojection.weight`` (C, V, 1, 1) and ``reprojection.bias`` (C,). They start as that code's `Conv2d` do, uniform
    in ±1/√fan-in.

    References
    ----------
    Shen, Zhang, Zhao, Yi, Li: Efficient Attention: Attention with Linear Complexities, WACV 2021, eq. 3 and 4, section
    3.2.

    Examples
    --------
    >>> import numpy as np
    >>> module = EfficientAttention(channels=8, heads=2)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); gather (2, 4, 7, 5); distribute (2, 4, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> list(grads)[::2]
    ['keys.weight', 'queries.weight', 'values.weight', 'reprojection.weight']
    """

    key: ClassVar = "linear"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Efficient Attention: Attention with Linear Complexities",
        authors="Shen, Zhang, Zhao, Yi, Li",
        venue="WACV",
        year=2021,
        url="https://arxiv.org/abs/1812.01243",
    )

    channels: int = integer(least=1)
    heads: int = integer(least=1, default=1)
    key_channels: int | None = integer(least=1, default=None)
    value_channels: int | None = integer(least=1, default=None)

    def __post_init__(self) -> None:
        """Refuse, besides, channels that the heads don't share evenly."""
        super().__post_init__()
        for name in ("key_channels", "value_channels"):
            value = getattr(self, name)
            if value is not None:
                require_equal_shares(type(self).__name__, "heads", self.heads, name, value)

    @classmethod
    def example(cls) -> EfficientAttention:
        """Return a small instance: 16 channels, 2 heads of 3 and 4 channels."""
        return cls(channels=16, heads=2, key_channels=6, value_channels=8)

    @property
    def half(self) -> int:
        """Channels of keys and of values where none are given: C/2, as a multiple of the heads."""
        return max(1, self.channels // 2 // self.heads) * self.heads

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers that make keys, queries and values, and the one that leads back."""
        keys, values = self.key_channels or self.half, self.value_channels or self.half
        return {
            **layers.conv_parameters("keys", keys, self.channels),
            **layers.conv_parameters("queries", keys, self.channels),
            **layers.conv_parameters("values", values, self.channels),
            **layers.conv_parameters("reprojection", self.channels, values),
        }

    def forward(self, params: Params, x: Array) -> Pass:
        """Make keys, queries and values, weigh, gather, distribute, lead back, add. The tags are the derivation's."""
        heads, positions = self.heads, x.shape[2] * x.shape[3]
        (z, u, v), back_layers = layers.project(x, params, ("keys", "queries", "values"))  # (1)
        z_of_heads, u_of_heads, v_of_heads = (
            a.reshape(len(x), heads, a.shape[1] // heads, positions) for a in (z, u, v)
        )
        k, back_gather = ops.softmax(z_of_heads, axis=3)                                   # (2)
        q, back_distribute = ops.softmax(u_of_heads, axis=2)                               # (3)
        o, back_attention = ops.linear_attention(q, k, v_of_heads)                         # (4)
        e, back_last = layers.conv(o.reshape(v.shape), params, "reprojection")             # (5)
        y, back_add = ops.add(x, e)                                                        # (6)

        def backward(dy):
            dx, de = back_add(dy)                                                          # (6')
            do, grads_last = back_last(de)                                                 # (5')
            dq, dk, dv = back_attention(do.reshape(o.shape))                               # (4')
            du = back_distribute(dq)                                                       # (3')
            dz = back_gather(dk)                                                           # (2')
            parts = dz.reshape(z.shape), du.reshape(u.shape), dv.reshape(v.shape)
            dx, grads = back_layers(parts, accumulate_into=dx)                             # (1')
            return dx, grads | grads_last

        return Pass(y, backward, attention={"gather": k.reshape(z.shape), "distribute": q.reshape(u.shape)})
