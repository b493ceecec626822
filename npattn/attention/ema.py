"""Efficient multi-scale attention: in every group of channels two branches say to each other which channels count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import integer
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.parameters import Parameter, norm_parameters
from npattn.typing import Array, Params


@dataclass(frozen=True)
class EfficientMultiScaleAttention(Module):
    """Gate the positions of every group of channels by two branches, each read by the channels that the other weighs.

    The channels are cut into groups, which share all parameters. In a group one branch gates the rows and the columns,
    as coordinate attention does, by one 1×1 convolution over the averages of both, and normalises every channel; the
    other is a 3×3 convolution. Each branch's averages, through a softmax, are weights of the channels of the other
    one, and so make a map of it; σ of the sum of both maps is the group's gate, one for each position.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    groups : int, default 32
        G, a divisor of C: `factor` of the authors' code.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these, or `groups` does not divide `channels`.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["cross"]``: (B, G, H, W), the gates. Parameters, named
    as in the authors' code, with c = C / G: ``gn.weight`` and ``gn.bias`` (c,), ``conv1x1.weight`` (c, c, 1, 1),
    ``conv1x1.bias`` (c,), ``conv3x3.weight`` (c, c, 3, 3), ``conv3x3.bias`` (c,). They start as PyTorch's layers do.

    References
    ----------
    Ouyang, He, Zhang, Luo, Guo, Zhan, Huang: Efficient Multi-Scale Attention Module with Cross-Spatial Learning, ICASSP
    2023, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = EfficientMultiScaleAttention(channels=16, groups=4)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 16, 7, 5); cross (2, 4, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["conv3x3.weight"].shape
    (4, 4, 3, 3)
    """

    key: ClassVar = "ema"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="Efficient Multi-Scale Attention Module with Cross-Spatial Learning",
        authors="Ouyang, He, Zhang, Luo, Guo, Zhan, Huang",
        venue="ICASSP",
        year=2023,
        url="https://arxiv.org/abs/2305.13563",
    )

    channels: int = integer(least=1)
    groups: int = integer(least=1, default=32, divides="channels")

    @classmethod
    def example(cls) -> EfficientMultiScaleAttention:
        """Return a small instance: 32 channels in 8 groups."""
        return cls(channels=32, groups=8)

    def parameters(self) -> dict[str, Parameter]:
        """Declare what all groups share: the norm, then the two convolutions."""
        c = self.channels // self.groups
        first, second = (layers.conv_parameters(f"conv{size}x{size}", c, c, size) for size in (1, 3))
        return norm_parameters("gn", c) | first | second

    def forward(self, params: Params, x: Array) -> Pass:
        """Gate rows and columns, normalise; convolve; weigh the one by the other. The tags are the derivation's."""
        batch, channels, height, width = x.shape
        c = channels // self.groups
        v = x.reshape(batch * self.groups, c, height, width)  # every group as an image of its own
        p_h, back_rows = ops.average_pool(v, axis=3)                       # (1)
        p_w, back_columns = ops.average_pool(v, axis=2)                    # (2)
        p, back_join = ops.concatenate((p_h, p_w.swapaxes(2, 3)), axis=2)  # (3)
        z, back_conv1 = layers.conv(p, params, "conv1x1")                  # (4)
        a, back_sigmoid = ops.sigmoid(z)                                   # (5)
        (a_h, a_w), back_split = ops.split(a, (height, width), axis=2)     # (6)
        s, back_gate_h = ops.gate(v, a_h)                                  # (7)
        t, back_gate_w = ops.gate(s, a_w.swapaxes(2, 3))                   # (8)
        m, back_norm = layers.group_norm(t, params, "gn", c)               # (9)
        n, back_conv3 = layers.conv(v, params, "conv3x3", padding=1)       # (10)
        d_m, back_pool_m = ops.global_average_pool(m)                      # (11)
        w_m, back_softmax_m = ops.softmax(d_m)                             # (12)
        d_n, back_pool_n = ops.global_average_pool(n)                      # (13)
        w_n, back_softmax_n = ops.softmax(d_n)                             # (14)
        flat_m, flat_n = map(flatten_positions, (m, n))
        r, back_read_n = ops.matmul(w_m[:, None], flat_n)                  # (15)
        q, back_read_m = ops.matmul(w_n[:, None], flat_m)                  # (16)
        u, back_add = ops.add(r, q)                                        # (17)
        e, back_sigmoid_e = ops.sigmoid(u)                                 # (18)
        y, back_gate = ops.gate(v, e.reshape(len(v), 1, height, width))    # (19)

        def backward(dy):
            dv, de = back_gate(dy.reshape(v.shape))                        # (19')
            du = back_sigmoid_e(de.reshape(e.shape))                       # (18')
            dr, dq = back_add(du)                                          # (17')
            dw_n, dm = back_read_m(dq)                                     # (16')
            dw_m, dn = back_read_n(dr)                                     # (15')
            dm, dn = dm.reshape(m.shape), dn.reshape(n.shape)
            dd_n = back_softmax_n(dw_n[:, 0])                              # (14')
            dn = back_pool_n(dd_n, accumulate_into=dn)                     # (13')
            dd_m = back_softmax_m(dw_m[:, 0])                              # (12')
            dm = back_pool_m(dd_m, accumulate_into=dm)                     # (11')
            dv, grads_conv3 = back_conv3(dn, accumulate_into=dv)           # (10')
            dt, grads_norm = back_norm(dm)                                 # (9')
            ds, da_w = back_gate_w(dt)                                     # (8')
            dv_gate, da_h = back_gate_h(ds)                                # (7')
            da = back_split((da_h, da_w.swapaxes(2, 3)))                   # (6')
            dz = back_sigmoid(da)                                          # (5')
            dp, grads_conv1 = back_conv1(dz)                               # (4')
            dp_h, dp_w = back_join(dp)                                     # (3')
            dv = ops.accumulate(dv, dv_gate)
            dv = back_columns(dp_w.swapaxes(2, 3), accumulate_into=dv)     # (2')
            dv = back_rows(dp_h, accumulate_into=dv)                       # (1')
            return dv.reshape(x.shape), grads_norm | grads_conv1 | grads_conv3

        gates = e.reshape(batch, self.groups, height, width)
        return Pass(y.reshape(x.shape), backward, attention={"cross": gates})
