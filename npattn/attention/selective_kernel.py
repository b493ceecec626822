"""Selective kernels: branches read a map through kernels of different size, and each channel chooses among them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.calls import require_several_images
from npattn.checks import require_equal_shares
from npattn.fields import boolean, choice, integer, integers
from npattn.module import Module, Paper, Pass
from npattn.ops.elementwise import ACTIVATIONS
from npattn.parameters import Parameter, norm_buffers, norm_parameters, round_channels
from npattn.typing import Array, Params

BRANCH_PARTS = "conv", "bn"
"""What timm calls convolution and norm of a branch."""


class BranchChoice(Module):
    """What selective kernels and split attention share: channels and sizes of what their convolutions give."""

    in_channels: int
    out_channels: int | None
    stride: int

    @property
    def channels(self) -> int:
        """C, by the name that other systems give it."""
        return self.in_channels

    @property
    def output_channels(self) -> int:
        """O, channels of the result: `out_channels`, or C."""
        return self.out_channels or self.in_channels

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the result."""
        return {"output": (batch, self.output_channels, -(-height // self.stride), -(-width // self.stride))}


@dataclass(frozen=True)
class SelectiveKernel(BranchChoice):
    """Read a map through kernels of several sizes, and let each channel choose among what they give.

    Each branch is a convolution with batch norm and rectifier. The sum of the branches, averaged over the positions and
    passed through two layers, says for each channel how much of which branch it takes: weights that a softmax over the
    branches makes, a_m. Then y = Σ_m a_m ⊙ u_m.

    Parameters
    ----------
    in_channels : int
        C, channels of the map.
    out_channels : int, optional
        O, channels of the result; by default C.
    kernel_sizes : sequence of int, default (3, 5)
        Of the branches, odd.
    dilated : bool, default True
        Whether kernels larger than 3 are 3×3 with taps that lie apart, (k - 1)/2 positions, and span as much.
    split_input : bool, default True
        Whether each branch reads channels of its own; else each reads all.
    stride : int, default 1
        Step between the positions of the result.
    groups : int, default 1
        Groups of the convolutions: a divisor of O, and of how many channels a branch reads.
    reduction : int, default 16
        r; between the two layers there are O/r channels, rounded to a multiple of 8, at least 8.
    hidden : int, optional
        Channels between the two layers, in place of that.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        The branches' rectifier.
    training : bool, default False
        Whether batch norm takes the batch's statistics and hands back new running ones.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if C, where it is split, is no multiple of the number of branches, or if
        the groups do not divide what a branch reads and O; when called in training with a single image.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, O, ⌈H/stride⌉, ⌈W/stride⌉). ``attention["branch_weights"]``: (B, M, O), for
    M branches. Parameters, named as in timm: those of the branches, ``paths.0.conv.weight``, ``paths.0.bn.weight``,
    ``paths.0.bn.bias``, ``paths.1.conv.weight``, ``paths.1.bn.weight``, ``paths.1.bn.bias`` and so on, with the norms'
    running statistics; ``attn.fc_reduce.weight`` (hidden, O, 1, 1), ``attn.bn.weight`` and ``attn.bn.bias`` (hidden,)
    with running statistics, ``attn.fc_select.weight`` (M O, hidden, 1, 1).

    References
    ----------
    Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> module = SelectiveKernel(in_channels=8)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); branch_weights (2, 2, 8))
    >>> dx, grads = run.backward(run.output)
    >>> grads["attn.fc_select.weight"].shape
    (16, 8, 1, 1)
    """

    key: ClassVar = "sk"
    family: ClassVar = "channel"
    paper: ClassVar = Paper(
        title="Selective Kernel Networks",
        authors="Li, Wang, Hu, Yang",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1903.06586",
    )

    in_channels: int = integer(least=1)
    out_channels: int | None = integer(least=1, default=None)
    kernel_sizes: tuple[int, ...] = integers(least=1, default=(3, 5), odd=True)
    dilated: bool = boolean(default=True)
    split_input: bool = boolean(default=True)
    stride: int = integer(least=1, default=1)
    groups: int = integer(least=1, default=1)
    reduction: int = integer(least=1, default=16)
    hidden: int | None = integer(least=1, default=None)
    activation: str = choice(ACTIVATIONS, default="relu")
    training: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, channels that can't be cut so."""
        super().__post_init__()
        if self.in_channels % self.parts:
            raise ValueError(
                f"SelectiveKernel: in_channels={self.in_channels} can't be split among {self.parts} branches; expected "
                f"a multiple of {self.parts}, or split_input=False"
            )
        for name, channels in (("read_channels", self.read_channels), ("out_channels", self.output_channels)):
            require_equal_shares("SelectiveKernel", "groups", self.groups, name, channels)

    @classmethod
    def example(cls) -> SelectiveKernel:
        """Return a small instance: 8 channels, kernels of 3×3 with taps one and two positions apart."""
        return cls(in_channels=8)

    @property
    def parts(self) -> int:
        """Parts that the input is cut into: one for each branch, or one for all."""
        return len(self.kernel_sizes) if self.split_input else 1

    @property
    def read_channels(self) -> int:
        """Channels that a branch reads."""
        return self.in_channels // self.parts

    @property
    def hidden_channels(self) -> int:
        """Channels between the two layers."""
        return self.hidden or round_channels(self.output_channels / self.reduction)

    @property
    def kernels(self) -> list[tuple[int, int]]:
        """Of each branch: the kernel's size, and how far its taps lie apart."""
        return [(3, k // 2) if self.dilated and k > 3 else (k, 1) for k in self.kernel_sizes]

    def parameters(self) -> dict[str, Parameter]:
        """Declare the branches, and the layers that choose, in the order of timm's code."""
        declared: dict[str, Parameter] = {}
        for i, (size, _) in enumerate(self.kernels):
            read = self.read_channels // self.groups
            shape = self.output_channels, read, size
            declared |= layers.conv_norm_act_parameters(f"paths.{i}", *shape, parts=BRANCH_PARTS)
        declared |= layers.conv_parameters("attn.fc_reduce", self.hidden_channels, self.output_channels, bias=False)
        declared |= norm_parameters("attn.bn", self.hidden_channels)
        select = len(self.kernels) * self.output_channels, self.hidden_channels
        return declared | layers.conv_parameters("attn.fc_select", *select, bias=False)

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of all norms."""
        declared: dict[str, Parameter] = {}
        for i, _ in enumerate(self.kernels):
            declared |= layers.conv_norm_act_buffers(f"paths.{i}", self.output_channels, parts=BRANCH_PARTS)
        return declared | norm_buffers("attn.bn", self.hidden_channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a single image in training, of which the norm behind the pool sees one value a channel."""
        super().check_inputs(inputs)
        require_several_images(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Split, read, fuse, select. The tags are the equation numbers of the derivation."""
        branch = functools.partial(
            layers.conv_norm_act,
            params=params,
            training=self.training,
            parts=BRANCH_PARTS,
            activation=self.activation,
            stride=self.stride,
            groups=self.groups,
        )
        dilations = [apart for _, apart in self.kernels]
        count, v = len(dilations), [x] * len(dilations)
        if self.split_input:
            v, back_split = ops.split(x, [self.read_channels] * count, axis=1)                     # (1)
        results = [branch(v[m], name=f"paths.{m}", dilation=d) for m, d in enumerate(dilations)]   # (2)
        maps, backs_branch = zip(*results, strict=True)
        u, runnings = zip(*maps, strict=True)
        t, back_sum = ops.add(*u)                                                                  # (3)
        p, back_pool = ops.global_average_pool(t)                                                  # (4)
        h, back_reduce = layers.linear(p, params, "attn.fc_reduce")                                # (5)
        h = h[:, :, None, None]
        (n, running), back_norm = layers.batch_norm(h, params, "attn.bn", training=self.training)  # (6)
        r, back_relu = ops.relu(n[:, :, 0, 0])                                                     # (7)
        z, back_select = layers.linear(r, params, "attn.fc_select")                                # (8)
        a, back_softmax = ops.softmax(z.reshape(len(x), count, self.output_channels), axis=1)      # (9)
        gated = [ops.gate(u[m], a[:, m]) for m in range(count)]                                    # (10)
        weighed, backs_gate = zip(*gated, strict=True)
        y, back_mix = ops.add(*weighed)                                                            # (11)

        def backward(dy):
            dweighed = back_mix(dy)                                                                # (11')
            gradients = [back(d) for back, d in zip(backs_gate, dweighed, strict=True)]            # (10')
            du, da = zip(*gradients, strict=True)
            dz = back_softmax(np.stack(da, axis=1))                                                # (9')
            dr, grads_select = back_select(dz.reshape(z.shape))                                    # (8')
            dn = back_relu(dr)                                                                     # (7')
            dh, grads_norm = back_norm(dn[:, :, None, None])                                       # (6')
            dp, grads_reduce = back_reduce(dh[:, :, 0, 0])                                         # (5')
            dt = back_pool(dp)                                                                     # (4')
            du = [ops.accumulate(d, share) for d, share in zip(du, back_sum(dt), strict=True)]     # (3')
            gradients = [back(d) for back, d in zip(backs_branch, du, strict=True)]                # (2')
            dv, grads = zip(*gradients, strict=True)
            if self.split_input:
                dx = back_split(dv)                                                                # (1')
            else:
                dx, _ = ops.add(*dv)
            return dx, layers.merge(*grads, grads_reduce, grads_norm, grads_select)

        return Pass(y, backward, attention={"branch_weights": a}, buffers=layers.merge(*runnings, running))
