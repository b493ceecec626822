"""Squeeze-and-excitation: a network looks at its channels' averages and decides how much of each channel to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import boolean, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, he_normal
from npattn.typing import Array, Params


@dataclass(frozen=True)
class SqueezeExcitation(Module):
    """Gate each channel by a two-layer network of all channels' averages.

    The squeeze averages every channel over its positions. The excitation, two fully connected layers with fewer
    channels between them, turns the averages into one gate in (0, 1) per channel, and the map is multiplied by the
    gates: p = mean x, a = σ(W₂ relu(W₁ p + b₁) + b₂), y = x ⊙ a.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; the hidden layer has max(1, C // r) channels.
    bias : bool, default True
        Whether the two layers have biases, as in torchvision; the authors' own code has none in some models.

    Raises
    ------
    TypeError
        If `channels` or `reduction` is no integer, or `bias` no bool.
    ValueError
        If `channels` or `reduction` is below 1.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C). Parameters, named as in
    torchvision's `SqueezeExcitation`: ``fc1.weight`` (C/r, C, 1, 1), ``fc1.bias`` (C/r,), ``fc2.weight``
    (C, C/r, 1, 1), ``fc2.bias`` (C,). Weights start from He's normal distribution, as in the paper; biases at 0.

    References
    ----------
    Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018: eq. 2 (squeeze), 3 (excitation), 4 (scale).

    Examples
    --------
    >>> import numpy as np
    >>> module = SqueezeExcitation(channels=8, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'fc1.weight': (2, 8, 1, 1), 'fc1.bias': (2,), 'fc2.weight': (8, 2, 1, 1), 'fc2.bias': (8,)}
    """

    key: ClassVar = "se"
    paper: ClassVar = Paper(
        title="Squeeze-and-Excitation Networks",
        authors="Hu, Shen, Sun",
        venue="CVPR",
        year=2018,
        url="https://arxiv.org/abs/1709.01507",
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)
    bias: bool = boolean(default=True)

    @classmethod
    def example(cls) -> SqueezeExcitation:
        """Return a small instance: 32 channels, 4 in the hidden layer."""
        return cls(channels=32, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """C/r, channels of the hidden layer."""
        return max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the two layers: C to C/r and back."""
        channels, hidden = self.channels, self.hidden_channels
        first = layers.conv_parameters("fc1", hidden, channels, initial=he_normal, bias=self.bias)
        return first | layers.conv_parameters("fc2", channels, hidden, initial=he_normal, bias=self.bias)

    def forward(self, params: Params, x: Array) -> Pass:
        """Squeeze, excite, scale. The tags are the equation numbers of the derivation."""
        p, back_pool = ops.global_average_pool(x)      # (1)
        h, back_fc1 = layers.linear(p, params, "fc1")  # (2)
        r, back_relu = ops.relu(h)                     # (3)
        z, back_fc2 = layers.linear(r, params, "fc2")  # (4)
        a, back_sigmoid = ops.sigmoid(z)               # (5)
        y, back_gate = ops.gate(x, a)                  # (6)

        def backward(dy):
            dx, da = back_gate(dy)                     # (6')
            dz = back_sigmoid(da)                      # (5')
            dr, grads_fc2 = back_fc2(dz)               # (4')
            dh = back_relu(dr)                         # (3')
            dp, grads_fc1 = back_fc1(dh)               # (2')
            dx = back_pool(dp, accumulate_into=dx)     # (1')
            return dx, grads_fc1 | grads_fc2

        return Pass(y, backward, attention={"channel": a})
