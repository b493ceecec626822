"""Efficient channel attention: each channel's gate looks at that channel's average and at its neighbours' alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import integer, number
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, uniform_fan_in
from npattn.typing import Array, Params


@dataclass(frozen=True)
class EfficientChannelAttention(Module):
    """Gate each channel by a short convolution across the channels' averages.

    Every channel is averaged over its positions, one kernel of width k slides along the channels, and the map is
    multiplied by the result's sigmoid: a = σ(conv_k(mean x)), y = x ⊙ a. There is no bottleneck, so no channel's
    average passes through a smaller layer, and k weights are all the parameters.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    kernel_size : int, optional
        k, odd. By default `adaptive_kernel_size` chooses it from C; `num_taps` tells the one in use.
    gamma, b : float, default 2, 1
        Slope and offset of that choice.

    Raises
    ------
    TypeError
        If `channels` or `kernel_size` is no integer, or `gamma` or `b` no number.
    ValueError
        If `channels` is below 1, `kernel_size` is even or below 1, `gamma` is 0, `gamma` or `b` is not finite, or the
        kernel that they choose would have more than a million taps.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C). Parameter, named as in the
    authors' code: ``conv.weight`` (1, 1, k), without bias, which starts as that code's `Conv1d` does, uniform in ±1/√k.
    Convolution means cross-correlation; beyond the first and the last channel it reads zeros.

    References
    ----------
    Wang et al.: ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks, CVPR 2020,
    section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> module = EfficientChannelAttention(channels=64)
    >>> module.num_taps
    3
    >>> run = module(module.init(seed=0), np.ones((2, 64, 7, 5)))
    >>> dx, grads = run.backward(np.ones((2, 64, 7, 5)))
    >>> grads["conv.weight"].shape
    (1, 1, 3)
    """

    key: ClassVar = "eca"
    family: ClassVar = "channel"
    paper: ClassVar = Paper(
        title="ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks",
        authors="Wang, Wu, Zhu, Li, Zuo, Hu",
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/1910.03151",
    )

    channels: int = integer(least=1)
    kernel_size: int | None = integer(least=1, default=None, odd=True)
    gamma: float = number(default=2, nonzero=True)
    b: float = number(default=1)

    def __post_init__(self) -> None:
        """Refuse, besides, a slope and offset that no memory holds the kernel of."""
        super().__post_init__()
        if abs(math.log2(self.channels) + self.b) > 1e6 * abs(self.gamma):
            raise ValueError(
                f"{type(self).__name__}: gamma={self.gamma}, b={self.b}; expected a kernel of at most a million taps"
            )

    @classmethod
    def example(cls) -> EfficientChannelAttention:
        """Return a small instance: 32 channels, k = 3."""
        return cls(channels=32)

    @property
    def num_taps(self) -> int:
        """The kernel's width k: `kernel_size`, or the adaptive choice."""
        return self.kernel_size or adaptive_kernel_size(self.channels, self.gamma, self.b)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the one kernel."""
        return {"conv.weight": uniform_fan_in(1, 1, self.num_taps)}

    def forward(self, params: Params, x: Array) -> Pass:
        """Average, convolve across channels, gate. The tags are the equation numbers of the derivation."""
        p, back_pool = ops.global_average_pool(x)        # (1)
        z, back_conv = layers.conv1d(p, params, "conv")  # (2)
        a, back_sigmoid = ops.sigmoid(z)                 # (3)
        y, back_gate = ops.gate(x, a)                    # (4)

        def backward(dy):
            dx, da = back_gate(dy)                       # (4')
            dz = back_sigmoid(da)                        # (3')
            dp, grads = back_conv(dz)                    # (2')
            dx = back_pool(dp, accumulate_into=dx)       # (1')
            return dx, grads

        return Pass(y, backward, attention={"channel": a})


def adaptive_kernel_size(channels: int, gamma: float = 2, b: float = 1) -> int:
    """Choose k from C: the odd number that belongs to log₂(C)/γ + b/γ (ECA-Net, section 3.2).

    The paper asks for the nearest odd number. The code in its figure 3, followed here, cuts off the fraction and adds
    1 to what is then even.

    Examples
    --------
    >>> [adaptive_kernel_size(channels) for channels in (64, 128, 256, 512, 2048)]
    [3, 5, 5, 5, 7]
    """
    t = int(abs((math.log2(channels) + b) / gamma))
    return t if t % 2 else t + 1
