"""Flexible attention: each channel's gate looks at all channels' averages and at all channels' maxima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention.cbam import PAPER
from npattn.fields import integer
from npattn.module import Module, Pass
from npattn.parameters import Parameter, he_normal
from npattn.typing import Array, Params


@dataclass(frozen=True)
class FlexibleAttention(Module):
    """Gate each channel by a two-layer network of all channels' averages and maxima.

    Every channel is pooled over its positions twice, to its average p and to its maximum q. Two fully connected layers,
    the same for both, take each to one number per channel; their sum decides the gate in (0, 1) by which the map is
    multiplied: a = σ(MLP(p) + MLP(q)), MLP(u) = W₂ relu(W₁ u + b₁) + b₂, y = x ⊙ a.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; the hidden layer has max(1, C // r) channels.

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
    family: ClassVar = "channel"
    paper: ClassVar = PAPER

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)

    @classmethod
    def example(cls) -> FlexibleAttention:
        """Return a small instance: 32 channels, 4 in the hidden layer."""
        return cls(channels=32, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """C/r, channels of the hidden layer."""
        return max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the two shared layers: C to C/r and back."""
        channels, hidden = self.channels, self.hidden_channels
        first = layers.linear_parameters("fc1", hidden, channels, initial=he_normal)
        return first | layers.linear_parameters("fc2", channels, hidden, initial=he_normal)

    def forward(self, params: Params, x: Array) -> Pass:
        """Pool twice, pass both through the same layers as one batch, add, gate."""
        batch = x.shape[0]
        (p, q), back_pools = ops.global_pools(x, ("avg", "max"))  # (1)
        u, back_stack = ops.concatenate([p, q], axis=0)           # (2)
        h, back_fc1 = layers.linear(u, params, "fc1")             # (3)
        r, back_relu = ops.relu(h)                                # (4)
        v, back_fc2 = layers.linear(r, params, "fc2")             # (5)
        z = v[:batch] + v[batch:]                                 # (6)
        a, back_sigmoid = ops.sigmoid(z)                          # (7)
        y, back_gate = ops.gate(x, a)                             # (8)

        def backward(dy):
            dx, da = back_gate(dy)                                # (8')
            dz = back_sigmoid(da)                                 # (7')
            dv = np.concatenate([dz, dz])                         # (6')
            dr, grads_fc2 = back_fc2(dv)                          # (5')
            dh = back_relu(dr)                                    # (4')
            du, grads_fc1 = back_fc1(dh)                          # (3')
            dp, dq = back_stack(du)                               # (2')
            dx = back_pools((dp, dq), accumulate_into=dx)         # (1')
            return dx, grads_fc1 | grads_fc2

        return Pass(y, backward, attention={"channel": a})
