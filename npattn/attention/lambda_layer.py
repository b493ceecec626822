"""Lambda layer: each position is handed a linear map, made of the whole map and of its surroundings."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.array_checks import check_map_size, check_variance
from npattn.attention.bottleneck import halve
from npattn.fields import boolean, integer, positive, two_integers
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_buffers, norm_parameters, normal, round_channels, uniform_fan_in
from npattn.typing import Array, Backward, Params

KERNEL, TABLE = ("conv_lambda.weight", "conv_lambda.bias"), ("pos_emb",)
"""What position lambdas are made by."""


@dataclass(frozen=True)
class LambdaLayer(Module):
    """Apply to each position's queries a matrix that holds what there is in the map, and what there is around it.

    One 1×1 convolution makes of each position queries for several heads, one key and one value. A softmax of keys over
    the positions says what each of K content lambdas gathers of the values; position lambdas gather values by how far
    away they stand, through a kernel of r × r, or through a table for the whole map. Their sum, K × V for each
    position, is shared by all heads; no position is compared with another.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    heads : int, default 4
        E, heads: queries of a position. A divisor of C.
    key_channels : int, default 16
        K, channels of queries and keys.
    kernel_size : int, default 9
        r, odd: position lambdas see the (r - 1) / 2 nearest positions on every side.
    feat_size : pair of int, optional
        Height and width of the map: where they are given, position lambdas see all of it, through a table.
    qk_ratio : float, optional
        Where it is given, K is `qk_ratio` C, rounded to a multiple of 8, over the number of heads.
    stride : {1, 2}, default 1
        If 2, what comes out is averaged over blocks of 2×2 positions.
    bias : bool, default False
        Whether the 1×1 convolution has a bias.
    training : bool, default False
        Whether batch norm takes the batch's own statistics.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; if `heads` does not divide `channels`; when called, if a map is not of the
        size given or has fewer than 2 × 2 positions for `stride` 2, and in training if the batch has fewer than two
        positions.

    Notes
    -----
    Input ``x``: (B, C, H, W), with `stride` 2 of at least 2 × 2 positions. Output: (B, C, ⌊H/stride⌋, ⌊W/stride⌋).
    ``attention["keys"]``: (B, K, H, W), each map adds up to 1. Parameters, named as in timm, with V = C / E:
    ``pos_emb`` (2H - 1, 2W - 1, K) where there is a table; ``qkv.weight`` (E K + K + V, C, 1, 1) and ``qkv.bias``;
    ``norm_q.weight`` and ``norm_q.bias`` (E K,), ``norm_v.weight`` and ``norm_v.bias`` (V,) and running statistics;
    where there is a kernel, ``conv_lambda.weight`` (K, 1, r, r, 1) and ``conv_lambda.bias`` (K,). Kernels start from
    normal distributions with deviations 1/√C, of ``conv_lambda`` 1/√K, of the table 0.02.

    References
    ----------
    Bello: LambdaNetworks: Modeling Long-Range Interactions Without Attention, ICLR 2021, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = LambdaLayer(channels=16, key_channels=4, kernel_size=3)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 16, 7, 5); keys (2, 4, 7, 5))
    >>> dx, grads = run.backward(run.output)
    >>> grads["conv_lambda.weight"].shape
    (4, 1, 3, 3, 1)
    """

    key: ClassVar = "lambda"
    family: ClassVar = "self-attention"
    paper: ClassVar = Paper(
        title="LambdaNetworks: Modeling Long-Range Interactions Without Attention",
        authors="Bello",
        venue="ICLR",
        year=2021,
        url="https://arxiv.org/abs/2102.08602",
    )

    channels: int = integer(least=1)
    heads: int = integer(least=1, default=4, divides="channels")
    key_channels: int = integer(least=1, default=16)
    kernel_size: int = integer(least=1, default=9, odd=True)
    feat_size: tuple[int, int] | None = two_integers(default=None)
    qk_ratio: float | None = positive(default=None)
    stride: int = integer(least=1, most=2, default=1)
    bias: bool = boolean(default=False)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> LambdaLayer:
        """Return a small instance: 16 channels, 4 heads, 4 channels of keys, kernels of 3×3."""
        return cls(channels=16, key_channels=4, kernel_size=3)

    @property
    def query_channels(self) -> int:
        """K, channels of queries and keys: `key_channels`, or by `qk_ratio`."""
        if self.qk_ratio is None:
            return self.key_channels
        return max(1, round_channels(self.qk_ratio * self.channels) // self.heads)

    @property
    def value_channels(self) -> int:
        """V, channels of values and of each head's output: C / E."""
        return self.channels // self.heads

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the map; with a table its height and width are those of `feat_size`, whatever others are asked."""
        return {"x": (batch, self.channels, *(self.feat_size or (height, width)))}

    def for_size(self, height: int, width: int) -> LambdaLayer:
        """Return the system with a table, if it has one, for maps of another size."""
        return self if self.feat_size is None else replace(self, feat_size=(height, width))

    def output_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shape of the result."""
        height, width = self.feat_size or (height, width)
        return {"output": (batch, self.channels, height // self.stride, width // self.stride)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers in timm's order, with a table first, or a kernel last."""
        outputs = (self.heads + 1) * self.query_channels + self.value_channels
        table, kernel, bias = dict[str, Parameter](), dict[str, Parameter](), dict[str, Parameter]()
        if self.feat_size is not None:
            height, width = self.feat_size
            table = {"pos_emb": normal(2 * height - 1, 2 * width - 1, self.query_channels, deviation=0.02)}
        else:
            shape = self.query_channels, 1, self.kernel_size, self.kernel_size, 1
            kernel = {
                "conv_lambda.weight": normal(*shape, deviation=self.query_channels**-0.5),
                "conv_lambda.bias": uniform_fan_in(self.query_channels, inputs=self.kernel_size**2),
            }
        if self.bias:
            bias = {"qkv.bias": uniform_fan_in(outputs, inputs=self.channels)}
        return {
            **table,
            "qkv.weight": normal(outputs, self.channels, 1, 1, deviation=self.channels**-0.5),
            **bias,
            **norm_parameters("norm_q", self.heads * self.query_channels),
            **norm_parameters("norm_v", self.value_channels),
            **kernel,
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of queries and values."""
        return norm_buffers("norm_q", self.heads * self.query_channels) | norm_buffers("norm_v", self.value_channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, maps that a table or a pool is not for, and a batch whose variance can't be estimated."""
        if self.feat_size is not None:
            check_map_size(self, inputs, self.feat_size, "the table is")
        super().check_inputs(inputs)
        shape = inputs[0].shape
        if self.stride == 2 and min(shape[2:]) < 2:
            raise ValueError(
                f"{self}: x has shape {shape}; expected at least 2 × 2 positions, of which one is made: give a larger "
                "map, or set stride=1"
            )
        if self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Project, normalise, make lambdas, apply them. The tags are the equation numbers of the derivation."""
        (batch, _, height, width), keys, values = x.shape, self.query_channels, self.value_channels
        positions, sizes = height * width, (self.heads * keys, keys, values)
        u, back_qkv = layers.conv(x, params, "qkv")                                                   # (1)
        (q, k, v), back_split = ops.split(u, sizes, axis=1)                                           # (2)
        (n, running_q), back_norm_q = layers.batch_norm(q, params, "norm_q", training=self.training)  # (3)
        (w, running_v), back_norm_v = layers.batch_norm(v, params, "norm_v", training=self.training)  # (4)
        a, back_softmax = ops.softmax(k.reshape(batch, keys, positions))                              # (5)
        w = w.reshape(batch, values, positions)
        c, back_content = ops.matmul(w, a.swapaxes(1, 2))                                             # (6)
        p, back_position = self.position_lambdas(w, params, (height, width))                          # (7)
        lambdas, back_add = ops.shift(p, c)                                                           # (8)
        n = n.reshape(batch, self.heads, keys, positions)
        o, back_apply = ops.apply_lambdas(n, lambdas)                                                 # (9)
        y = o.reshape(x.shape)
        if self.stride == 2:
            y, back_pool = halve(y)                                                                   # (10)

        def backward(dy):
            if self.stride == 2:
                dy = back_pool(dy)                                                                    # (10')
            dn, dlambdas = back_apply(dy.reshape(o.shape))                                            # (9')
            dp, dc = back_add(dlambdas)                                                               # (8')
            dw, grads_position = back_position(dp)                                                    # (7')
            dw_of_content, da = back_content(dc)                                                      # (6')
            dk = back_softmax(da.swapaxes(1, 2))                                                      # (5')
            dw = ops.accumulate(dw_of_content, dw)
            dv, grads_v = back_norm_v(dw.reshape(v.shape))                                            # (4')
            dq, grads_q = back_norm_q(dn.reshape(q.shape))                                            # (3')
            du = back_split((dq, dk.reshape(k.shape), dv))                                            # (2')
            dx, grads_qkv = back_qkv(du)                                                              # (1')
            grads = layers.merge(grads_qkv, grads_q, grads_v, grads_position)
            return dx, {name: grads[name] for name in self.parameter_shapes()}

        attention = {"keys": a.reshape(k.shape)}
        return Pass(y, backward, attention=attention, buffers=running_q | running_v)

    def position_lambdas(self, w: Array, params: Params, size: tuple[int, int]) -> tuple[Array, Backward]:
        """Gather values, (B, V, N), by how far away they stand: K ways for each position, (B, V, K, N)."""
        gather, names = (by_kernel, KERNEL) if self.feat_size is None else (by_table, TABLE)
        return layers.named(functools.partial(gather, size=size), w, params, names)


def by_kernel(w: Array, weight: Array, bias: Array, *, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Gather with K kernels, which slide over each of the V maps alone."""
    kernel = weight.reshape(weight.shape[:4])
    p, back = ops.conv2d(w.reshape(w.shape[0] * w.shape[1], 1, *size), kernel, bias, padding=kernel.shape[3] // 2)

    def backward(dp):
        dw, dweight, dbias = back(dp.reshape(p.shape))
        return dw.reshape(w.shape), dweight, dbias

    return p.reshape(*w.shape[:2], len(kernel), w.shape[2]), backward


def by_table(w: Array, table: Array, *, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Gather with weights that the table has for the way from each position to each, both in the same maps."""
    batch, values, positions = w.shape
    g, back_table = ops.gather_relative(table, size)  # K, from m to n
    p, back = ops.matmul(w.reshape(batch * values, positions), g.swapaxes(0, 1).reshape(positions, len(g) * positions))

    def backward(dp):
        dw, drows = back(dp.reshape(p.shape))
        return dw.reshape(w.shape), back_table(drows.reshape(positions, *g.shape[::2]).swapaxes(0, 1))

    return p.reshape(batch, values, len(g), positions), backward
