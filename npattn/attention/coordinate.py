"""Coordinate attention: a gate for every row and one for every column of a map, so that averages keep a position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import ops
from npattn.checks import require_booleans, require_integers
from npattn.module import Module, Paper, Pass
from npattn.parameters import norm_buffers, norm_parameters, strip_prefix, uniform_fan_in


@dataclass(frozen=True)
class CoordinateAttention(Module):
    """Gate every channel row by row and column by column.

    Each channel is averaged along its rows and along its columns. The H + W averages pass one narrow layer together,
    f = hswish(BN(W₁ [p_h; p_w] + b₁)), part again, and become a gate for every row and one for every column:
    a_h = σ(W_h f_h + b_h), a_w = σ(W_w f_w + b_w), y = x ⊙ a_h ⊙ a_w.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    out_channels : int, optional
        Channels of the gates, an argument of the authors' code. They multiply the map, so there are C or none.
    reduction : int, default 32
        r; the narrow layer has M = max(8, C // r) channels.
    training : bool, default False
        Whether batch norm uses the batch's own statistics, and ``run.buffers`` holds the new running ones.

    Raises
    ------
    TypeError
        If `channels`, `out_channels` or `reduction` is no integer, or `training` no bool.
    ValueError
        If `channels` or `reduction` is below 1, or `out_channels` is another number than `channels`; when called
        in training, if the batch is empty.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["height"]``: (B, C, H, 1); ``attention["width"]``:
    (B, C, 1, W). Parameters, named as in the authors' code: ``conv1.weight`` (M, C, 1, 1), ``conv1.bias`` (M,),
    ``bn1.weight`` (M,), ``bn1.bias`` (M,), ``conv_h.weight`` (C, M, 1, 1), ``conv_h.bias`` (C,), ``conv_w.weight``
    (C, M, 1, 1), ``conv_w.bias`` (C,). Weights and biases start as that code's `Conv2d` layers do, uniform in
    ±1/√inputs; batch norm starts at 1 and 0. Running statistics: ``bn1.running_mean`` (M,), ``bn1.running_var`` (M,),
    in which a batch has weight 0.1. The slope of h-swish is 0 at -3 and 1 at 3.

    References
    ----------
    Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021: eq. 4 and 5 (pools),
    6 (narrow layer), 7 and 8 (gates), 9 (output).

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
    paper: ClassVar = Paper(
        title="Coordinate Attention for Efficient Mobile Network Design",
        authors="Hou, Zhou, Feng",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2103.02907",
    )

    channels: int
    out_channels: int | None = None
    reduction: int = 32
    training: bool = False

    def __post_init__(self):
        name = type(self).__name__
        require_integers(name, channels=self.channels, reduction=self.reduction)
        require_booleans(name, training=self.training)
        if self.out_channels is not None:
            require_integers(name, out_channels=self.out_channels)
            if self.out_channels != self.channels:
                raise ValueError(
                    f"{name}: out_channels={self.out_channels}; expected None or {self.channels}: "
                    "the gates multiply the map, so there must be as many as it has channels"
                )

    @classmethod
    def example(cls):
        """Return a small instance: 16 channels, 8 in the middle."""
        return cls(channels=16)

    @property
    def hidden_channels(self) -> int:
        """M, channels of the narrow layer."""
        return max(8, self.channels // self.reduction)

    def parameters(self):
        """Declare the narrow layer with its norm, and the two layers that make the gates."""
        wide, narrow = self.channels, self.hidden_channels
        return {
            "conv1.weight": uniform_fan_in(narrow, wide, 1, 1),
            "conv1.bias": uniform_fan_in(narrow, inputs=wide),
            **norm_parameters("bn1", narrow),
            "conv_h.weight": uniform_fan_in(wide, narrow, 1, 1),
            "conv_h.bias": uniform_fan_in(wide, inputs=narrow),
            "conv_w.weight": uniform_fan_in(wide, narrow, 1, 1),
            "conv_w.bias": uniform_fan_in(wide, inputs=narrow),
        }

    def buffers(self):
        """Declare batch norm's running mean and variance."""
        return norm_buffers("bn1", self.hidden_channels)

    def check_inputs(self, inputs):
        """Refuse, besides, a batch without a single value for batch norm's statistics."""
        super().check_inputs(inputs)
        if self.training and not inputs[0].shape[0]:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least one image for the mean and variance that "
                "batch norm takes in training, or training=False"
            )

    def forward(self, params, x):
        """Average along each axis, pass the narrow layer together, part, gate."""
        height, width = x.shape[2:]
        norm = strip_prefix("bn1.", params)
        p_h, back_rows = ops.average_pool(x, axis=3)                                          # (1)
        p_w, back_columns = ops.average_pool(x, axis=2)                                       # (2)
        p, back_join = ops.concatenate((p_h, p_w.swapaxes(2, 3)), axis=2)                     # (3)
        u, back_conv1 = ops.conv2d(p, **strip_prefix("conv1.", params))                       # (4)
        (v, running), back_norm = ops.batch_norm(u, **norm, training=self.training)           # (5)
        f, back_swish = ops.hard_swish(v)                                                     # (6)
        (f_h, f_w), back_split = ops.split(f, (height, width), axis=2)                        # (7)
        z_h, back_conv_h = ops.conv2d(f_h, **strip_prefix("conv_h.", params))                 # (8)
        z_w, back_conv_w = ops.conv2d(f_w.swapaxes(2, 3), **strip_prefix("conv_w.", params))  # (9)
        a_h, back_sigmoid_h = ops.sigmoid(z_h)                                                # (10)
        a_w, back_sigmoid_w = ops.sigmoid(z_w)                                                # (11)
        s, back_gate_h = ops.gate(x, a_h)                                                     # (12)
        y, back_gate_w = ops.gate(s, a_w)                                                     # (13)

        def backward(dy):
            ds, da_w = back_gate_w(dy)                                                        # (13')
            dx, da_h = back_gate_h(ds)                                                        # (12')
            dz_w = back_sigmoid_w(da_w)                                                       # (11')
            dz_h = back_sigmoid_h(da_h)                                                       # (10')
            df_w, dww, dbw = back_conv_w(dz_w)                                                # (9')
            df_h, dwh, dbh = back_conv_h(dz_h)                                                # (8')
            df = back_split((df_h, df_w.swapaxes(2, 3)))                                      # (7')
            dv = back_swish(df)                                                               # (6')
            du, dscale, dshift = back_norm(dv)                                                # (5')
            dp, dw1, db1 = back_conv1(du)                                                     # (4')
            dp_h, dp_w = back_join(dp)                                                        # (3')
            dx = back_columns(dp_w.swapaxes(2, 3), accumulate_into=dx)                        # (2')
            dx = back_rows(dp_h, accumulate_into=dx)                                          # (1')
            grads = {"conv1.weight": dw1, "conv1.bias": db1, "bn1.weight": dscale, "bn1.bias": dshift}
            grads |= {"conv_h.weight": dwh, "conv_h.bias": dbh, "conv_w.weight": dww, "conv_w.bias": dbw}
            return dx, grads

        buffers = dict(zip(self.buffers(), running, strict=True)) if self.training else {}
        return Pass(y, backward, attention={"height": a_h, "width": a_w}, buffers=buffers)
