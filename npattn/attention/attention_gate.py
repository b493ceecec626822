"""Attention gate, of Attention U-Net: a gate for every position of a map, by what it and a second map say there."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import layers, ops
from npattn.array_checks import check_variance
from npattn.fields import boolean, integer
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, norm_buffers, norm_parameters
from npattn.synonyms import Naming
from npattn.typing import Array, Backward, Params

MONAI = {f"{name}.0.conv": f"{name}.0" for name in ("W_g", "W_x", "psi")} | {
    f"{name}.1": f"{name}.1" for name in ("W_g", "W_x", "psi")
}
"""What MONAI calls the layers."""
AUTHORS = {"theta": "W_x.0", "phi": "W_g.0", "psi": "psi.0"}
"""What the authors call them."""


def project(
    x: Array, params: Params, name: str, *, training: bool, stride: int = 1
) -> tuple[tuple[Array, dict[str, Array]], Backward]:
    """Map a position's channels, or those of a square of positions, to others; normalise these if there is a norm."""
    h, back_conv = layers.conv(x, params, f"{name}.0", stride=stride)                           # (1)
    n, running = h, dict[str, Array]()
    if f"{name}.1.weight" in params:
        (n, running), back_norm = layers.batch_norm(h, params, f"{name}.1", training=training)  # (2)

    def backward(dn, accumulate_into=None):
        dh, grads = dn, {}
        if f"{name}.1.weight" in params:
            dh, grads = back_norm(dn)                                                           # (2')
        dx, grads_conv = back_conv(dh, accumulate_into=accumulate_into)                         # (1')
        return dx, grads_conv | grads

    return (n, running), backward


