"""Polarized self-attention: gates of channels by all positions, and gates of positions by all channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from npattn import layers, ops
from npattn.fields import choice, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, he_normal, ones, zeros
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params

NORMS = {"sequential": "conv_up.1", "paper": "ln"}
"""What the norm of the channels' gate is called, by the gates that have one."""


def gate_channels(x: Array, params: Params, gates: str) -> tuple[tuple[Array, Array], Backward]:
    """Average positions by one query's softmax, and make a gate for every channel of what is gathered."""
    v_shape = x.shape[0], params["conv_v_right.weight"].shape[0], x.shape[2] * x.shape[3]
    u, back_query = layers.conv(x, params, "conv_q_right")                           # (1)
    w, back_weigh = ops.softmax(u.reshape(v_shape[0], v_shape[2]))                   # (2)
    v, back_value = layers.conv(x, params, "conv_v_right")                           # (3)
    p, back_gather = ops.matmul(v.reshape(v_shape), w[:, :, None])                   # (4)
    first = "conv_up.0" if gates == "sequential" else "conv_up"
    z, back_up = layers.linear(p[:, :, 0], params, first)                            # (5)
    if gates in NORMS:
        z, back_norm = layers.layer_norm(z, params, NORMS[gates])                    # (6)
    if gates == "sequential":
        z, back_relu = ops.relu(z)                                                   # (7)
        z, back_last = layers.linear(z, params, "conv_up.3")                         # (8)
    a, back_sigmoid = ops.sigmoid(z)                                                 # (9)
    y, back_gate = ops.gate(x, a)                                                    # (10)

    def backward(dy, accumulate_into=None):
        grads_norm, grads_last = {}, {}
        dx, da = back_gate(dy)                                                       # (10')
        dz = back_sigmoid(da)                                                        # (9')
        if gates == "sequential":
            dz, grads_last = back_last(dz)                                           # (8')
            dz = back_relu(dz)                                                       # (7')
        if gates in NORMS:
            dz, grads_norm = back_norm(dz)                                           # (6')
        dp, grads_up = back_up(dz)                                                   # (5')
        dv, dw = back_gather(dp[:, :, None])                                         # (4')
        dx, grads_value = back_value(dv.reshape(v.shape), accumulate_into=dx)        # (3')
        du = back_weigh(dw[:, :, 0])                                                 # (2')
        dx, grads_query = back_query(du.reshape(u.shape), accumulate_into=dx)        # (1')
        grads = layers.merge(grads_query, grads_value, grads_up, grads_norm, grads_last)
        return ops.accumulate(accumulate_into, dx), grads

    return (y, a), backward


def gate_positions(x: Array, params: Params, gates: str) -> tuple[tuple[Array, Array], Backward]:
    """Average queries over the map, make a gate for every position of what its value has in common with the mean."""
    k_shape = x.shape[0], params["conv_v_left.weight"].shape[0], x.shape[2] * x.shape[3]
    q, back_query = layers.conv(x, params, "conv_q_left")                            # (11)
    t, back_pool = ops.global_average_pool(q)                                        # (12)
    if gates == "paper":
        t, back_features = ops.softmax(t)                                            # (13)
    k, back_value = layers.conv(x, params, "conv_v_left")                            # (14)
    k = k.reshape(k_shape)
    if gates == "sequential":
        k, back_values = ops.softmax(k)                                              # (15)
    c, back_products = ops.matmul(t[:, None], k)                                     # (16)
    if gates == "parallel":
        c, back_products_share = ops.softmax(c)                                      # (17)
    b, back_sigmoid = ops.sigmoid(c.reshape(x.shape[0], 1, *x.shape[2:]))            # (18)
    y, back_gate = ops.gate(x, b)                                                    # (19)

    def backward(dy):
        dx, db = back_gate(dy)                                                       # (19')
        dc = back_sigmoid(db).reshape(c.shape)                                       # (18')
        if gates == "parallel":
            dc = back_products_share(dc)                                             # (17')
        dt, dk = back_products(dc)                                                   # (16')
        if gates == "sequential":
            dk = back_values(dk)                                                     # (15')
        dx, grads_value = back_value(dk.reshape(q.shape), accumulate_into=dx)        # (14')
        dt = dt[:, 0]
        if gates == "paper":
            dt = back_features(dt)                                                   # (13')
        dq = back_pool(dt)                                                           # (12')
        dx, grads_query = back_query(dq, accumulate_into=dx)                         # (11')
        return dx, grads_query | grads_value

    return (y, b), backward


