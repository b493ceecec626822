"""A system as users bring them: attention over positions some of which are hidden, in each way that is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import ops
from npattn.module import Module, Paper, Pass
from npattn.parameters import strip_prefix, uniform_fan_in

__all__ = ["MASKINGS", "MaskedAttention"]

MASKINGS = {
    "select": None,
    "-inf": -np.inf,
    "-65504": -65504.0,
    "-1e4": -1e4,
    "-1e9": -1e9,
    "least float32": float(np.finfo(np.float32).min),
}
"""What is added to the logits of hidden positions; None where a selection puts -∞ in their place."""
PADDED = 3
"""Positions at the end that no query sees, where the map is padded."""


@dataclass(frozen=True)
class MaskedAttention(Module):
    """Softmax attention in which a query sees the positions up to its own, or all but the last ones.

    Parameters
    ----------
    channels : int
    masking : str
        One of `MASKINGS`.
    pattern : {"causal", "padding"}
    by_hand : bool
        Whether softmax is written out, and not the primitive's.
    late : int
        A mistake: the mask begins so many positions late.
    """

    key: ClassVar = "masked"
    paper: ClassVar = Paper(
        title="Attention Is All You Need",
        authors="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin",
        venue="NeurIPS",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
    )

    channels: int = 16
    masking: str = "-inf"
    pattern: str = "causal"
    by_hand: bool = False
    late: int = 0

    @classmethod
    def example(cls):
        return cls()

    def parameters(self):
        wide = self.channels
        return {f"{name}.{kind}": uniform_fan_in(*shape, inputs=wide) for name in ("query", "key", "value")
                for kind, shape in (("weight", (wide, wide, 1, 1)), ("bias", (wide,)))}  # fmt: skip

    def hidden(self, positions):
        """Return which positions (columns) are hidden from which queries (rows)."""
        queries, keys = np.arange(positions)[:, None], np.arange(positions)
        if self.pattern == "causal":
            return keys > queries + self.late
        return np.broadcast_to((keys > 0) & (keys >= positions - PADDED + self.late), (positions, positions))

    def forward(self, params, x):
        positions = x.shape[2] * x.shape[3]
        maps = {name: ops.conv2d(x, **strip_prefix(f"{name}.", params)) for name in ("query", "key", "value")}
        q, k, v = (a.reshape(*a.shape[:2], positions) for a, _ in maps.values())
        hidden, scale = self.hidden(positions), self.channels**-0.5
        z, back_products = ops.matmul(scale * q.swapaxes(1, 2), k)
        if MASKINGS[self.masking] is None:
            z = np.where(hidden, -np.inf, z).astype(z.dtype)
        else:
            z = z + np.where(hidden, MASKINGS[self.masking], 0).astype(z.dtype)
        s, back_softmax = (softmax if self.by_hand else ops.softmax)(z)
        o, back_average = ops.matmul(s, v.swapaxes(1, 2))

        def backward(dy):
            ds, dv = back_average(dy.reshape(q.shape).swapaxes(1, 2))
            dq, dk = back_products(back_softmax(ds))
            dq = scale * dq.swapaxes(1, 2)
            dx, grads = 0, {}
            for name, gradient in zip(maps, (dq, dk, dv.swapaxes(1, 2)), strict=True):
                a, back = maps[name]
                through, grads[f"{name}.weight"], grads[f"{name}.bias"] = back(gradient.reshape(a.shape))
                dx = dx + through
            return dx, grads

        return Pass(o.swapaxes(1, 2).reshape(x.shape), backward)

    def in_pytorch(self):
        """Return the PyTorch form."""
        import torch

        module = self

        class Reference(torch.nn.Module):
            def __init__(self):
                super().__init__()
                for name in ("query", "key", "value"):
                    setattr(self, name, torch.nn.Conv2d(module.channels, module.channels, 1))

            def forward(self, x):
                q, k, v = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
                hidden = torch.tensor(module.hidden(q.shape[2]))
                z = (module.channels**-0.5 * q.transpose(1, 2)) @ k
                if MASKINGS[module.masking] is None:
                    z = z.masked_fill(hidden, -torch.inf)
                else:
                    z = z + torch.where(hidden, MASKINGS[module.masking], 0.0).to(z.dtype)
                return (torch.softmax(z, -1) @ v.transpose(1, 2)).transpose(1, 2).reshape(x.shape)

        return Reference()


def softmax(z):
    """Softmax by hand, as users write it."""
    e = np.exp(z - z.real.max(axis=-1, keepdims=True))
    s = e / e.sum(axis=-1, keepdims=True)
    return s, lambda ds: s * (ds - (s * ds).sum(axis=-1, keepdims=True))
