"""Multi-head self-attention: several small attentions side by side, each with its own view of the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.checks import check_positions
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, uniform_fan_in, xavier_uniform, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class MultiHeadSelfAttention(Module):
    """Let every position gather from all positions of the map, in several heads that look for different things.

    One linear layer makes of each position a query, a key and a value of C channels. Each of the heads takes its own
    d = C / heads channels of all three and weighs position i for position j by s_ji = exp(q_j · k_i / √d) /
    Σ_n exp(q_j · k_n / √d); what the heads gather, Σ_i s_ji v_i, stands side by side and goes through a second layer.
    The N × N weights are never held: memory grows as the number N of positions.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    heads : int
        Number of heads, a divisor of C.

    Raises
    ------
    TypeError
        If `channels` or `heads` is no integer.
    ValueError
        If `channels` or `heads` is below 1, or `heads` does not divide `channels`.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W), without residual. Parameters, named as in PyTorch's
    `MultiheadAttention`: ``in_proj_weight`` (3C, C), the rows of queries, keys and values one below the other, each
    head by head; ``in_proj_bias`` (3C,), ``out_proj.weight`` (C, C), ``out_proj.bias`` (C,). They start as there:
    ``in_proj_weight`` by Glorot and Bengio's rule for its 3C × C, ``out_proj.weight`` uniform in ±1/√C, biases at 0.
    The pass has no attention map, which would be N × N for each head: `attention_map` makes the rows of it that are
    asked for.

    References
    ----------
    Vaswani et al.: Attention Is All You Need, NeurIPS 2017: eq. 1 (attention), section 3.2.2 (heads). Its W^Q, W^K and
    W^V are the three parts of ``in_proj_weight``, its W^O is ``out_proj.weight``; it has no biases.

    Examples
    --------
    >>> import numpy as np
    >>> module = MultiHeadSelfAttention(channels=16, heads=4)
    >>> params, x = module.init(seed=0), np.ones((2, 16, 7, 5))
    >>> run = module(params, x)
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["in_proj_weight"].shape
    (48, 16)
    >>> module.attention_map(params, x, rows=[0, 34]).shape
    (2, 4, 2, 35)
    """

    key: ClassVar = "mhsa"
    paper: ClassVar = Paper(
        title="Attention Is All You Need",
        authors="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin",
        venue="NeurIPS",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
    )
    pairs_positions: ClassVar = True

    channels: int = integer(least=1)
    heads: int = integer(least=1)

    def __post_init__(self) -> None:
        """Refuse, besides, heads that can't share the channels equally."""
        super().__post_init__()
        if self.channels % self.heads:
            below = self.channels - self.channels % self.heads
            fitting = " or ".join(str(channels) for channels in (below, below + self.heads) if channels)
            raise ValueError(
                f"{type(self).__name__}: heads={self.heads}; expected a divisor of channels={self.channels}, "
                f"an equal share for each: with {self.heads} heads, {fitting} channels would do"
            )

    @classmethod
    def example(cls) -> MultiHeadSelfAttention:
        """Return a small instance: 16 channels, 2 heads of 8."""
        return cls(channels=16, heads=2)

    @property
    def head_channels(self) -> int:
        """d, channels of each head."""
        return self.channels // self.heads

    @property
    def scale(self) -> float:
        """Factor of the products, 1/√d."""
        return 1 / math.sqrt(self.head_channels)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layer that makes queries, keys and values, and the one that brings the heads together."""
        return {
            "in_proj_weight": xavier_uniform(3 * self.channels, self.channels),
            "in_proj_bias": zeros(3 * self.channels),
            "out_proj.weight": uniform_fan_in(self.channels, self.channels),
            "out_proj.bias": zeros(self.channels),
        }

    def forward(self, params: Params, x: Array) -> Pass:
        """Project, split into heads, attend, bring together. The tags are the equation numbers of the derivation."""
        heads = len(x), 3 * self.heads, self.head_channels, x.shape[2] * x.shape[3]
        u, back_in = layers.conv(x, params, "in_proj", separator="_")                   # (1)
        (q, k, v), back_split = ops.split(u.reshape(heads), 3 * (self.heads,), axis=1)  # (2)
        o, back_attention = ops.dot_product_attention(q, k, v, self.scale)              # (3)
        y, back_out = layers.conv(o.reshape(x.shape), params, "out_proj")               # (4)

        def backward(dy):
            do, grads_out = back_out(dy)                                                # (4')
            dq, dk, dv = back_attention(do.reshape(o.shape))                            # (3')
            du = back_split((dq, dk, dv)).reshape(u.shape)                              # (2')
            dx, grads_in = back_in(du)                                                  # (1')
            return dx, grads_in | grads_out

        return Pass(y, backward)

    def attention_map(self, params: Params, x: Array, rows: Sequence[int] | None = None) -> Array:
        """Make the attention map of every head, or some rows of it: where positions look.

        Parameters
        ----------
        params : mapping of str to array
        x : array, (B, C, H, W)
        rows : sequence of int, optional
            Positions, counted row by row from 0 to N - 1: row r and column c of the map are position r W + c. By
            default all, which takes memory for B heads N² numbers; each row of it takes B heads N.

        Returns
        -------
        array, (B, heads, N, N) or (B, heads, len(rows), N)
            Row j holds the weights s_ji of all positions i for position j; they add up to 1.

        Raises
        ------
        TypeError
            If an argument is refused by a call, or `rows` is no sequence of integers.
        ValueError
            If an argument is refused by a call, or a row lies beyond the map.
        """
        self.check(params, x)
        which = slice(None) if rows is None else check_positions(f"{self}.attention_map", rows, x.shape[2:])
        without_values = {name: parameter[: 2 * self.channels] for name, parameter in params.items()}
        u, _ = layers.conv(x, without_values, "in_proj", separator="_")
        u = u.reshape(len(x), 2 * self.heads, self.head_channels, x.shape[2] * x.shape[3])
        q, k = u[:, : self.heads], u[:, self.heads :]
        s, _ = ops.softmax(self.scale * q[..., which].swapaxes(-1, -2) @ k)
        return s
