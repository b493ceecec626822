"""Bottleneck attention: heads that see the whole map, and say by rows and columns how far off they look."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_map_size
from npattn.attention_maps import MapByRows
from npattn.checks import require_equal_shares
from npattn.fields import boolean, integer, positive, two_integers
from npattn.module import Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.ops.masking import masked_weights
from npattn.parameters import Parameter, lecun_normal, round_channels, uniform_fan_in
from npattn.typing import Array, Backward, Params


def halve(x: Array) -> tuple[Array, Backward]:
    """Average every block of 2×2 positions; a last row or column without a second is left out."""
    height, width = (length - length % 2 for length in x.shape[2:])
    y, back_average = ops.window_average(x[:, :, :height, :width], 2, 2)

    def backward(dy):
        dx = np.zeros_like(x)
        dx[:, :, :height, :width] = back_average(dy)
        return dx

    return y, backward


class RelativeHeads(MapByRows):
    """What bottleneck and halo attention share: the channels of heads, and the weights of queries and keys."""

    channels: int
    out_channels: int | None
    stride: int
    heads: int
    head_dim: int | None
    qk_ratio: float
    scale_pos_embed: bool

    def __post_init__(self) -> None:
        """Refuse, besides, heads that can't share the channels equally or get none."""
        super().__post_init__()
        name = type(self).__name__
        require_equal_shares(name, "heads", self.heads, "out_channels", self.output_channels)
        if not self.head_channels:
            queries = round_channels(self.qk_ratio * self.output_channels)
            raise ValueError(
                f"{name}: heads={self.heads}; expected at most {queries}, channels of all queries: set head_dim, those "
                "of each head"
            )

    @property
    def output_channels(self) -> int:
        """O, channels of the output."""
        return self.out_channels or self.channels

    @property
    def head_channels(self) -> int:
        """d, channels of a head's queries and keys: `head_dim`, or its share of those of the output."""
        return self.head_dim or round_channels(self.qk_ratio * self.output_channels) // self.heads

    @property
    def scale(self) -> float:
        """Factor of the products, 1/√d."""
        return 1 / math.sqrt(self.head_channels)

    @property
    def relative_scale(self) -> float:
        """Factor of the products with vectors of offsets."""
        return self.scale if self.scale_pos_embed else 1.0

    def weigh(self, q: Array, k: Array, r: Array, rows: slice | list[int]) -> Array:
        """Make the weights of all keys for some queries, by what they hold and by what their offsets add."""
        return masked_weights(flatten_positions(q), flatten_positions(k), rows, self.scale, bias=r)


