"""Coordinate attention: a gate for every row and one for every column of a map, so that averages keep a position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.fields import boolean, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Params


@dataclass(frozen=True)
class CoordinateAttention(Module):
    """Gate every channel row by row and column by column.

    Each channel is averaged along its rows and along its columns. The H + W averages pass one hidden layer together,
    f = hswish(BN(W₁ [p_h; p_w] + b₁)), part again, and become a gate for every row and one for every column:
    a_h = σ(W_h f_h + b_h), a_w = σ(W_w f_w + b_w), y = x ⊙ a_h ⊙ a_w.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    out_channels : int, optional
        Channels of the gates, an argument of the authors' code. They multiply the map, so there are C or none.
    reduction : int, default 32
        r; the hidden layer has M = max(8, C // r) channels.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, and ``run.buffers`` holds the new running ones.
    hidden : int, optional
        M itself, in place of that.
    bias : bool, default True
        Whether the three layers have biases; timm's have none unless it is told.

    Raises
    ------
    TypeError
        If `channels`, `out_channels`, `reduction` or `hidden` is no integer, or `training` or `bias` no bool.
    ValueError
        If `channels`, `reduction` or `hidden` is below 1, or `out_channels` is another number than `channels`; when
        called in training, if the batch is empty.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["height"]``: (B, C, H, 1); ``attention["width"]``:
    (B, C, 1, W). Parameters, named as in the authors' code: ``conv1.weight`` (M, C, 1, 1), ``conv1.bias`` (M,),
    ``bn1.weight`` (M,), ``bn1.bias`` (M,), ``conv_h.weight`` (C, M, 1, 1), ``conv_h.bias`` (C,), ``conv_w.weight``
    (C, M, 1, 1), ``conv_w.bias`` (C,). Weights and biases start as that code's `Conv2d` layers do, uniform in
    ±1/√inputs; batch norm starts at 1 and 0. Running statistics: ``bn1.running_mean`` (M,), ``bn1.running_var`` (M,),
    in which a batch has weight 0.1. The slope of h-swish is 0 at -3 and 1 at 3. The names ``conv2`` and ``conv3`` that
    the authors' MobileNetV2 has for ``conv_h`` and ``conv_w`` are read too.

    References
    ----------
    Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021: eq. 4 and 5 (pools),
    6 (hidden layer), 7 and 8 (gates), 9 (output).

    Examples
    --------
    >>> import numpy as np
    >>> module = CoordinateAttention(channels=16)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 16, 7, 5); height (2, 16, 7, 1); width (2, 16, 1, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["conv_h.weight"].shape
    (16, 8, 1, 1)
    """

    key: ClassVar = "coordinate"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="Coordinate Attention for Efficient Mobile Network Design",
        authors="Hou, Zhou, Feng",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2103.02907",
    )

    published: ClassVar = (Naming({"conv1": "conv1", "bn1": "bn1", "conv2": "conv_h", "conv3": "conv_w"}),)

    channels: int = integer(least=1)
    out_channels: int | None = integer(least=1, default=None)
    reduction: int = integer(least=1, default=32)
    training: bool = boolean(default=False)
    hidden: int | None = integer(least=1, default=None)
    bias: bool = boolean(default=True)

    def __post_init__(self) -> None:
        """Refuse, besides, gates that don't fit the map."""
        super().__post_init__()
        if self.out_channels not in (None, self.channels):
            raise ValueError(
                f"{type(self).__name__}: out_channels={self.out_channels}; expected None or {self.channels}: "
                "the gates multiply the map, so there must be as many as it has channels"
            )

    @classmethod
    def example(cls) -> CoordinateAttention:
        """Return a small instance: 16 channels, 8 in the hidden layer."""
        return cls(channels=16)

    @property
    def hidden_channels(self) -> int:
        """M, channels of the hidden layer: `hidden`, or C // r, at least 8."""
        return self.hidden or max(8, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the hidden layer with its norm, and the two layers that make the gates."""
        return {
            **layers.conv_parameters("conv1", self.hidden_channels, self.channels, bias=self.bias),
            **norm_parameters("bn1", self.hidden_channels),
            **layers.conv_parameters("conv_h", self.channels, self.hidden_channels, bias=self.bias),
            **layers.conv_parameters("conv_w", self.channels, self.hidden_channels, bias=self.bias),
        }

    def buffers(self) -> dict[str, Parameter]:
        """Declare batch norm's running mean and variance."""
        return norm_buffers("bn1", self.hidden_channels)

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a batch without a single value for batch norm's statistics."""
        super().check_inputs(inputs)
        if self.training and not inputs[0].shape[0]:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least one image for the mean and variance that "
                "batch norm takes in training, or training=False"
            )

    def forward(self, params: Params, x: Array) -> Pass:
        """Average along each axis, pass the hidden layer together, part, gate."""
        height, width = x.shape[2:]
        p_h, back_rows = ops.average_pool(x, axis=3)                                           # (1)
        p_w, back_columns = ops.average_pool(x, axis=2)                                        # (2)
        p, back_join = ops.concatenate((p_h, p_w.swapaxes(2, 3)), axis=2)                      # (3)
        u, back_conv1 = layers.conv(p, params, "conv1")                                        # (4)
        (v, running), back_norm = layers.batch_norm(u, params, "bn1", training=self.training)  # (5)
        f, back_swish = ops.hard_swish(v)                                                      # (6)
        (f_h, f_w), back_split = ops.split(f, (height, width), axis=2)                         # (7)
        z_h, back_conv_h = layers.conv(f_h, params, "conv_h")                                  # (8)
        z_w, back_conv_w = layers.conv(f_w.swapaxes(2, 3), params, "conv_w")                   # (9)
        a_h, back_sigmoid_h = ops.sigmoid(z_h)                                                 # (10)
        a_w, back_sigmoid_w = ops.sigmoid(z_w)                                                 # (11)
        s, back_gate_h = ops.gate(x, a_h)                                                      # (12)
        y, back_gate_w = ops.gate(s, a_w)                                                      # (13)

        def backward(dy):
            ds, da_w = back_gate_w(dy)                                                         # (13')
            dx, da_h = back_gate_h(ds)                                                         # (12')
            dz_w = back_sigmoid_w(da_w)                                                        # (11')
            dz_h = back_sigmoid_h(da_h)                                                        # (10')
            df_w, grads_w = back_conv_w(dz_w)                                                  # (9')
            df_h, grads_h = back_conv_h(dz_h)                                                  # (8')
            df = back_split((df_h, df_w.swapaxes(2, 3)))                                       # (7')
            dv = back_swish(df)                                                                # (6')
            du, grads_norm = back_norm(dv)                                                     # (5')
            dp, grads_conv1 = back_conv1(du)                                                   # (4')
            dp_h, dp_w = back_join(dp)                                                         # (3')
            dx = back_columns(dp_w.swapaxes(2, 3), accumulate_into=dx)                         # (2')
            dx = back_rows(dp_h, accumulate_into=dx)                                           # (1')
            return dx, grads_conv1 | grads_norm | grads_h | grads_w

        return Pass(y, backward, attention={"height": a_h, "width": a_w}, buffers=running)
