"""Flexible attention: each channel's gate looks at all channels' averages and at all channels' maxima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import ops
from npattn.checks import require_integers
from npattn.module import Module, Paper, Pass
from npattn.parameters import he_normal, zeros


@dataclass(frozen=True)
class FlexibleAttention(Module):
    """Gate each channel by a two-layer network of all channels' averages and maxima.

    Every channel is pooled over its positions twice, to its average p and to its maximum q. Two fully connected
    layers with a narrow middle, the same for both, take each to one number per channel; their sum decides the gate in
    (0, 1) by which the map is multiplied: a = σ(MLP(p) + MLP(q)), MLP(u) = W₂ relu(W₁ u + b₁) + b₂, y = x ⊙ a.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; the middle layer is max(1, C // r) wide.

    Raises
    ------
    TypeError
        If `channels` or `reduction` is no integer.
    ValueError
        If `channels` or `reduction` is below 1.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C), the gates. Parameters:
    ``fc1.weight`` (C/r, C), ``fc1.bias`` (C/r,), ``fc2.weight`` (C, C/r), ``fc2.bias`` (C,), which counts twice, since
    both pooled vectors pass through it. Published initial values are not known; weights start here from He's normal
    distribution, which suits the ReLU, and biases at 0.

    References
    ----------
    Called flexible attention, 柔性注意力, in a Chinese article. The published source of the mechanism is CBAM's channel
    gate: Woo et al.: CBAM: Convolutional Block Attention Module, ECCV 2018, eq. 2.

    Examples
    --------
    >>> module = FlexibleAttention(channels=8, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'fc1.weight': (2, 8), 'fc1.bias': (2,), 'fc2.weight': (8, 2), 'fc2.bias': (8,)}
    """

    key: ClassVar = "flexible"
    paper: ClassVar = Paper(
        title="CBAM: Convolutional Block Attention Module",
        authors="Woo, Park, Lee, Kweon",
        venue="ECCV",
        year=2018,
        url="https://arxiv.org/abs/1807.06521",
    )

    channels: int
    reduction: int = 16

    def __post_init__(self):
        require_integers(type(self).__name__, channels=self.channels, reduction=self.reduction)

    @classmethod
    def example(cls):
        """Return a small instance: 32 channels, 4 in the middle."""
        return cls(channels=32, reduction=8)

    def parameters(self):
        """Declare the two shared layers: C to C/r and back."""
        wide, narrow = self.channels, max(1, self.channels // self.reduction)
        return {
            "fc1.weight": he_normal(narrow, wide),
            "fc1.bias": zeros(narrow),
            "fc2.weight": he_normal(wide, narrow),
            "fc2.bias": zeros(wide),
        }

    def forward(self, params, x):
        """Pool twice, pass both through the same layers as one batch, add, gate."""
        batch = x.shape[0]
        (p, q), back_pools = ops.global_pools(x, ("avg", "max"))               # (1)
        u, back_stack = ops.concatenate([p, q], axis=0)                        # (2)
        h, back_fc1 = ops.linear(u, params["fc1.weight"], params["fc1.bias"])  # (3)
        r, back_relu = ops.relu(h)                                             # (4)
        v, back_fc2 = ops.linear(r, params["fc2.weight"], params["fc2.bias"])  # (5)
        z = v[:batch] + v[batch:]                                              # (6)
        a, back_sigmoid = ops.sigmoid(z)                                       # (7)
        y, back_gate = ops.gate(x, a)                                          # (8)

        def backward(dy):
            dx, da = back_gate(dy)                                             # (8')
            dz = back_sigmoid(da)                                              # (7')
            dv = np.concatenate([dz, dz])                                      # (6')
            dr, dw2, db2 = back_fc2(dv)                                        # (5')
            dh = back_relu(dr)                                                 # (4')
            du, dw1, db1 = back_fc1(dh)                                        # (3')
            dp, dq = back_stack(du)                                            # (2')
            dx = back_pools((dp, dq), accumulate_into=dx)                      # (1')
            return dx, {"fc1.weight": dw1, "fc1.bias": db1, "fc2.weight": dw2, "fc2.bias": db2}

        return Pass(y, backward, attention={"channel": a})