@dataclass(frozen=True)
class BottleneckAttention(RelativeHeads):
    """Let every position gather from all positions of the map, by what they hold and by how far off they are.

    One 1×1 convolution makes queries, keys and values, which heads share out. The query at (i, j) weighs the key at
    (k, l) by the softmax of q · k / √d + q · (r^H_{k-i} + r^W_{l-j}): a learnt vector for each offset in rows, and
    one for each in columns, that all heads share. There is no layer behind: what the heads gather is the output.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    feat_size : pair of int
        (H, W), the size of the map, which says how many offsets there are.
    out_channels : int, optional
        O, channels of values and output; by default C.
    stride : {1, 2}, default 1
        With 2 the output is averaged, 2×2 positions to one.
    heads : int, default 4
        n, a divisor of O.
    head_dim : int, optional
        d, channels of a head's queries and keys; by default `qk_ratio` O, rounded to a multiple of 8, over n.
    qk_ratio : float, default 1
        Channels of all queries, by those of the output, where `head_dim` doesn't say.
    bias : bool, default False
        Whether the convolution has a bias.
    scale_pos_embed : bool, default False
        Whether the logits of offsets are divided by √d too.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if a head has no channels, or `stride` leaves no position; when called on
        a map of another size.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, O, H, W), or (B, O, ⌊H/2⌋, ⌊W/2⌋). Parameters, named as in timm:
    ``qkv.weight`` (2 n d + O, C, 1, 1), queries, keys and values one below the other, each head by head, and
    ``qkv.bias``; ``pos_embed.height_rel`` (2H - 1, d) and ``pos_embed.width_rel`` (2W - 1, d), by offsets from
    -(H - 1) on. The weight starts from a normal distribution of variance 1/C, the vectors from one of 1/d. The pass has
    no attention map: `attention_map` makes the rows of it that are asked for. Row j holds, for each head, the weights
    of all positions for position j; they add up to 1.

    References
    ----------
    Srinivas, Lin, Parmar, Shlens, Abbeel, Vaswani: Bottleneck Transformers for Visual Recognition, CVPR 2021,
    section 3 and figure 4.

    Examples
    --------
    >>> module = BottleneckAttention(channels=16, feat_size=(6, 5))
    >>> params, x = module.init(seed=0), np.ones((2, 16, 6, 5))
    >>> run = module(params, x)
    >>> run
    Pass(output: float64 (2, 16, 6, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 6, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'qkv.weight': (48, 16, 1, 1), 'pos_embed.height_rel': (11, 4), 'pos_embed.width_rel': (9, 4)}
    >>> module.attention_map(params, x, rows=[0, 29]).shape
    (2, 4, 2, 30)
    """

    key: ClassVar = "bottleneck"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Bottleneck Transformers for Visual Recognition",
        authors="Srinivas, Lin, Parmar, Shlens, Abbeel, Vaswani",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2101.11605",
    )
    pairs_positions: ClassVar = True

    channels: int = integer(least=1)
    feat_size: tuple[int, int] = two_integers()
    out_channels: int | None = integer(least=1, default=None)
    stride: int = integer(least=1, most=2, default=1)
    heads: int = integer(least=1, default=4)
    head_dim: int | None = integer(least=1, default=None)
    qk_ratio: float = positive(default=1.0)
    bias: bool = boolean(default=False)
    scale_pos_embed: bool = boolean(default=False)

    def __post_init__(self) -> None:
        """Refuse, besides, a stride that leaves nothing."""
        super().__post_init__()
        if min(self.feat_size) < self.stride:
            raise ValueError(
                f"BottleneckAttention: feat_size={self.feat_size}; expected at least 2 rows and columns for stride=2"
            )

    @classmethod
    def example(cls) -> BottleneckAttention:
        """Return a small instance: 16 channels on a map of 6 × 5, 2 heads of 4."""
        return cls(channels=16, feat_size=(6, 5), heads=2, head_dim=4)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Channels of queries, keys and values."""
        queries = self.heads * self.head_channels
        return queries, queries, self.output_channels

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the map, whose height and width are those of `feat_size` whatever others are asked for."""
        return {"x": (batch, self.channels, *self.feat_size)}

    def for_size(self, height: int, width: int) -> BottleneckAttention:
        """Return the system with vectors for the offsets on maps of another size."""
        return replace(self, feat_size=(height, width))

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the output."""
        return {"output": (batch, self.output_channels, *(length // self.stride for length in self.feat_size))}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the convolution, and the vectors of offsets."""
        height, width = self.feat_size
        bias = {"qkv.bias": uniform_fan_in(sum(self.sizes), inputs=self.channels)} if self.bias else {}
        return {
            **layers.conv_parameters("qkv", sum(self.sizes), self.channels, bias=False, initial=lecun_normal),
            **bias,
            "pos_embed.height_rel": lecun_normal(2 * height - 1, self.head_channels),
            "pos_embed.width_rel": lecun_normal(2 * width - 1, self.head_channels),
        }

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map of another size than the vectors are for."""
        check_map_size(self, inputs, self.feat_size, "there are vectors of offsets")
        super().check_inputs(inputs)

    def forward(self, params: Params, x: Array) -> Pass:
        """Make queries, keys and values, and attend by content and offset. The tags are the derivation's."""
        u, back_qkv = layers.conv(x, params, "qkv")                                                   # (1)
        parts, back_split = ops.split(u, self.sizes, axis=1)                                          # (2)
        q, k, v = map(self.share, parts)
        r, back_relative = layers.relative_logits(q, params, "pos_embed", scale=self.relative_scale)  # (3)
        rows = map(flatten_positions, (q, k, v))
        (o, _), back_attention = ops.masked_attention(*rows, self.scale, bias=r)                      # (4)
        y = o.reshape(parts[2].shape)
        if self.stride > 1:
            y, back_pool = halve(y)                                                                   # (5)

        def backward(dy):
            if self.stride > 1:
                dy = back_pool(dy)                                                                    # (5')
            dq, dk, dv, dr, _ = back_attention(dy.reshape(o.shape))                                   # (4')
            dq, grads_relative = back_relative(dr, accumulate_into=dq.reshape(q.shape))               # (3')
            shares = (d.reshape(a.shape) for d, a in zip((dq, dk, dv), parts, strict=True))
            du = back_split(tuple(shares))                                                            # (2')
            dx, grads_qkv = back_qkv(du)                                                              # (1')
            return dx, grads_qkv | grads_relative

        return Pass(y, backward)

    def share(self, a: Array) -> Array:
        """Share channels out to the heads: (B, n d, H, W) to (B, n, d, H, W)."""
        return a.reshape(len(a), self.heads, a.shape[1] // self.heads, *a.shape[2:])

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights of all positions for some positions, of every head."""
        u, _ = layers.conv(x, params, "qkv")
        q, k = map(self.share, ops.split(u, self.sizes, axis=1)[0][:2])
        r, _ = layers.relative_logits(q, params, "pos_embed", scale=self.relative_scale)
        return self.weigh(q, k, r, rows)
