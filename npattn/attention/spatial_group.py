"""Spatial group-wise enhance: groups of channels, each with a gate over the positions that are like its average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import choice, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, ones, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class SpatialGroupEnhance(Module):
    """Gate the positions of every group of channels by how like the group's average they are.

    The channels are cut into groups that follow each other, and each group is a map of its own. A position's similarity
    is the scalar product of its channels with their average over all positions; over the positions of an image it is
    brought to mean 0 and standard deviation 1, and scaled and shifted by two numbers that each group learns:
    y = x ⊙ σ(w t + b).

    Parameters
    ----------
    channels : int
        C, channels of the map.
    groups : int, default 64
        G, a divisor of C.
    variant : {"code", "paper"}, default "code"
        Whether squares are added up and divided by N - 1 or by N, the number of positions, for the deviation.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these, or `groups` does not divide `channels`.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["group"]``: (B, G, H, W), the gates. Parameters, named
    as in the authors' code: ``weight`` (1, G, 1, 1), from 0, and ``bias`` (1, G, 1, 1), from 1, so that all gates start
    at σ(1) = 0.731. On a map of one position every gate is σ(b), where the authors' code divides 0 by 0.

    References
    ----------
    Li, Hu, Yang: Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks, 2019,
    section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = SpatialGroupEnhance(channels=8, groups=2)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); group (2, 2, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'weight': (1, 2, 1, 1), 'bias': (1, 2, 1, 1)}
    """

    key: ClassVar = "sge"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="Spatial Group-wise Enhance: Improving Semantic Feature Learning in Convolutional Networks",
        authors="Li, Hu, Yang",
        venue="arXiv",
        year=2019,
        url="https://arxiv.org/abs/1905.09646",
    )

    channels: int = integer(least=1)
    groups: int = integer(least=1, default=64, divides="channels")
    variant: str = choice(("code", "paper"), default="code")

    @classmethod
    def example(cls) -> SpatialGroupEnhance:
        """Return a small instance: 32 channels in 8 groups."""
        return cls(channels=32, groups=8)

    def parameters(self) -> dict[str, Parameter]:
        """Declare each group's scale and shift."""
        return {"weight": zeros(1, self.groups, 1, 1), "bias": ones(1, self.groups, 1, 1)}

    def forward(self, params: Params, x: Array) -> Pass:
        """Average, compare, standardise, gate: group by group. The tags are the equation numbers of the derivation."""
        (batch, channels), size, correction = x.shape[:2], x.shape[2:], 1 if self.variant == "code" else 0
        v = x.reshape(batch * self.groups, channels // self.groups, *size)  # every group as an image of its own
        p, back_pool = ops.global_average_pool(v)                                       # (1)
        s, back_compare = ops.matmul(p[:, None], v.reshape(*p.shape, math.prod(size)))  # (2)
        t, back_z_score = ops.z_score(s, correction=correction)                         # (3)
        t = t.reshape(batch, self.groups, *size)
        z, back_affine = layers.affine(t, params, "weight", "bias")                     # (4)
        a, back_sigmoid = ops.sigmoid(z)                                                # (5)
        y, back_gate = ops.gate(v, a.reshape(len(v), 1, *size))                         # (6)

        def backward(dy):
            dv, da = back_gate(dy.reshape(v.shape))                                     # (6')
            dz = back_sigmoid(da.reshape(a.shape))                                      # (5')
            dt, grads = back_affine(dz)                                                 # (4')
            ds = back_z_score(dt.reshape(s.shape))                                      # (3')
            dp, dv_compared = back_compare(ds)                                          # (2')
            dv = ops.accumulate(dv_compared.reshape(v.shape), dv)
            dv = back_pool(dp[:, 0], accumulate_into=dv)                                # (1')
            return dv.reshape(x.shape), grads

        return Pass(y.reshape(x.shape), backward, attention={"group": a})
