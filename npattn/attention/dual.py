"""Dual attention: a segmentation head that looks at its map twice, position by position and channel by channel."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.attention.channel import ChannelAttention
from npattn.attention.position import PositionAttention
from npattn.fields import boolean, choice, integer, probability, two_integers
from npattn.module import Module, Pass
from npattn.parameters import Parameter, add_prefix
from npattn.typing import Array, Backward, Params


def classify(
    x: Array, params: Params, name: str, *, mask: Array | None, rate: float, size: tuple[int, int] | None
) -> tuple[Array, Backward]:
    """Drop channels, score every position, resize the scores; without a mask or a size that step is left out."""
    if mask is not None:
        x, back_drop = ops.dropout(x, mask, rate)                          # (1)
    y, back_conv = layers.conv(x, params, f"{name}.1")                     # (2)
    if size is not None:
        y, back_resize = ops.resize_bilinear(y, size, align_corners=True)  # (3)

    def backward(dy):
        if size is not None:
            dy = back_resize(dy)                                           # (3')
        dx, grads = back_conv(dy)                                          # (2')
        if mask is not None:
            dx = back_drop(dx)                                             # (1')
        return dx, grads

    return y, backward


@dataclass(frozen=True)
class DualAttentionHead(Module):
    """Score every position for every class, from features mixed over positions and features mixed over channels.

    Two branches reduce the map to a quarter of its channels by a 3×3 convolution with batch norm and ReLU. One passes
    `PositionAttention`, the other `ChannelAttention`, each another such layer. Classifiers, 1×1 convolutions behind
    dropout, read the sum of the two, which is the prediction, and each by itself, for the losses that help training.

    Parameters
    ----------
    in_channels : int
        C, channels of the map.
    classes : int
        K.
    dropout : float, default 0.1
        Probability with which a channel is dropped before a classifier in training.
    variant : {"paper", "code"}, default "paper"
        Of the channel attention; released checkpoints need "code".
    training : bool, default False
        Whether batch norm uses the batch's own statistics, ``run.buffers`` holds the new running ones, and channels are
        dropped: the keep masks are inputs then.
    size : pair of int, optional
        Height and width to which the three outputs are resized, bilinearly with aligned corners.

    Raises
    ------
    TypeError
        If `in_channels`, `classes` or one of `size` is no integer, `dropout` no number, `variant` no string or
        `training` no bool.
    ValueError
        If an integer is below 1, `dropout` is not from 0 to below 1, `variant` is another string, or `size` is no pair;
        when called in training, if the batch has fewer than two positions.

    Notes
    -----
    Input ``x``: (B, C, H, W); in training also ``drop6``, ``drop7``, ``drop8``: (B, M) with M = max(1, C // 4), of 1,
    which keeps a channel, and 0; backward returns None for them. Output: a tuple of three, each (B, K, H, W): the fused
    scores, those of the position branch and those of the channel branch. ``attention["branch"]``: (B, M, H, W), the map
    whose channels are compared; ``attention["affinity"]``: (B, M, M), their affinities.

    Parameters, named as in the authors' code. The branches: ``conv5a.0.weight`` and ``conv5c.0.weight`` (M, C, 3, 3),
    ``conv51.0.weight`` and ``conv52.0.weight`` (M, M, 3, 3), each with a norm beside it, ``conv5a.1.weight``,
    ``conv5a.1.bias``, ``conv5c.1.weight``, ``conv5c.1.bias``, ``conv51.1.weight``, ``conv51.1.bias``,
    ``conv52.1.weight``, ``conv52.1.bias`` (M,), and its running statistics; `PositionAttention`: ``sa.gamma``,
    ``sa.query_conv.weight``, ``sa.query_conv.bias``, ``sa.key_conv.weight``, ``sa.key_conv.bias``,
    ``sa.value_conv.weight``, ``sa.value_conv.bias``; `ChannelAttention`: ``sc.gamma``; the classifiers of the position
    branch, the channel branch and the sum: ``conv6.1.weight``, ``conv7.1.weight``, ``conv8.1.weight`` (K, M, 1, 1),
    ``conv6.1.bias``, ``conv7.1.bias``, ``conv8.1.bias`` (K,).

    References
    ----------
    Fu et al.: Dual Attention Network for Scene Segmentation, CVPR 2019, section 3.4.

    Examples
    --------
    >>> module = DualAttentionHead(in_channels=16, classes=5)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> [y.shape for y in run.output]
    [(2, 5, 7, 5), (2, 5, 7, 5), (2, 5, 7, 5)]
    >>> dx, grads = run.backward(run.output)
    >>> grads["conv51.0.weight"].shape
    (4, 4, 3, 3)
    """

    key: ClassVar = "danet"
    family: ClassVar = "self-attention"
    paper: ClassVar = PositionAttention.paper
    pairs_positions: ClassVar = True
    without_gradient: ClassVar = ("drop6", "drop7", "drop8")

    in_channels: int = integer(least=1)
    classes: int = integer(least=1)
    dropout: float = probability(default=0.1)
    variant: str = choice(("paper", "code"), default="paper")
    training: bool = boolean(default=False)
    size: tuple[int, int] | None = two_integers(default=None)

    @classmethod
    def example(cls) -> DualAttentionHead:
        """Return a small instance: 16 channels, 4 in each branch, 5 classes."""
        return cls(in_channels=16, classes=5)

    @property
    def channels(self) -> int:
        """C, by the name that other systems give it."""
        return self.in_channels

    @property
    def branch_channels(self) -> int:
        """M, channels of each branch."""
        return max(1, self.in_channels // 4)

    @property
    def position(self) -> PositionAttention:
        """The attention over positions."""
        return PositionAttention(self.branch_channels)

    @property
    def channel(self) -> ChannelAttention:
        """The attention over channels."""
        return ChannelAttention(self.branch_channels, self.variant)

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the map and, in training, of the keep masks."""
        shapes = super().input_shapes(batch, height, width)
        masks = dict.fromkeys(("drop6", "drop7", "drop8"), (batch, self.branch_channels))
        return shapes | masks if self.training else shapes

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the three scores."""
        return {f"output.{i}": (batch, self.classes, *(self.size or (height, width))) for i in range(3)}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw keep masks of 0 and 1, the map as elsewhere."""
        if name == "x":
            return super().draw_input(name, shape, random)
        return random.randint(0, 2, shape).astype(float)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers in the order of the authors' code."""
        branch = self.branch_channels
        return {
            **layers.conv_norm_act_parameters("conv5a", branch, self.in_channels, kernel_size=3),
            **layers.conv_norm_act_parameters("conv5c", branch, self.in_channels, kernel_size=3),
            **add_prefix("sa.", self.position.parameters()),
            **add_prefix("sc.", self.channel.parameters()),
            **layers.conv_norm_act_parameters("conv51", branch, branch, kernel_size=3),
            **layers.conv_norm_act_parameters("conv52", branch, branch, kernel_size=3),
            **layers.conv_parameters("conv6.1", self.classes, branch),
            **layers.conv_parameters("conv7.1", self.classes, branch),
            **layers.conv_parameters("conv8.1", self.classes, branch),
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of the four norms."""
        return {
            **layers.conv_norm_act_buffers("conv5a", self.branch_channels),
            **layers.conv_norm_act_buffers("conv5c", self.branch_channels),
            **layers.conv_norm_act_buffers("conv51", self.branch_channels),
            **layers.conv_norm_act_buffers("conv52", self.branch_channels),
        }

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array, *masks: Array) -> Pass:
        """Reduce, attend, filter, classify. The tags are the equation numbers of the derivation."""
        drop6, drop7, drop8 = masks or (None, None, None)
        layer = functools.partial(layers.conv_norm_act, params=params, training=self.training)
        scores = functools.partial(classify, params=params, rate=self.dropout, size=self.size)

        (a, running_5a), back_5a = layer(x, name="conv5a")                   # (4)
        position = layers.submodule(self.position.forward, params, "sa", a)  # (5)
        (u, running_51), back_51 = layer(position.output, name="conv51")     # (6)
        (c, running_5c), back_5c = layer(x, name="conv5c")                   # (7)
        channel = layers.submodule(self.channel.forward, params, "sc", c)    # (8)
        (v, running_52), back_52 = layer(channel.output, name="conv52")      # (9)
        f, back_fuse = ops.add(u, v)                                         # (10)
        y8, back_8 = scores(f, name="conv8", mask=drop8)                     # (11)
        y6, back_6 = scores(u, name="conv6", mask=drop6)                     # (12)
        y7, back_7 = scores(v, name="conv7", mask=drop7)                     # (13)

        def backward(dy):
            dy8, dy6, dy7 = dy
            dv, grads_7 = back_7(dy7)                                        # (13')
            du, grads_6 = back_6(dy6)                                        # (12')
            df, grads_8 = back_8(dy8)                                        # (11')
            df_u, df_v = back_fuse(df)
            du, dv = ops.add(du, df_u)[0], ops.add(dv, df_v)[0]              # (10')
            dq, grads_52 = back_52(dv)                                       # (9')
            dc, grads_sc = channel.backward(dq)                              # (8')
            dx_c, grads_5c = back_5c(dc)                                     # (7')
            dp, grads_51 = back_51(du)                                       # (6')
            da, grads_sa = position.backward(dp)                             # (5')
            dx_a, grads_5a = back_5a(da)                                     # (4')
            dx, _ = ops.add(dx_c, dx_a)
            branches = grads_5a | grads_5c | grads_sa | grads_sc | grads_51 | grads_52
            dx = (dx, *(None for _ in masks)) if masks else dx
            return dx, branches | grads_6 | grads_7 | grads_8

        buffers = running_5a | running_5c | running_51 | running_52
        return Pass((y8, y6, y7), backward, attention={"branch": c, **channel.attention}, buffers=buffers)