@dataclass(frozen=True)
class AttentionGate(Module):
    """Gate every position of a map by the map itself and a second one, which knows what is looked for.

    In a U-Net x comes over the skip connection, fine and full of everything, and g from the level below, coarse and
    near to what the network will answer. Each is mapped to M channels and normalised; where their sum, rectified, leads
    to a high number, x may pass: a = σ(BN(w relu(BN(W_x x + b_x) + BN(W_g g + b_g)) + b)), y = a ⊙ x.

    Parameters
    ----------
    channels : int
        C, channels of x.
    gating_channels : int, optional
        G, channels of g; by default as many as x has.
    hidden : int, optional
        M; by default max(1, C // 2).
    stride : int, default 1
        s. W_x reads squares of s × s positions, g is as much smaller than x, and the gates are resized bilinearly. It
        is 2 in the authors' code and 1, with g brought to the size of x before, in most other.
    batch_norm : bool, default True
        Whether there are the three norms, which the paper has not.
    training : bool, default False
        Whether batch norm takes the batch's own statistics.

    Raises
    ------
    TypeError, ValueError
        If a hyperparameter is none of these; when called, if x has fewer than s × s positions, and in training if the
        norms see fewer than two values of a channel in the whole batch.

    Notes
    -----
    Inputs ``x``: (B, C, H, W), and ``g``: (B, G, H // s, W // s). Output: (B, C, H, W). ``attention["additive"]``:
    (B, 1, H, W), the gates. Parameters, named as in the code that is most used: ``W_g.0.weight`` (M, G, 1, 1),
    ``W_g.0.bias`` (M,), ``W_g.1.weight`` and ``W_g.1.bias`` (M,), ``W_x.0.weight`` (M, C, s, s), ``W_x.0.bias`` (M,),
    ``W_x.1.weight`` and ``W_x.1.bias`` (M,), ``psi.0.weight`` (1, M, 1, 1), ``psi.0.bias`` (1,), ``psi.1.weight`` and
    ``psi.1.bias`` (1,), and the norms' running statistics. Without norms there are none of these and, as in the
    authors' code, there is no ``W_x.0.bias``. All start as PyTorch's layers do. MONAI's names are read too, and without
    norms the authors' ``theta``, ``phi`` and ``psi``.

    References
    ----------
    Oktay, Schlemper, Le Folgoc et al.: Attention U-Net: Learning Where to Look for the Pancreas, 2018, the section on
    attention gates.

    Examples
    --------
    >>> import numpy as np
    >>> module = AttentionGate(channels=8, gating_channels=12)
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)), np.ones((2, 12, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); additive (2, 1, 7, 5))
    >>> (dx, dg), grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> dg.shape, grads["W_g.0.weight"].shape
    ((2, 12, 7, 5), (4, 12, 1, 1))
    """

    key: ClassVar = "attention-gate"
    family: ClassVar = "spatial"
    paper: ClassVar = Paper(
        title="Attention U-Net: Learning Where to Look for the Pancreas",
        authors="Oktay, Schlemper, Le Folgoc, Lee, Heinrich, Misawa, Mori, McDonagh, Hammerla, Kainz, Glocker, "
        "Rueckert",
        venue="MIDL",
        year=2018,
        url="https://arxiv.org/abs/1804.03999",
    )
    published: ClassVar = (Naming(MONAI), Naming(AUTHORS))

    channels: int = integer(least=1)
    gating_channels: int | None = integer(least=1, default=None)
    hidden: int | None = integer(least=1, default=None)
    stride: int = integer(least=1, default=1)
    batch_norm: bool = boolean(default=True)
    training: bool = boolean(default=False)

    @classmethod
    def example(cls) -> AttentionGate:
        """Return a small instance: 16 channels, gated by 24."""
        return cls(channels=16, gating_channels=24)

    @property
    def projections(self) -> dict[str, tuple[int, int, int]]:
        """Channels out and in, and the side of the kernel, of the three layers."""
        hidden = self.hidden or max(1, self.channels // 2)
        return {
            "W_g": (hidden, self.gating_channels or self.channels, 1),
            "W_x": (hidden, self.channels, self.stride),
            "psi": (1, hidden, 1),
        }

    def parameters(self) -> dict[str, Parameter]:
        """Declare the layers of g, of x and of their sum, each with its norm."""
        declared: dict[str, Parameter] = {}
        for name, (outputs, inputs, size) in self.projections.items():
            bias = self.batch_norm or name != "W_x"
            declared |= layers.conv_parameters(f"{name}.0", outputs, inputs, size, bias=bias)
            declared |= norm_parameters(f"{name}.1", outputs) if self.batch_norm else {}
        return declared

    def buffers(self) -> dict[str, Parameter]:
        """Declare the norms' running statistics."""
        norms = {f"{name}.1": outputs for name, (outputs, *_) in self.projections.items() if self.batch_norm}
        return {key: buffer for norm, outputs in norms.items() for key, buffer in norm_buffers(norm, outputs).items()}

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the map and of the one that gates it, which has s × s times fewer positions."""
        coarse = (max(1, size // self.stride) for size in (height, width))
        return {
            "x": (batch, self.channels, height, width),
            "g": (batch, self.gating_channels or self.channels, *coarse),
        }

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, a map smaller than a kernel, and a batch whose variance can't be estimated."""
        super().check_inputs(inputs)
        if min(inputs[0].shape[2:]) < self.stride:
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least {self.stride} × {self.stride} positions, of "
                f"which W_x makes one: give a larger map, or a smaller stride"
            )
        if self.batch_norm and self.training:
            check_variance(self, inputs[1], "g")

    def forward(self, params: Params, x: Array, g: Array) -> Pass:
        """Map both, add, rectify, map to one number, gate. The tags are the equation numbers of the derivation."""
        projected = functools.partial(project, params=params, training=self.training)
        (q, running_g), back_g = projected(g, name="W_g")                      # (3)
        (k, running_x), back_x = projected(x, name="W_x", stride=self.stride)  # (4)
        u, back_add = ops.add(k, q)                                            # (5)
        r, back_relu = ops.relu(u)                                             # (6)
        (z, running), back_psi = projected(r, name="psi")                      # (7)
        a, back_sigmoid = ops.sigmoid(z)                                       # (8)
        m = a
        if self.stride > 1:
            m, back_resize = ops.resize_bilinear(a, x.shape[2:])               # (9)
        y, back_gate = ops.gate(x, m)                                          # (10)

        def backward(dy):
            dx, dm = back_gate(dy)                                             # (10')
            da = dm
            if self.stride > 1:
                da = back_resize(dm)                                           # (9')
            dz = back_sigmoid(da)                                              # (8')
            dr, grads = back_psi(dz)                                           # (7')
            du = back_relu(dr)                                                 # (6')
            dk, dq = back_add(du)                                              # (5')
            dx, grads_x = back_x(dk, accumulate_into=dx)                       # (4')
            dg, grads_g = back_g(dq)                                           # (3')
            return (dx, dg), grads_g | grads_x | grads

        return Pass(y, backward, {"additive": m}, running_g | running_x | running)
