"""Window attention: positions gather from those of their own window, and a shift brings other windows together."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention_maps import MapByRows
from npattn.checks import require_equal_shares
from npattn.fields import boolean, integer, number, side
from npattn.module import Paper, Pass
from npattn.ops.convolution import pair
from npattn.parameters import Parameter, normal
from npattn.typing import Array, Backward, Params

INITIAL = functools.partial(normal, deviation=0.02)
"""How weights start."""


@dataclass(frozen=True)
class WindowAttention(MapByRows):
    """Let every position gather from the positions of its window, in several heads.

    The map is cut into windows of h × w that lie side by side; work and memory grow as the number of positions. Weights
    are the softmax of q_n · k_m / √d + g_nm: g is looked up in a table with a number for each offset of one position
    from another, which all windows share. Where every second block of a network moves the map by half a window first,
    and back afterwards, windows exchange what they know. A window across the edge then holds parts of the map that lie
    far apart; these don't see each other.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    heads : int
        Number of heads.
    window : int or pair of int, default 7
        h and w. A map is filled up with zeros to whole windows, and these positions are seen.
    shift : int or pair of int, default 0
        Rows and columns by which the map moves, fewer than a window has; along an axis that one window covers, none.
    head_channels : int, optional
        d, channels of each head; by default C / heads.
    bias : bool, default True
        Whether the layer that makes queries, keys and values has a bias.
    mask_value : float, optional
        What is added to the logits of positions that shall not see each other: -100 in published code, which is as good
        as -∞ for logits of usual size. By default they don't, whatever the logits.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if `shift` is no less than `window`; if `heads` does not divide `channels`
        where `head_channels` is not given.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W), without residual. Parameters, named as in the authors' code and in
    timm: ``relative_position_bias_table`` ((2h - 1)(2w - 1), heads); ``qkv.weight`` (3 heads d, C), the rows of
    queries, keys and values one below the other, each head by head, and ``qkv.bias``; ``proj.weight`` (C, heads d) and
    ``proj.bias`` (C,). Weights start from a normal distribution of deviation 0.02, biases at 0. The pass has no
    attention map: `attention_map` makes the rows of it that are asked for. Row j holds, for each head, the weights of
    all positions for position j, 0 outside of its window; they add up to 1, less what zeros beyond the map take.

    References
    ----------
    Liu et al.: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, ICCV 2021, section 3.2.

    Examples
    --------
    >>> module = WindowAttention(channels=16, heads=2, window=4, shift=2)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 7, 5))
    >>> run = module(params, x)
    >>> run
    Pass(output: float64 (2, 16, 7, 5))
    >>> dx, grads = run.backward(run.output)
    >>> grads["relative_position_bias_table"].shape
    (49, 2)
    >>> module.attention_map(params, x, rows=[0, 34]).shape
    (2, 2, 2, 35)
    """

    key: ClassVar = "window"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        authors="Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo",
        venue="ICCV",
        year=2021,
        url="https://arxiv.org/abs/2103.14030",
    )

    channels: int = integer(least=1)
    heads: int = integer(least=1)
    window: int | tuple[int, int] = side(least=1, default=7)
    shift: int | tuple[int, int] = side(least=0, default=0)
    head_channels: int | None = integer(least=1, default=None)
    bias: bool = boolean(default=True)
    mask_value: float | None = number(default=None)

    def __post_init__(self) -> None:
        """Refuse, besides, heads that can't share the channels equally, and a shift by whole windows."""
        super().__post_init__()
        if self.head_channels is None:
            require_equal_shares(type(self).__name__, "heads", self.heads, "channels", self.channels)
        if any(s >= n for s, n in zip(pair(self.shift), pair(self.window), strict=True)):
            raise ValueError(
                f"WindowAttention: shift={self.shift}; expected fewer rows and columns than a window has, "
                f"window={self.window}: half of them in the paper"
            )

    @classmethod
    def example(cls) -> WindowAttention:
        """Return a small instance: 16 channels, 2 heads, windows of 4 × 4, moved by half of one."""
        return cls(channels=16, heads=2, window=4, shift=2)

    @property
    def query_channels(self) -> int:
        """d, channels of each head: `head_channels`, or C / heads."""
        return self.head_channels or self.channels // self.heads

    @property
    def scale(self) -> float:
        """Factor of the products, 1/√d."""
        return 1 / math.sqrt(self.query_channels)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the table, and the layers before and behind the attention."""
        (h, w), inner = pair(self.window), self.heads * self.query_channels
        return {
            "relative_position_bias_table": INITIAL((2 * h - 1) * (2 * w - 1), self.heads),
            **layers.linear_parameters("qkv", 3 * inner, self.channels, bias=self.bias, initial=INITIAL),
            **layers.linear_parameters("proj", self.channels, inner, initial=INITIAL),
        }

    def moves(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Return by how many rows and columns a map of that size moves: none along an axis that one window covers."""
        down, right = (
            shift if length > side else 0
            for length, side, shift in zip(size, pair(self.window), pair(self.shift), strict=True)
        )
        return down, right

    def forward(self, params: Params, x: Array) -> Pass:
        """Move, cut, project, attend, bring together, lay out, move back. The tags are the derivation's."""
        window, size, moves = pair(self.window), x.shape[2:], self.moves(x.shape[2:])
        s, back_shift = ops.cyclic_shift(x, moves)                                              # (1)
        w, back_cut = ops.window_partition(s, window)                                           # (2)
        u, back_qkv = layers.conv(w, params, "qkv")                                             # (3)
        (batch, _, *rest), inner = w.shape, self.heads * self.query_channels
        heads = u.reshape(batch, 3 * self.heads, self.query_channels, *rest)
        parts, back_split = ops.split(heads, 3 * (self.heads,), axis=1)                         # (4)
        g, back_table = layers.gather_relative(params, "relative_position_bias_table", window)  # (5)
        q, k, v = (by_windows(part) for part in parts)
        o, back_attention = self.attend(q, k, v, g, self.seen(x))                               # (6)
        z, back_proj = layers.conv(by_heads(o).reshape(batch, inner, *rest), params, "proj")    # (7)
        t, back_layout = ops.window_reverse(z, window, size)                                    # (8)
        y, back_return = ops.cyclic_shift(t, (-moves[0], -moves[1]))                            # (9)

        def backward(dy):
            dt = back_return(dy)                                                                # (9')
            dz = back_layout(dt)                                                                # (8')
            do, grads_proj = back_proj(dz)                                                      # (7')
            do = by_windows(do.reshape(batch, self.heads, self.query_channels, *rest))
            *dparts, dg = back_attention(do)                                                    # (6')
            grads_table = back_table(dg)                                                        # (5')
            du = back_split([by_heads(part) for part in dparts])                                # (4')
            dw, grads_qkv = back_qkv(du.reshape(u.shape))                                       # (3')
            ds = back_cut(dw)                                                                   # (2')
            dx = back_shift(ds)                                                                 # (1')
            return dx, grads_table | grads_qkv | grads_proj

        return Pass(y, backward)

    def cut(self, x: Array) -> Array:
        """Move a map and cut it into windows."""
        return ops.window_partition(ops.cyclic_shift(x, self.moves(x.shape[2:]))[0], pair(self.window))[0]

    def attend(self, q: Array, k: Array, v: Array, g: Array, seen: Array | None) -> tuple[Array, Backward]:
        """Let the positions of each window, (B, R, heads, d, N), gather from one another."""
        if seen is None or self.mask_value is None:
            (o, _), back = ops.masked_attention(q, k, v, self.scale, bias=g, mask=seen)
            return o, lambda do: back(do)[:4]
        low = np.broadcast_to(self.mask_value * (1 - seen), (len(seen), *g.shape))
        lowered, back_lower = ops.shift(low, g[None])
        (o, _), back = ops.masked_attention(q, k, v, self.scale, bias=lowered)

        def backward(do):
            dq, dk, dv, dlowered, _ = back(do)
            return dq, dk, dv, back_lower(dlowered)[1][0]

        return o, backward

    def seen(self, x: Array) -> Array | None:
        """Tell which positions of each window see each other, (R, 1, N, N), 1 or 0; None where all do."""
        window, moves = pair(self.window), self.moves(x.shape[2:])
        if not any(moves):
            return None
        lengths = (-(-length // side) * side for length, side in zip(x.shape[2:], window, strict=True))
        below, right = (np.arange(n, like=x) >= n - moved for n, moved in zip(lengths, moves, strict=True))
        parts, _ = ops.window_partition.definition((2 * below[:, None] + right)[None, None], window)
        same = parts[0, 0, :, None, :, None] == parts[0, 0, :, None, None, :]
        seen = np.zeros_like(x, shape=same.shape)
        seen[same] = 1
        return seen

    def map_rows(self, params: Params, rows: slice | list[int], x: Array) -> Array:
        """Make the weights of all positions for some positions, of every head: 0 outside of a position's window."""
        size, window = x.shape[2:], pair(self.window)
        positions = size[0] * size[1]
        which = range(positions)[rows] if isinstance(rows, slice) else rows
        w = self.cut(x)
        u, _ = layers.conv(w, params, "qkv")
        heads = u.reshape(len(x), 3 * self.heads, self.query_channels, *w.shape[2:])
        q, k, v = np.split(by_windows(heads), 3, axis=2)
        g, _ = layers.gather_relative(params, "relative_position_bias_table", window)
        each = np.broadcast_to(np.eye(v.shape[-1], dtype=x.dtype, like=x), (*v.shape[:3], *g.shape[1:]))
        at = self.cut(np.arange(1, positions + 1).reshape(1, 1, *size))[0, 0]  # where they stand; 0 beyond the map
        places = [np.argwhere(at == row + 1)[0].tolist() for row in which]
        chosen = {own: n for n, own in enumerate(dict.fromkeys(own for own, _ in places))}  # windows with a row
        seen, some = self.seen(x), list(chosen)
        s, _ = self.attend(q[:, some], k[:, some], each[:, some], g, None if seen is None else seen[some])
        found = np.zeros_like(x, shape=(len(x), self.heads, len(which), positions))
        for i, (own, position) in enumerate(places):
            inside = at[own] > 0
            found[:, :, i, at[own, inside] - 1] = s[:, chosen[own], :, :, position][..., inside]
        return found


def by_windows(a: Array) -> Array:
    """Let windows stand before heads: (B, heads, d, R, N) to (B, R, heads, d, N)."""
    return a.transpose(0, 3, 1, 2, 4)


def by_heads(a: Array) -> Array:
    """Let heads stand before windows again."""
    return a.transpose(0, 2, 3, 1, 4)
