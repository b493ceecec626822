"""Shuffle attention: in every group of channels half are gated by channel, half by position, then all are shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention_maps import MapsOnDemand
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_parameters, ones, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class ShuffleAttention(Module):
    """Cut the channels into groups; gate half of a group by its averages, the other half by its normalised map.

    Every group is worked on alike, with the same few parameters. Its first half, c channels, has a gate for each
    channel, σ(w p + b) of the channel's average p. Its second half has a gate for each position of each channel,
    σ(w' n + b') of the map n that group norm makes of the channel. The halves of all groups are joined again, and the
    channels of the two halves of the map dealt out in turn, so that the next layers' groups see both.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    groups : int, default 64
        G; 2 G divides C. The authors have 64, for maps of 256 channels and more.

    Raises
    ------
    TypeError
        If a hyperparameter is no integer.
    ValueError
        If one is below 1, or C no multiple of 2 G.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["gate"]``: (B, C, H, W), before the shuffle.
    Parameters, named as in the authors' code, with c = C / (2 G): ``cweight``, ``cbias``, ``sweight``, ``sbias``
    (1, c, 1, 1), which start at 0, 1, 0, 1, and ``gn.weight``, ``gn.bias`` (c,).

    References
    ----------
    Zhang, Yang: SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, ICASSP 2021, section 3.

    Examples
    --------
    >>> module = ShuffleAttention(channels=16, groups=4)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 16, 7, 5); gate (2, 16, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["cweight"].shape
    (1, 2, 1, 1)
    """

    key: ClassVar = "shuffle"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="SA-Net: Shuffle Attention for Deep Convolutional Neural Networks",
        authors="Zhang, Yang",
        venue="ICASSP",
        year=2021,
        url="https://arxiv.org/abs/2102.00240",
    )

    channels: int = integer(least=1)
    groups: int = integer(least=1, default=64)

    def __post_init__(self) -> None:
        """Refuse, besides, channels that can't be cut into halves of groups."""
        super().__post_init__()
        if self.channels % (2 * self.groups):
            raise ValueError(
                f"ShuffleAttention: groups={self.groups}; expected a divisor of half of channels={self.channels}: each "
                f"group is cut in two, so channels must be a multiple of {2 * self.groups}"
            )

    @classmethod
    def example(cls) -> ShuffleAttention:
        """Return a small instance: 32 channels in 4 groups."""
        return cls(channels=32, groups=4)

    def parameters(self) -> dict[str, Parameter]:
        """Declare what all groups share, in the order of the authors' code."""
        c = self.channels // (2 * self.groups)
        shape = 1, c, 1, 1
        scales = {"cweight": zeros(*shape), "cbias": ones(*shape), "sweight": zeros(*shape), "sbias": ones(*shape)}
        return scales | norm_parameters("gn", c)

    def forward(self, params: Params, x: Array) -> Pass:
        """Cut, gate, join, shuffle. The tags are the equation numbers of the derivation."""
        batch, channels, *size = x.shape
        c = channels // (2 * self.groups)
        groups = x.reshape(batch * self.groups, 2 * c, *size)
        (v, u), back_cut = ops.split(groups, (c, c), axis=1)                             # (1)
        p, back_pool = ops.global_average_pool(v)                                        # (2)
        s, back_affine = layers.affine(p[:, :, None, None], params, "cweight", "cbias")  # (3)
        a, back_sigmoid = ops.sigmoid(s[:, :, 0, 0])                                     # (4)
        r, back_gate = ops.gate(v, a)                                                    # (5)
        n, back_norm = layers.group_norm(u, params, "gn", c)                             # (6)
        t, back_affine_map = layers.affine(n, params, "sweight", "sbias")                # (7)
        e, back_sigmoid_map = ops.sigmoid(t)                                             # (8)
        q, back_gate_map = ops.gate(u, e)                                                # (9)
        y, back_deal = ops.concatenate_and_shuffle((r, q), self.groups, 2)               # (10)

        def backward(dy):
            dr, dq = back_deal(dy)                                                       # (10')
            du, de = back_gate_map(dq)                                                   # (9')
            dt = back_sigmoid_map(de)                                                    # (8')
            del dq, de  # here and below no map is held longer than it is needed
            dn, grads_map = back_affine_map(dt)                                          # (7')
            del dt
            du, grads_norm = back_norm(dn, accumulate_into=du)                           # (6')
            del dn
            dv, da = back_gate(dr)                                                       # (5')
            del dr
            ds = back_sigmoid(da)                                                        # (4')
            dp, grads = back_affine(ds[:, :, None, None])                                # (3')
            dv = back_pool(dp[:, :, 0, 0], accumulate_into=dv)                           # (2')
            dx = back_cut((dv, du))                                                      # (1')
            return dx.reshape(x.shape), layers.merge(grads, grads_map, grads_norm)

        def gate():
            gates, _ = ops.concatenate((np.broadcast_to(a[:, :, None, None], v.shape), e), axis=1)
            return gates.reshape(x.shape)

        return Pass(y, backward, attention=MapsOnDemand(gate=gate))
