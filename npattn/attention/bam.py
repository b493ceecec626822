"""BAM, the bottleneck attention module: a channel branch and a dilated spatial branch, joined before one sigmoid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.calls import require_several_images
from npattn.fields import boolean, choice, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_buffers, norm_parameters
from npattn.typing import Array, Backward, Params

CHANNEL, SPATIAL = "channel_att.gate_c.gate_c", "spatial_att.gate_s.gate_s"
"""What the names of the branches' layers begin with."""
LEVELS = "reduce0", "di_0", "di_1"
"""The three levels of the spatial branch before its last convolution, as the authors' code calls them."""


def level(
    x: Array, params: Params, name: str, *, training: bool, dilation: int = 1
) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Convolve, normalise and rectify on one level of the spatial branch; the map keeps its size."""
    conv, norm = f"{SPATIAL}_conv_{name}", f"{SPATIAL}_bn_{name}"
    padding = dilation * (params[f"{conv}.weight"].shape[2] // 2)
    q, back_conv = layers.conv(x, params, conv, padding=padding, dilation=dilation)  # (1)
    (n, running), back_norm = layers.batch_norm(q, params, norm, training=training)  # (2)
    r, back_relu = ops.relu(n)                                                       # (3)

    def backward(dr):
        dn = back_relu(dr)                                                           # (3')
        dq, grads_norm = back_norm(dn)                                               # (2')
        dx, grads_conv = back_conv(dq)                                               # (1')
        return dx, grads_conv | grads_norm

    return (r, running), backward


@dataclass(frozen=True)
class BAM(Module):
    """Gate every number of a map by what its channel and its position say together, and add the map itself.

    One branch makes of the channels' averages a number for each channel, through two layers; the other makes of the map
    a number for each position, through convolutions whose taps lie apart, so that they see far. Both meet before the
    sigmoid: M = σ(c ⊙ s) with a gate for every channel at every position, or σ(c + s), and y = x ⊙ (1 + M).

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 16
        r; both branches have max(1, C // r) channels inside.
    dilation : int, default 4
        Step between the taps of the two 3×3 convolutions.
    variant : {"code", "paper"}, default "code"
        Whether the branches are multiplied, as in the authors' code, or added, as in the paper.
    training : bool, default False
        Whether the batch norms use the batch's own statistics, and ``run.buffers`` holds the new running ones.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called in training, if the batch has fewer than two images.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel_branch"]``: (B, C), c;
    ``attention["spatial_branch"]``: (B, 1, H, W), s; ``attention["gates"]``: (B, C, H, W), M. Parameters, named as in
    the authors' code, with h = max(1, C // r), of the channel branch ``channel_att.gate_c.gate_c_fc_0.weight`` (h, C),
    ``channel_att.gate_c.gate_c_fc_0.bias`` (h,), ``channel_att.gate_c.gate_c_bn_1.weight`` (h,),
    ``channel_att.gate_c.gate_c_bn_1.bias`` (h,), ``channel_att.gate_c.gate_c_fc_final.weight`` (C, h),
    ``channel_att.gate_c.gate_c_fc_final.bias`` (C,), and of the spatial one
    ``spatial_att.gate_s.gate_s_conv_reduce0.weight`` (h, C, 1, 1), ``spatial_att.gate_s.gate_s_conv_reduce0.bias``
    (h,), ``spatial_att.gate_s.gate_s_bn_reduce0.weight`` (h,), ``spatial_att.gate_s.gate_s_bn_reduce0.bias`` (h,),
    ``spatial_att.gate_s.gate_s_conv_di_0.weight`` (h, h, 3, 3), ``spatial_att.gate_s.gate_s_conv_di_0.bias`` (h,),
    ``spatial_att.gate_s.gate_s_bn_di_0.weight`` (h,), ``spatial_att.gate_s.gate_s_bn_di_0.bias`` (h,),
    ``spatial_att.gate_s.gate_s_conv_di_1.weight`` (h, h, 3, 3), ``spatial_att.gate_s.gate_s_conv_di_1.bias`` (h,),
    ``spatial_att.gate_s.gate_s_bn_di_1.weight`` (h,), ``spatial_att.gate_s.gate_s_bn_di_1.bias`` (h,),
    ``spatial_att.gate_s.gate_s_conv_final.weight`` (1, h, 1, 1), ``spatial_att.gate_s.gate_s_conv_final.bias`` (1,).
    The norms' running statistics stand beside their parameters. All start as PyTorch's layers do.

    References
    ----------
    Park, Woo, Lee, Kweon: BAM: Bottleneck Attention Module, BMVC 2018, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = BAM(channels=8, reduction=4)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel_branch (2, 8); spatial_branch (2, 1, 7, 5); gates (2, 8, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> grads["spatial_att.gate_s.gate_s_conv_di_0.weight"].shape
    (2, 2, 3, 3)
    """

    key: ClassVar = "bam"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="BAM: Bottleneck Attention Module",
        authors="Park, Woo, Lee, Kweon",
        venue="BMVC",
        year=2018,
        url="https://arxiv.org/abs/1807.06514",
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=16)
    dilation: int = integer(least=1, default=4)
    variant: str = choice(("code", "paper"), default="code")
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> BAM:
        """Return a small instance: 32 channels, 4 inside of the branches."""
        return cls(channels=32, reduction=8)

    @property
    def hidden_channels(self) -> int:
        """Channels inside of both branches."""
        return max(1, self.channels // self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare the channel branch's layers, then the spatial branch's level by level."""
        channels, hidden = self.channels, self.hidden_channels
        declared = layers.linear_parameters(f"{CHANNEL}_fc_0", hidden, channels)
        declared |= norm_parameters(f"{CHANNEL}_bn_1", hidden)
        declared |= layers.linear_parameters(f"{CHANNEL}_fc_final", channels, hidden)
        for name in LEVELS:
            inputs, kernel_size = (channels, 1) if name == "reduce0" else (hidden, 3)
            declared |= layers.conv_parameters(f"{SPATIAL}_conv_{name}", hidden, inputs, kernel_size)
            declared |= norm_parameters(f"{SPATIAL}_bn_{name}", hidden)
        return declared | layers.conv_parameters(f"{SPATIAL}_conv_final", 1, hidden)

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics of all norms."""
        declared = norm_buffers(f"{CHANNEL}_bn_1", self.hidden_channels)
        for name in LEVELS:
            declared |= norm_buffers(f"{SPATIAL}_bn_{name}", self.hidden_channels)
        return declared

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a single image in training, of which the channel branch's norm sees one value a channel."""
        super().check_inputs(inputs)
        require_several_images(self, inputs[0])

    def forward(self, params: Params, x: Array) -> Pass:
        """Ask channels and positions, join what they say, gate. The tags are the derivation's equation numbers."""
        join = ops.gate if self.variant == "code" else ops.shift
        training, dilation = self.training, self.dilation
        p, back_pool = ops.global_average_pool(x)                                                       # (4)
        h, back_fc1 = layers.linear(p, params, f"{CHANNEL}_fc_0")                                       # (5)
        n = h[:, :, None, None]
        (n, running_c), back_norm = layers.batch_norm(n, params, f"{CHANNEL}_bn_1", training=training)  # (6)
        r, back_relu = ops.relu(n[:, :, 0, 0])                                                          # (7)
        c, back_fc2 = layers.linear(r, params, f"{CHANNEL}_fc_final")                                   # (8)
        (u, running_0), back_0 = level(x, params, LEVELS[0], training=training)                         # (9)
        (v, running_1), back_1 = level(u, params, LEVELS[1], training=training, dilation=dilation)      # (10)
        (w, running_2), back_2 = level(v, params, LEVELS[2], training=training, dilation=dilation)      # (11)
        s, back_final = layers.conv(w, params, f"{SPATIAL}_conv_final")                                 # (12)
        e, back_repeat = ops.repeat(s, self.channels, axis=1)                                           # (13)
        z, back_join = join(e, c)                                                                       # (14)
        m, back_sigmoid = ops.sigmoid(z)                                                                # (15)
        g, back_gate = ops.gate(x, m)                                                                   # (16)
        y, back_add = ops.add(x, g)                                                                     # (17)

        def backward(dy):
            dx, dg = back_add(dy)                                                                       # (17')
            dx_gate, dm = back_gate(dg)                                                                 # (16')
            dz = back_sigmoid(dm)                                                                       # (15')
            del dm  # here and below no map is held longer than it is needed
            de, dc = back_join(dz)                                                                      # (14')
            del dz
            ds = back_repeat(de)                                                                        # (13')
            del de
            dw, grads_final = back_final(ds)                                                            # (12')
            dv, grads_2 = back_2(dw)                                                                    # (11')
            du, grads_1 = back_1(dv)                                                                    # (10')
            dx_spatial, grads_0 = back_0(du)                                                            # (9')
            dr, grads_fc2 = back_fc2(dc)                                                                # (8')
            dn = back_relu(dr)                                                                          # (7')
            dh, grads_norm = back_norm(dn[:, :, None, None])                                            # (6')
            dp, grads_fc1 = back_fc1(dh[:, :, 0, 0])                                                    # (5')
            dx, _ = ops.add(dx, dx_gate, dx_spatial)
            dx = back_pool(dp, accumulate_into=dx)                                                      # (4')
            return dx, grads_fc1 | grads_norm | grads_fc2 | grads_0 | grads_1 | grads_2 | grads_final

        maps = {"channel_branch": c, "spatial_branch": s, "gates": m}
        return Pass(y, backward, maps, running_c | running_0 | running_1 | running_2)
