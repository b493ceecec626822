"""Multi-head self-attention: several small attentions side by side, each with its own view of the map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import layers, ops
from npattn.attention.scaled_dot_product import ScaledDotProductAttention, draw_lengths, shape_of_pairs
from npattn.attention_maps import MapByRows
from npattn.fields import boolean, integer
from npattn.module import Pass
from npattn.ops.masking import masked_weights
from npattn.parameters import Parameter, uniform_fan_in, xavier_uniform, zeros
from npattn.typing import Array, Backward, Params


@dataclass(frozen=True)
class MultiHeadSelfAttention(MapByRows):
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
    causal : bool, default False
        Whether position j sees the positions i ≤ j alone, row by row.
    bias : bool, default False
        Whether an input ``bias`` is added to the logits.
    padding : bool, default False
        Whether an input ``lengths`` says from where on the positions of an image are padding, which none sees.

    Raises
    ------
    TypeError
        If `channels` or `heads` is no integer, or another hyperparameter no bool.
    ValueError
        If `channels` or `heads` is below 1, or `heads` does not divide `channels`.

    Notes
    -----
    Input ``x``: (B, C, H, W); with `bias` also ``bias`` (B or 1, heads or 1, N, N); with `padding` also ``lengths``
    (B,), for which backward returns None. Both are arrays of x's dtype; an image of length 0 gathers nothing. Output:
    (B, C, H, W), without residual. Parameters, named as in PyTorch's `MultiheadAttention`: ``in_proj_weight`` (3C, C),
    the rows of queries, keys and values one below the other, each head by head; ``in_proj_bias`` (3C,),
    ``out_proj.weight`` (C, C), ``out_proj.bias`` (C,). They start as there:
    ``in_proj_weight`` by Glorot and Bengio's rule for its 3C × C, ``out_proj.weight`` uniform in ±1/√C, biases at 0.
    The pass has no attention map, which would be N × N for each head: `attention_map` makes the rows of it that are
    asked for. Row j holds the weights s_ji of all positions i for position j; they add up to 1, or 0 where none is
    seen.

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
    family: ClassVar = "self-attention"
    paper: ClassVar = ScaledDotProductAttention.paper
    pairs_positions: ClassVar = True
    without_gradient: ClassVar = ("lengths",)

    channels: int = integer(least=1)
    heads: int = integer(least=1, divides="channels")
    causal: bool = boolean(default=False)
    bias: bool = boolean(default=False)
    padding: bool = boolean(default=False)

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

    @property
    def band(self) -> tuple[int | None, int | None]:
        """The least and the most that i - j may be for position j to see i; None where nothing bounds it."""
        return None, 0 if self.causal else None

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the map and, where they are asked for, of the bias, which serves all heads, and of the lengths."""
        shapes = super().input_shapes(batch, height, width)
        if self.bias:
            shapes["bias"] = batch, 1, height * width, height * width
        if self.padding:
            shapes["lengths"] = (batch,)
        return shapes

    def expected_shapes(self, inputs: tuple[Array, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes that inputs have to have; a bias may serve all images, or all heads."""
        expected = super().expected_shapes(inputs)
        if self.bias and inputs[1].ndim == 4:
            expected["bias"] = shape_of_pairs(inputs[1], (len(inputs[0]), self.heads), expected["bias"])
        return expected

    def draw_inputs(
        self, shapes: Mapping[str, tuple[int, ...]], random: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Draw lengths that hide no mask, nor are hidden by one; the third image, where there is one, has none."""
        found = super().draw_inputs(shapes, random)
        if self.padding:
            positions = math.prod(shapes["x"][2:])
            found["lengths"] = draw_lengths(shapes["lengths"][0], positions, positions, self.band, random)
        return found

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layer that makes queries, keys and values, and the one that brings the heads together."""
        return {
            "in_proj_weight": xavier_uniform(3 * self.channels, self.channels),
            "in_proj_bias": zeros(3 * self.channels),
            "out_proj.weight": uniform_fan_in(self.channels, self.channels),
            "out_proj.bias": zeros(self.channels),
        }

    def forward(self, params: Params, x: Array, *others: Array) -> Pass:
        """Project, split into heads, attend, bring together. The tags are the equation numbers of the derivation."""
        heads = len(x), 3 * self.heads, self.head_channels, x.shape[2] * x.shape[3]
        u, back_in = layers.conv(x, params, "in_proj", separator="_")                   # (1)
        (q, k, v), back_split = ops.split(u.reshape(heads), 3 * (self.heads,), axis=1)  # (2)
        o, back_attention = self.attend(q, k, v, others)                                # (3)
        y, back_out = layers.conv(o.reshape(x.shape), params, "out_proj")               # (4)

        def backward(dy):
            do, grads_out = back_out(dy)                                                # (4')
            dq, dk, dv, dbias = back_attention(do.reshape(o.shape))                     # (3')
            du = back_split((dq, dk, dv)).reshape(u.shape)                              # (2')
            dx, grads_in = back_in(du)                                                  # (1')
            dothers = (dbias,) * self.bias + (None,) * self.padding
            return (dx, *dothers) if others else dx, grads_in | grads_out

        return Pass(y, backward)

    def attend(self, q: Array, k: Array, v: Array, others: Sequence[Array]) -> tuple[Array, Backward]:
        """Let queries average values, with masks and a bias where they are asked for; backward has four gradients."""
        if not (self.causal or others):
            o, backward = ops.dot_product_attention(q, k, v, self.scale)
            return o, lambda do: (*backward(do), None)
        (o, _), backward = ops.masked_attention(q, k, v, self.scale, **self.masking(others))
        return o, lambda do: backward(do)[:4]

    def masking(self, others: Sequence[Array]) -> dict[str, Any]:
        """Name what `ops.masked_attention` is given beside queries, keys, values and the scale."""
        given = dict(zip(list(self.input_shapes(1, 1, 1))[1:], others, strict=True))
        lengths = given["lengths"][:, None] if self.padding else None
        return {"bias": given.get("bias"), "band": self.band, "lengths": lengths}

    def map_rows(self, params: Params, rows: slice | list[int], x: Array, *others: Array) -> Array:
        """Make the weights s_ji of all positions i for some positions j, of every head."""
        without_values = {name: parameter[: 2 * self.channels] for name, parameter in params.items()}
        u, _ = layers.conv(x, without_values, "in_proj", separator="_")
        u = u.reshape(len(x), 2 * self.heads, self.head_channels, x.shape[2] * x.shape[3])
        q, k = u[:, : self.heads], u[:, self.heads :]
        return masked_weights(q, k, rows, self.scale, **self.masking(others))
