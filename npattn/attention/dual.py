"""Dual attention: a segmentation head that looks at its map twice, position by position and channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import ops
from npattn.attention.channel import ChannelAttention
from npattn.attention.position import PositionAttention
from npattn.checks import check_variance, require_booleans, require_integers, require_numbers
from npattn.module import Module, Paper, Pass
from npattn.parameters import add_prefix, norm_buffers, norm_parameters, strip_prefix, uniform_fan_in


def filter_map(params, x, training):
    """Convolve by 3×3 kernels, normalise, rectify: one layer of a branch."""
    z, back_conv = ops.conv2d(x, params["0.weight"], padding=1)             # (1)
    norm = strip_prefix("1.", params)
    (n, running), back_norm = ops.batch_norm(z, **norm, training=training)  # (2)
    r, back_relu = ops.relu(n)                                              # (3)

    def backward(dr):
        dn = back_relu(dr)                                                  # (3')
        dz, dweight, dbias = back_norm(dn)                                  # (2')
        dx, dkernel, _ = back_conv(dz)                                      # (1')
        return dx, {"0.weight": dkernel, "1.weight": dweight, "1.bias": dbias}

    buffers = dict(zip(("1.running_mean", "1.running_var"), running, strict=True)) if training else {}
    return Pass(r, backward, buffers=buffers)


def classify(params, x, mask, rate, size):
    """Drop channels, score every position, resize the scores; without a mask or a size that step is left out."""
    if mask is not None:
        x, back_drop = ops.dropout(x, mask, rate)                           # (4)
    y, back_conv = ops.conv2d(x, **strip_prefix("1.", params))              # (5)
    if size is not None:
        y, back_resize = ops.resize_bilinear(y, size, align_corners=True)   # (6)

    def backward(dy):
        if size is not None:
            dy = back_resize(dy)                                            # (6')
        dx, dweight, dbias = back_conv(dy)                                  # (5')
        if mask is not None:
            dx = back_drop(dx)                                              # (4')
        return dx, {"1.weight": dweight, "1.bias": dbias}

    return Pass(y, backward)


@dataclass(frozen=True)
class DualAttentionHead(Module):
    """Score every position for every class, from features mixed over positions and features mixed over channels.

    Two branches narrow the map to a quarter of its channels by a 3×3 convolution with batch norm and ReLU. One passes
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
    >>> import numpy as np
    >>> module = DualAttentionHead(in_channels=16, classes=5)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> [y.shape for y in run.output]
    [(2, 5, 7, 5), (2, 5, 7, 5), (2, 5, 7, 5)]
    >>> dx, grads = run.backward(run.output)
    >>> grads["conv51.0.weight"].shape
    (4, 4, 3, 3)
    """

    key: ClassVar = "danet"
    paper: ClassVar = Paper(
        title="Dual Attention Network for Scene Segmentation",
        authors="Fu, Liu, Tian, Li, Bao, Fang, Lu",
        venue="CVPR",
        year=2019,
        url="https://arxiv.org/abs/1809.02983",
    )
    pairs_positions: ClassVar = True

    in_channels: int
    classes: int
    dropout: float = 0.1
    variant: str = "paper"
    training: bool = False
    size: tuple[int, int] | None = None

    def __post_init__(self):
        name = type(self).__name__
        require_integers(name, in_channels=self.in_channels, classes=self.classes)
        require_numbers(name, dropout=self.dropout)
        require_booleans(name, training=self.training)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{name}: dropout={self.dropout}; expected a probability of at least 0 and below 1")
        if self.size is not None:
            if not isinstance(self.size, (tuple, list)) or len(self.size) != 2:
                raise ValueError(f"{name}: size={self.size!r}; expected None or a pair (height, width)")
            require_integers(name, **dict(zip(("size[0]", "size[1]"), self.size, strict=True)))
            object.__setattr__(self, "size", tuple(self.size))
        _ = self.channel

    @classmethod
    def example(cls):
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

    def input_shapes(self, batch, height, width):
        """Shapes of the map and, in training, of the keep masks."""
        shapes = super().input_shapes(batch, height, width)
        masks = dict.fromkeys(("drop6", "drop7", "drop8"), (batch, self.branch_channels))
        return shapes | masks if self.training else shapes

    def output_shapes(self, batch, height, width):
        """Shapes of the three scores."""
        return {f"output.{i}": (batch, self.classes, *(self.size or (height, width))) for i in range(3)}

    def draw_input(self, name, shape, random):
        """Draw keep masks of 0 and 1, the map as elsewhere."""
        if name == "x":
            return super().draw_input(name, shape, random)
        return random.randint(0, 2, shape).astype(float)

    def parameters(self):
        """Declare the layers in the order of the authors' code."""
        wide, narrow = self.in_channels, self.branch_channels
        declared = {}
        for name, inputs in (("conv5a", wide), ("conv5c", wide)):
            declared[f"{name}.0.weight"] = uniform_fan_in(narrow, inputs, 3, 3)
            declared |= norm_parameters(f"{name}.1", narrow)
        declared |= add_prefix("sa.", self.position.parameters()) | add_prefix("sc.", self.channel.parameters())
        for name in ("conv51", "conv52"):
            declared[f"{name}.0.weight"] = uniform_fan_in(narrow, narrow, 3, 3)
            declared |= norm_parameters(f"{name}.1", narrow)
        for name in ("conv6", "conv7", "conv8"):
            declared[f"{name}.1.weight"] = uniform_fan_in(self.classes, narrow, 1, 1)
            declared[f"{name}.1.bias"] = uniform_fan_in(self.classes, inputs=narrow)
        return declared

    def buffers(self):
        """Declare the running statistics of the four norms."""
        declared = {}
        for name in ("conv5a", "conv5c", "conv51", "conv52"):
            declared |= norm_buffers(f"{name}.1", self.branch_channels)
        return declared

    def check_inputs(self, inputs):
        """Refuse, besides, a batch whose variance batch norm can't estimate."""
        super().check_inputs(inputs)
        if self.training:
            check_variance(self, inputs[0])

    def forward(self, params, x, *masks):
        """Narrow, attend, filter, classify. The tags are the equation numbers of the derivation."""
        drop6, drop7, drop8 = masks or (None, None, None)

        def part(function, name, *arguments):
            return function(strip_prefix(f"{name}.", params), *arguments)

        a = part(filter_map, "conv5a", x, self.training)                           # (7)
        p = part(self.position.forward, "sa", a.output)                            # (8)
        u = part(filter_map, "conv51", p.output, self.training)                    # (9)
        c = part(filter_map, "conv5c", x, self.training)                           # (10)
        q = part(self.channel.forward, "sc", c.output)                             # (11)
        v = part(filter_map, "conv52", q.output, self.training)                    # (12)
        f = u.output + v.output                                                    # (13)
        fused = part(classify, "conv8", f, drop8, self.dropout, self.size)         # (14)
        left = part(classify, "conv6", u.output, drop6, self.dropout, self.size)   # (15)
        right = part(classify, "conv7", v.output, drop7, self.dropout, self.size)  # (16)

        def backward(dy):
            grads = {}

            def back(run, name, gradient):
                gradient, found = run.backward(gradient)
                grads.update(add_prefix(f"{name}.", found))
                return gradient

            d_fused, d_left, d_right = dy
            dv = back(right, "conv7", d_right)                                     # (16')
            du = back(left, "conv6", d_left)                                       # (15')
            df = back(fused, "conv8", d_fused)                                     # (14')
            du, dv = du + df, dv + df                                              # (13')
            dq = back(v, "conv52", dv)                                             # (12')
            dc = back(q, "sc", dq)                                                 # (11')
            dx = back(c, "conv5c", dc)                                             # (10')
            dp = back(u, "conv51", du)                                             # (9')
            da = back(p, "sa", dp)                                                 # (8')
            dx, _ = ops.add(dx, back(a, "conv5a", da))                             # (7')
            dx = (dx, *(None for _ in masks)) if masks else dx
            return dx, {name: grads[name] for name in self.parameters()}

        norms = {"conv5a": a, "conv5c": c, "conv51": u, "conv52": v}
        buffers = {f"{name}.{key}": new for name, run in norms.items() for key, new in run.buffers.items()}
        outputs = fused.output, left.output, right.output
        return Pass(outputs, backward, attention={"branch": c.output, **q.attention}, buffers=buffers)