@dataclass(frozen=True)
class PolarizedSelfAttention(Module):
    """Gate channels by what is gathered from all positions, and positions by what is gathered from all channels.

    For the channels, one query makes a softmax over the positions, values of half as many channels are averaged by it,
    and layers lead from these to a gate for every channel. For the positions, queries are averaged over the map, and a
    gate is the product of the mean with a position's value. In the paper neither gate squeezes the axis that it is made
    for below half. The two gated maps are added (parallel), or positions are gated after channels (sequential).

    Parameters
    ----------
    channels : int
        C, channels of the map.
    form : {"parallel", "sequential"}, default "parallel"
        How the two gates go together.
    variant : {"code", "paper"}, default "code"
        What makes the gates. In the paper they are the same in both forms: the channels' last layer is followed by
        layer norm, and the positions' mean query goes through a softmax over its channels. In the authors' code the
        parallel form has no norm, and its softmax runs over the positions, of the products; the sequential form has two
        layers with layer norm and ReLU between them, and its softmax runs over the positions too, of the values.
    hidden : int, optional
        D, channels of queries and values; by default C // 2, and 1 at least.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["channel"]``: (B, C), ``attention["spatial"]``:
    (B, 1, H, W), the gates. Parameters, named as in the authors' code: ``conv_q_right.weight`` (1, C, 1, 1),
    ``conv_v_right.weight`` (D, C, 1, 1), ``conv_up.weight`` (C, D, 1, 1), ``conv_q_left.weight`` and
    ``conv_v_left.weight`` (D, C, 1, 1), without biases. The sequential form of the code has ``conv_up.0.weight``
    (D', D, 1, 1), ``conv_up.0.bias`` (D',), ``conv_up.1.weight`` and ``conv_up.1.bias`` (D', 1, 1),
    ``conv_up.3.weight`` (C, D', 1, 1) and ``conv_up.3.bias`` (C,), with D' = max(1, D // 4). The paper's variant has
    ``ln.weight`` and ``ln.bias`` (C,), and a bias in every layer, as a widely used re-implementation of it, whose names
    ``ch_wq``, ``ch_wv``, ``ch_wz``, ``sp_wq`` and ``sp_wv`` `from_state_dict` reads. Layers that read the map start
    from a normal distribution of variance 2/C, as in the authors' code, the others uniform in ±1/√fan-in.

    References
    ----------
    Liu, Liu, Fan, Huang: Polarized Self-Attention: Towards High-quality Pixel-wise Regression, arXiv 2021, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> module = PolarizedSelfAttention(channels=16)
    >>> run = module(module.init(seed=0), np.ones((2, 16, 7, 5)))
    >>> run
    Pass(output: float64 (2, 16, 7, 5); channel (2, 16); spatial (2, 1, 7, 5))
    >>> dx, grads = run.backward(np.ones((2, 16, 7, 5)))
    >>> grads["conv_up.weight"].shape
    (16, 8, 1, 1)
    """

    key: ClassVar = "polarized"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="Polarized Self-Attention: Towards High-quality Pixel-wise Regression",
        authors="Liu, Liu, Fan, Huang",
        venue="arXiv",
        year=2021,
        url="https://arxiv.org/abs/2107.00782",
    )
    published: ClassVar = (
        Naming(
            {
                "ch_wq": "conv_q_right",
                "ch_wv": "conv_v_right",
                "ch_wz": "conv_up",
                "ln": "ln",
                "sp_wq": "conv_q_left",
                "sp_wv": "conv_v_left",
            }
        ),
    )

    channels: int = integer(least=1)
    form: str = choice(("parallel", "sequential"), default="parallel")
    variant: str = choice(("code", "paper"), default="code")
    hidden: int | None = integer(least=1, default=None)

    @classmethod
    def example(cls) -> PolarizedSelfAttention:
        """Return a small instance: 16 channels, 8 in queries and values."""
        return cls(channels=16)

    @property
    def hidden_channels(self) -> int:
        """D, channels of queries and values: `hidden`, or C/2."""
        return self.hidden or max(1, self.channels // 2)

    @property
    def gates(self) -> str:
        """What makes the gates: that of the code's parallel or sequential form, or the paper's."""
        return "paper" if self.variant == "paper" else self.form

    def parameters(self) -> dict[str, Parameter]:
        """Declare what makes queries and values, and what leads from them to the channels' gate."""
        channels, hidden, bias = self.channels, self.hidden_channels, self.variant == "paper"
        up = layers.conv_parameters("conv_up", channels, hidden, bias=bias)
        if self.gates == "sequential":
            squeezed = max(1, hidden // 4)
            norm = {"conv_up.1.weight": ones(squeezed, 1, 1), "conv_up.1.bias": zeros(squeezed, 1, 1)}
            up = layers.conv_parameters("conv_up.0", squeezed, hidden) | norm
            up |= layers.conv_parameters("conv_up.3", channels, squeezed)
        elif bias:
            up |= {"ln.weight": ones(channels), "ln.bias": zeros(channels)}
        return {
            **layers.conv_parameters("conv_q_right", 1, channels, bias=bias, initial=he_normal),
            **layers.conv_parameters("conv_v_right", hidden, channels, bias=bias, initial=he_normal),
            **up,
            **layers.conv_parameters("conv_q_left", hidden, channels, bias=bias, initial=he_normal),
            **layers.conv_parameters("conv_v_left", hidden, channels, bias=bias, initial=he_normal),
        }

    def forward(self, params: Params, x: Array) -> Pass:
        """Gate channels and positions, of the same map or one behind the other. The tags are the derivation's."""
        parallel, gates = self.form == "parallel", self.gates
        (y, a), back_channels = gate_channels(x, params, gates)                       # (20)
        (s, b), back_positions = gate_positions(x if parallel else y, params, gates)  # (21)
        if parallel:
            s, back_add = ops.add(y, s)                                               # (22)

        def backward(dy):
            ds = dy
            if parallel:
                dc, ds = back_add(dy)                                                 # (22')
            dx, grads_positions = back_positions(ds)                                  # (21')
            if not parallel:
                dc, dx = dx, None
            dx, grads_channels = back_channels(dc, accumulate_into=dx)                # (20')
            return dx, grads_channels | grads_positions

        return Pass(s, backward, {"channel": a, "spatial": b})
