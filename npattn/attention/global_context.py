"""Global context: one map of attention for all positions gathers a context, which is then told to every position."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import layers, ops
from npattn.fields import boolean, choice, choices, integer, positive
from npattn.module import Module, Paper, Pass
from npattn.ops.attention import flatten_positions
from npattn.ops.elementwise import ACTIVATIONS, GATES
from npattn.parameters import Parameter, he_normal, nearest_channels, norm_parameters, zeros
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params

TRANSFORMS = {"add": "mlp_add", "scale": "mlp_scale"}
"""The names of the two transforms, by what their result does to the map."""


def transform(p: Array, params: Params, name: str, *, activation: str, eps: float) -> tuple[Array, Backward]:
    """Pass a context through two layers with fewer channels between them, which are normalised."""
    h, back_fc1 = layers.linear(p, params, f"{name}.fc1")                 # (1)
    u, back_norm = layers.layer_norm(h, params, f"{name}.norm", eps=eps)  # (2)
    r, back_activation = ACTIVATIONS[activation](u)                       # (3)
    q, back_fc2 = layers.linear(r, params, f"{name}.fc2")                 # (4)

    def backward(dq):
        dr, grads_fc2 = back_fc2(dq)                                      # (4')
        du = back_activation(dr)                                          # (3')
        dh, grads_norm = back_norm(du)                                    # (2')
        dp, grads_fc1 = back_fc1(dh)                                      # (1')
        return dp, grads_fc1 | grads_norm | grads_fc2

    return q, backward


@dataclass(frozen=True)
class GlobalContext(Module):
    """Gather one context by attention, transform it, and scale or shift every position by it.

    In a non-local network every position attends to all others, and trained maps of attention turn out to be the same
    for all of them. Here there is one: scores w · x_n, a softmax over the positions, and the context p = Σ a_n x_n, a
    vector of C channels. Two layers with layer norm and a rectifier between them make of it what is told to all
    positions: gates, y = x ⊙ σ(z), or summands, y = x + t, or both, y = x ⊙ σ(z) + t.

    Parameters
    ----------
    channels : int
        C, channels of the map.
    reduction : int, default 8
        r; the transforms have C/r channels inside, rounded to the nearest whole number, at least 1.
    fuse : sequence of {"scale", "add"}, default ("scale",)
        What the context does to the map: one transform for each. ("add",) is the paper's block.
    attention : bool, default True
        Whether positions are weighed by attention; else all weigh the same, and the context is the average.
    hidden : int, optional
        Channels inside of the transforms, in place of that.
    activation : {"relu", "leaky_relu", "silu", "gelu", "hard_swish"}, default "relu"
        φ, inside of the transforms.
    gate : {"sigmoid", "hard_sigmoid"}, default "sigmoid"
        σ, which makes the gates.
    eps : float, default 1e-6
        ε of the layer norm, as in timm; the authors' code has 1e-5.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these.

    Notes
    -----
    Input ``x``: (B, C, H, W). Output: (B, C, H, W). ``attention["position"]``: (B, H, W), a; with "scale"
    ``attention["channel"]``: (B, C), the gates. Parameters, named as in timm: with attention ``conv_attn.weight``
    (1, C, 1, 1) and ``conv_attn.bias`` (1,); for gates ``mlp_scale.fc1.weight`` (C/r, C, 1, 1), ``mlp_scale.fc1.bias``,
    ``mlp_scale.norm.weight`` and ``mlp_scale.norm.bias`` (C/r,), ``mlp_scale.fc2.weight`` (C, C/r, 1, 1) and
    ``mlp_scale.fc2.bias`` (C,); for summands, of the same shapes, ``mlp_add.fc1.weight``, ``mlp_add.fc1.bias``,
    ``mlp_add.norm.weight``, ``mlp_add.norm.bias``, ``mlp_add.fc2.weight`` and ``mlp_add.fc2.bias``. They start as in
    the authors' code: scores from He's normal distribution, the last layers at 0. The names of that code,
    ``conv_mask``, ``channel_mul_conv`` and ``channel_add_conv``, are read too.

    References
    ----------
    Cao, Xu, Lin, Wei, Hu: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, ICCV workshops 2019,
    figure 4 (d).

    Examples
    --------
    >>> module = GlobalContext(channels=8, reduction=2)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); position (2, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> list(grads)[:4]
    ['conv_attn.weight', 'conv_attn.bias', 'mlp_scale.fc1.weight', 'mlp_scale.fc1.bias']
    """

    key: ClassVar = "gc"
    family: ClassVar = "both"
    paper: ClassVar = Paper(
        title="GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
        authors="Cao, Xu, Lin, Wei, Hu",
        venue="ICCV workshops",
        year=2019,
        url="https://arxiv.org/abs/1904.11492",
    )
    published: ClassVar = (
        Naming.join(
            ("", "", Naming({"conv_mask": "conv_attn"})),
            *(
                (f"channel_{theirs}_conv.", f"mlp_{ours}.", Naming({"0": "fc1", "1": "norm", "3": "fc2"}))
                for theirs, ours in (("add", "add"), ("mul", "scale"))
            ),
        ),
    )

    channels: int = integer(least=1)
    reduction: int = integer(least=1, default=8)
    fuse: tuple[str, ...] = choices(TRANSFORMS, default=("scale",))
    attention: bool = boolean(default=True)
    hidden: int | None = integer(least=1, default=None)
    activation: str = choice(ACTIVATIONS, default="relu")
    gate: str = choice(GATES, default="sigmoid")
    eps: float = positive(default=1e-6)

    @classmethod
    def example(cls) -> GlobalContext:
        """Return a small instance: 32 channels, 8 inside of the transforms, one for gates and one for summands."""
        return cls(channels=32, reduction=4, fuse=("scale", "add"))

    @property
    def hidden_channels(self) -> int:
        """Channels inside of the transforms: `hidden`, or C/r."""
        return self.hidden or nearest_channels(self.channels / self.reduction)

    def parameters(self) -> dict[str, Parameter]:
        """Declare what scores the positions, and the transforms."""
        channels, hidden = self.channels, self.hidden_channels
        declared = layers.conv_parameters("conv_attn", 1, channels, initial=he_normal) if self.attention else {}
        for name in (name for fusion, name in TRANSFORMS.items() if fusion in self.fuse):
            declared |= layers.conv_parameters(f"{name}.fc1", hidden, channels)
            declared |= norm_parameters(f"{name}.norm", hidden)
            declared |= layers.conv_parameters(f"{name}.fc2", channels, hidden, initial=zeros)
        return declared

    def forward(self, params: Params, x: Array) -> Pass:
        """Weigh, gather, transform, tell. The tags are the equation numbers of the derivation."""
        transformed = functools.partial(transform, params=params, activation=self.activation, eps=self.eps)
        y, v, maps = x, flatten_positions(x), {}
        a = np.zeros_like(v[:, 0]) + 1 / v.shape[2]
        if self.attention:
            s, back_score = layers.score(v, params, "conv_attn")      # (5)
            a, back_softmax = ops.softmax(s)                          # (6)
        p, back_gather = ops.matmul(v, a[:, :, None])                 # (7)
        p = p[:, :, 0]
        if "scale" in self.fuse:
            z, back_scale = transformed(p, name="mlp_scale")          # (8)
            g, back_sigmoid = GATES[self.gate](z)                     # (9)
            y, back_gate = ops.gate(x, g)                             # (10)
            maps["channel"] = g
        if "add" in self.fuse:
            t, back_add = transformed(p, name="mlp_add")              # (11)
            y, back_shift = ops.shift(y, t)                           # (12)

        def backward(dy):
            dx, dp, grads = dy, np.zeros_like(p), {}
            if "add" in self.fuse:
                dx, dt = back_shift(dx)                               # (12')
                dp, grads = back_add(dt)                              # (11')
            if "scale" in self.fuse:
                dx, dg = back_gate(dx)                                # (10')
                dz = back_sigmoid(dg)                                 # (9')
                dp_scale, grads_scale = back_scale(dz)                # (8')
                dp, grads = ops.accumulate(dp, dp_scale), grads | grads_scale
            dv, da = back_gather(dp[:, :, None])                      # (7')
            if self.attention:
                ds = back_softmax(da[:, :, 0])                        # (6')
                dv, grads_score = back_score(ds, accumulate_into=dv)  # (5')
                grads = grads_score | grads
            return ops.accumulate(dv.reshape(x.shape), dx), grads

        return Pass(y, backward, {"position": a.reshape(x.shape[0], *x.shape[2:]), **maps})
