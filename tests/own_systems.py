"""Systems as users write them, with inputs of many kinds: tokens, masks, two maps, running statistics, logits."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from npattn import Module, Pass, layers, ops
from npattn.fields import boolean, integer, number
from npattn.parameters import norm_buffers, norm_parameters, ones

__all__ = ["OWN_SYSTEMS", "CausalHead", "LogitLoss", "NormGate", "Powers", "RMSNorm", "Table", "TwoGate"]


@dataclass(frozen=True)
class RMSNorm(Module):
    """Tokens."""

    channels: int = integer(least=1, default=4)
    eps: float = number(default=1e-6)

    def input_shapes(self, batch, height, width):
        return {"x": (batch, height * width, self.channels)}

    def parameters(self):
        return {"weight": ones(self.channels)}

    def forward(self, params, x):
        r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        n = x * r

        def backward(dy):
            dn = dy * params["weight"]
            dx = r * (dn - n * (dn * n).mean(axis=-1, keepdims=True))
            return dx, {"weight": (dy * n).sum(axis=(0, 1))}

        return Pass(n * params["weight"], backward)


@dataclass(frozen=True)
class CausalHead(Module):
    """Queries and keys of different numbers, a mask of booleans, an attention map."""

    channels: int = integer(least=1, default=4)
    without_gradient: ClassVar = ("mask",)

    def input_shapes(self, batch, height, width):
        keys = (batch, width, self.channels)
        return {"q": (batch, height, self.channels), "k": keys, "v": keys, "mask": (height, width)}

    def output_shapes(self, batch, height, width):
        return {"output": (batch, height, self.channels)}

    def draw_input(self, name, shape, random):
        if name == "mask":
            return np.tri(*shape, shape[1] - min(shape)) > 0
        return super().draw_input(name, shape, random)

    def forward(self, params, q, k, v, mask):
        scale = 1 / math.sqrt(self.channels)
        z = scale * (q @ k.swapaxes(-1, -2))
        a, back_softmax = ops.softmax(np.where(mask, z, -1e4))
        y, back_values = ops.matmul(a, v)

        def backward(dy):
            da, dv = back_values(dy)
            dz = scale * np.where(mask, back_softmax(da), 0)
            return (dz @ k, dz.swapaxes(-1, -2) @ q, dv, None), {}

        return Pass(y, backward, attention={"weights": a})


@dataclass(frozen=True)
class TwoGate(Module):
    """Two maps."""

    channels: int = integer(least=1, default=4)

    def input_shapes(self, batch, height, width):
        return dict.fromkeys(("x", "g"), (batch, self.channels, height, width))

    def forward(self, params, x, g):
        a, back_sigmoid = ops.sigmoid(g)

        def backward(dy):
            return (dy * a, back_sigmoid(dy * x)), {}

        return Pass(x * a, backward, attention={"gate": a})


@dataclass(frozen=True)
class NormGate(Module):
    """Running statistics."""

    channels: int = integer(least=1, default=4)
    training: bool = boolean(default=True)

    def parameters(self):
        return norm_parameters("bn", self.channels)

    def buffers(self):
        return norm_buffers("bn", self.channels)

    def forward(self, params, x):
        (n, running), back_norm = layers.batch_norm(x, params, "bn", training=self.training)
        a, back_sigmoid = ops.sigmoid(n)

        def backward(dy):
            dx, grads = back_norm(back_sigmoid(dy * x))
            return dx + dy * a, grads

        return Pass(x * a, backward, buffers=running)


@dataclass(frozen=True)
class LogitLoss(Module):
    """Logits, labels, and a parameter and an output that are one number each."""

    classes: int = integer(least=2, default=5)
    without_gradient: ClassVar = ("labels",)

    def input_shapes(self, batch, height, width):
        return {"logits": (batch, self.classes), "labels": (batch,)}

    def output_shapes(self, batch, height, width):
        return {"output": ()}

    def parameters(self):
        return {"scale": ones()}

    def draw_input(self, name, shape, random):
        if name == "labels":
            return random.randint(0, self.classes, shape)
        return super().draw_input(name, shape, random)

    def forward(self, params, logits, labels):
        own = labels[:, None] == np.arange(self.classes)
        scale = params["scale"]
        p, _ = ops.softmax(scale * logits)
        loss = -np.log(np.where(own, p, 1)).sum() / len(logits)

        def backward(dy):
            dz = dy / len(logits) * (p - own)
            return (scale * dz, None), {"scale": (dz * logits).sum()}

        return Pass(loss, backward)


@dataclass(frozen=True)
class Doubled(Module):
    """A system that says nothing of its inputs."""

    channels: int = 4

    def forward(self, params, x):
        return Pass(2 * x, lambda dy: (2 * dy, {}))


@dataclass(frozen=True)
class Powers(Module):
    """An input of rank 1 and two outputs, of which one is a number."""

    def input_shapes(self, batch, height, width):
        return {"v": (batch * height * width,)}

    def output_shapes(self, batch, height, width):
        return {"output.0": (batch * height * width,), "output.1": ()}

    def parameters(self):
        return {"scale": ones()}

    def forward(self, params, v):
        scale = params["scale"]

        def backward(dy):
            return scale * dy[0] + 2 * v * dy[1], {"scale": (dy[0] * v).sum()}

        return Pass((scale * v, (v * v).sum()), backward)


@dataclass(frozen=True)
class Table(Module):
    """Integers as the only input."""

    rows: int = integer(least=1, default=7)
    without_gradient: ClassVar = ("ids",)

    def input_shapes(self, batch, height, width):
        return {"ids": (batch, height * width)}

    def output_shapes(self, batch, height, width):
        return {"output": (batch, height * width, 4)}

    def parameters(self):
        return {"table": ones(self.rows, 4)}

    def draw_input(self, name, shape, random):
        return random.randint(0, self.rows, shape)

    def forward(self, params, ids):
        table = params["table"]
        own = ids[..., None] == np.arange(self.rows)

        def backward(dy):
            return None, {"table": np.einsum("bnr,bnc->rc", own.astype(dy.dtype), dy)}

        return Pass(table[ids.real.astype(int)], backward)


OWN_SYSTEMS = [RMSNorm, CausalHead, TwoGate, NormGate, LogitLoss]
