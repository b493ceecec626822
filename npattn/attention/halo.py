"""Halo attention: blocks of a map look at themselves and a margin round them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.array_checks import check_map
from npattn.attention.bottleneck import RelativeHeads, halve
from npattn.fields import boolean, integer, positive
from npattn.module import Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, lecun_normal, uniform_fan_in
from npattn.typing import Array, Params


def by_blocks(windows: Array, heads: int) -> Array:
    """Share channels out to heads, and let blocks stand before them: (B, n c, R, S, h, w) to (B, n, R, S, c, h, w)."""
    batch, channels, *rest = windows.shape
    return np.moveaxis(windows.reshape(batch, heads, channels // heads, *rest), 2, 4)


def by_channels(blocks: Array) -> Array:
    """Lay out again what `by_blocks` has laid out."""
    batch, heads, rows, columns, channels, height, width = blocks.shape
    return np.moveaxis(blocks, 4, 2).reshape(batch, heads * channels, rows, columns, height, width)


@dataclass(frozen=True)
class HaloAttention(RelativeHeads):
    """Let every position gather from its block of the map and a halo of positions round it.

    The map is cut into blocks of b × b positions. All queries of a block see the same window of keys and values, the
    block with a halo of h rows and columns on every side, and weigh them by content and offset, as
    `BottleneckAttention` does on a whole map. So the work grows as the number of positions. Beyond the map keys and
    values are zeros: a query weighs them by their offset, and gets nothing of them.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    out_channels : int, optional
        O, channels of values and output; by default C.
    stride : {1, 2}, default 1
        With 2 there is one query for 2×2 positions; or, with `avg_down` or an odd block, the output is averaged.
    heads : int, default 8
        n, a divisor of O.
    head_dim : int, optional
        d, channels of a head's queries and keys; by default `qk_ratio` O, rounded to a multiple of 8, over n.
    block_size : int, default 8
        b, a divisor of the map's height and width.
    halo_size : int, default 3
        h.
    qk_ratio : float, default 1
        Channels of all queries, by those of the output, where `head_dim` doesn't say.
    bias : bool, default False
        Whether the convolutions have biases.
    avg_down : bool, default False
        Whether a stride of 2 averages the output.
    scale_pos_embed : bool, default False
        Whether the logits of offsets are divided by √d too.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if a head has no channels; when called on a map that blocks don't fill, or
        that has fewer than 2 × 2 positions for `stride` 2.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, O, H, W), or (B, O, ⌊H/2⌋, ⌊W/2⌋). Parameters, named as in timm:
    ``q.weight`` (n d, C, 1, 1) and ``q.bias``; ``kv.weight`` (n (d + e), C, 1, 1) with e = O / n, of each head the keys
    and then the values, and ``kv.bias``; ``pos_embed.height_rel`` and ``pos_embed.width_rel`` (2 (b + 2h) - 1, d), by
    offsets of places in the window from places in the block. Weights start from normal distributions of variance
    1/C, the vectors of 1/d. The pass has no attention map: `attention_map` makes the rows of it that are asked for.
    Row j holds, for each head, the weights of all positions for query j, 0 outside of its window. They add up to 1,
    less what keys beyond the map take.

    References
    ----------
    Vaswani, Ramachandran, Srinivas, Parmar, Hechtman, Shlens: Scaling Local Self-Attention for Parameter Efficient
    Visual Backbones, CVPR 2021, section 2.

    Examples
    --------
    >>> module = HaloAttention(channels=16, block_size=4, halo_size=1)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 8, 12))
    >>> run = module(params, x)
    >>> run
    Pass(output: float64 (2, 16, 8, 12))
    >>> dx, grads = run.backward(np.ones((2, 16, 8, 12)))
    >>> {name: grad.shape for name, grad in grads.items() if "rel" not in name}
    {'q.weight': (16, 16, 1, 1), 'kv.weight': (32, 16, 1, 1)}
    >>> module.attention_map(params, x, rows=[0, 95]).shape
    (2, 8, 2, 96)
    """

    key: ClassVar = "halo"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Scaling Local Self-Attention for Parameter Efficient Visual Backbones",
        authors="Vaswani, Ramachandran, Srinivas, Parmar, Hechtman, Shlens",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2103.12731",
    )

    channels: int = integer(least=1)
    out_channels: int | None = integer(least=1, default=None)
    stride: int = integer(least=1, most=2, default=1)
    heads: int = integer(least=1, default=8)
    head_dim: int | None = integer(least=1, default=None)
    block_size: int = integer(least=1, default=8)
    halo_size: int = integer(least=0, default=3)
    qk_ratio: float = positive(default=1.0)
    bias: bool = boolean(default=False)
    avg_down: bool = boolean(default=False)
    scale_pos_embed: bool = boolean(default=False)

    @classmethod
    def example(cls) -> HaloAttention:
        """Return a small instance: 16 channels, 2 heads of 4, blocks of 2 × 2 with a halo of 1."""
        return cls(channels=16, heads=2, head_dim=4, block_size=2, halo_size=1)

    @property
    def win_size(self) -> int:
        """Rows and columns that a block sees, b + 2h."""
        return self.block_size + 2 * self.halo_size

    @property
    def averages(self) -> bool:
        """Whether the output is averaged, 2×2 positions to one."""
        return self.stride > 1 and (self.avg_down or self.block_size % 2 > 0)

    @property
    def query_stride(self) -> int:
        """Step between queries."""
        return 1 if self.averages else self.stride

    @property
    def query_block(self) -> int:
        """Rows and columns of queries in a block."""
        return self.block_size // self.query_stride

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the map, of whole blocks: height and width are rounded up to them."""
        size = (-(-length // self.block_size) * self.block_size for length in (height, width))
        return {"x": (batch, self.channels, *size)}

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the output."""
        size = self.input_shapes(batch, height, width)["x"][2:]
        return {"output": (batch, self.output_channels, *(length // self.stride for length in size))}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the convolutions, and the vectors of offsets."""
        queries, offsets = self.heads * self.head_channels, 2 * self.win_size - 1
        declared: dict[str, Parameter] = {}
        for name, out in (("q", queries), ("kv", queries + self.output_channels)):
            declared |= layers.conv_parameters(name, out, self.channels, bias=False, initial=lecun_normal)
            declared |= {f"{name}.bias": uniform_fan_in(out, inputs=self.channels)} if self.bias else {}
        tables = (f"pos_embed.{name}_rel" for name in ("height", "width"))
        return declared | {table: lecun_normal(offsets, self.head_channels) for table in tables}

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map that whole blocks don't fill, and one of which averages leave nothing."""
        for x in inputs[:1]:
            check_map(self, "x", x)
            if x.shape[1] == self.channels and any(length % self.block_size for length in x.shape[2:]):
                raise ValueError(
                    f"{self}: x has shape {x.shape}; expected multiples of block_size={self.block_size} for height and "
                    "width: pad the map, or set another block_size"
                )
            if min(x.shape[2:]) < self.stride:
                raise ValueError(f"{self}: x has shape {x.shape}; expected at least 2 rows and columns for stride=2")
        super().check_inputs(inputs)

    def forward(self, params: Params, x: Array) -> Pass:
        """Cut queries into blocks, keys and values into windows; attend. The tags are the derivation's."""
        heads, block, window, halo = self.heads, self.query_block, self.win_size, self.halo_size
        t, back_query = layers.conv(x, params, "q", stride=self.query_stride)                         # (1)
        q, back_blocks = ops.unfold_windows(t, block, block)                                          # (2)
        q = by_blocks(q, heads)
        u, back_kv = layers.conv(x, params, "kv")                                                     # (3)
        p, back_pad = ops.pad(u, halo)                                                                # (4)
        w, back_windows = ops.unfold_windows(p, window, self.block_size)                              # (5)
        w = by_blocks(w, heads)
        (k, v), back_split = ops.split(w, self.sizes, axis=4)                                         # (6)
        r, back_relative = layers.relative_logits(q, params, "pos_embed", scale=self.relative_scale)  # (7)
        rows = map(flatten_positions, (q, k, v))
        (o, _), back_attention = ops.masked_attention(*rows, self.scale, bias=r)                      # (8)
        blocks = by_channels(o.reshape(*o.shape[:5], block, block))
        y, back_fold = ops.fold_windows(blocks, t.shape[2:], block, block)                            # (9)
        if self.averages:
            y, back_pool = halve(y)                                                                   # (10)

        def backward(dy):
            if self.averages:
                dy = back_pool(dy)                                                                    # (10')
            dblocks = back_fold(dy)                                                                   # (9')
            dq, dk, dv, dr, _ = back_attention(by_blocks(dblocks, heads).reshape(o.shape))            # (8')
            dq, grads_relative = back_relative(dr, accumulate_into=dq.reshape(q.shape))               # (7')
            del dr  # here and below no map is held longer than it is needed
            dw = back_split((dk.reshape(k.shape), dv.reshape(v.shape)))                               # (6')
            del dk, dv
            dw = by_channels(dw)
            dp = back_windows(dw)                                                                     # (5')
            del dw
            du = back_pad(dp)                                                                         # (4')
            del dp
            dx, grads_kv = back_kv(du)                                                                # (3')
            dt = back_blocks(by_channels(dq))                                                         # (2')
            dx, grads_query = back_query(dt, accumulate_into=dx)                                      # (1')
            return dx, grads_query | grads_kv | grads_relative

        return Pass(y, backward)

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels of a head's keys and values."""
        return self.head_channels, self.output_channels // self.heads

    def query_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of queries."""
        return -(-height // self.query_stride), -(-width // self.query_stride)

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights of all positions for some queries, of every head: 0 outside of a query's window."""
        block, halo, window = self.query_block, self.halo_size, self.win_size
        t, _ = layers.conv(x, params, "q", stride=self.query_stride)
        queries = range(t.shape[2] * t.shape[3])[rows] if isinstance(rows, slice) else rows
        places = [[divmod(place, block) for place in divmod(query, t.shape[3])] for query in queries]
        chosen = {blocks: n for n, blocks in enumerate(dict.fromkeys((i, j) for (i, _), (j, _) in places))}
        grid = [[blocks[axis] for blocks in chosen] for axis in range(2)]
        q = by_blocks(ops.unfold_windows(t, block, block)[0], self.heads)[:, :, *grid][:, :, :, None]
        padded, _ = ops.pad(layers.conv(x, params, "kv")[0], halo)
        w = by_blocks(ops.unfold_windows(padded, window, self.block_size)[0], self.heads)[:, :, *grid][:, :, :, None]
        (k, _), _ = ops.split(w, self.sizes, axis=4)
        r, _ = layers.relative_logits(q, params, "pos_embed", scale=self.relative_scale)
        s = self.weigh(q, k, r, slice(None))
        s = s.reshape(*s.shape[:-1], window, window)
        height, width = x.shape[2:]
        found = np.zeros_like(x, shape=(len(x), self.heads, len(queries), height + 2 * halo, width + 2 * halo))
        for row, ((i, a), (j, b)) in enumerate(places):
            top, left = i * self.block_size, j * self.block_size
            found[:, :, row, top : top + window, left : left + window] = s[:, :, chosen[i, j], 0, a * block + b]
        return flatten_positions(found[..., halo : halo + height, halo : halo + width])
