"""Products of matrices, and weights that add up to 1, as systems: softmax, attention, cross-entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.fields import choice, integer, number, two_integers
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.parameters import Parameter, lecun_normal
from npattn.typing import Array, Params


@dataclass(frozen=True)
class Softmax(PrimitiveSystem):
    """`ops.softmax` of logits (batch, channels, height * width), along the last axis, or along the one before."""

    primitive = staticmethod(ops.softmax)
    options: ClassVar = ({"axis": "channels"},)

    channels: int = integer(least=1, default=16)
    axis: str = choice(("positions", "channels"), default="positions")

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the logits."""
        return {"x": (batch, self.channels, height * width)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the axis by its number."""
        return {"axis": -1 if self.axis == "positions" else -2}


class Softmin(Softmax):
    """`ops.softmin` of logits (batch, channels, height * width), along the last axis, or along the one before."""

    primitive = staticmethod(ops.softmin)


@dataclass(frozen=True)
class Matmul(PrimitiveSystem):
    """`ops.matmul`: (batch, height, channels) times (batch, channels, width)."""

    primitive = staticmethod(ops.matmul)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of the factors."""
        return {"a": (batch, height, self.channels), "b": (batch, self.channels, width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the product."""
        return {"output": (batch, height, width)}


@dataclass(frozen=True)
class Gram(PrimitiveSystem):
    """`ops.gram`, of one row a channel."""

    primitive = staticmethod(ops.gram)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the rows."""
        return {"a": (batch, self.channels, height * width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the products."""
        return {"output": (batch, self.channels, self.channels)}


@dataclass(frozen=True)
class DotProductAttention(PrimitiveSystem):
    """`ops.dot_product_attention`, of height * width queries and keys, scaled by 1/√channels."""

    primitive = staticmethod(ops.dot_product_attention)
    options: ClassVar = ({"value_channels": 1}, {"value_channels": 33})

    channels: int = integer(least=1, default=16)
    value_channels: int | None = integer(least=1, default=None)
    pairs_positions: ClassVar = True

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of queries, keys and values."""
        shape = batch, self.channels, height * width
        return {"q": shape, "k": shape, "v": (batch, self.value_channels or self.channels, height * width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of what the queries gather."""
        return {"output": (batch, self.value_channels or self.channels, height * width)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the scale."""
        return {"scale": 1 / math.sqrt(self.channels)}


class LinearAttention(DotProductAttention):
    """`ops.linear_attention`, of height * width queries and keys, scaled by 1/√channels."""

    primitive = staticmethod(ops.linear_attention)
    pairs_positions: ClassVar = False


@dataclass(frozen=True)
class ApplyLambdas(PrimitiveSystem):
    """`ops.apply_lambdas`, of height * width positions, with a few queries of a few channels each."""

    primitive = staticmethod(ops.apply_lambdas)
    options: ClassVar = ({"heads": 1}, {"key_channels": 33})

    channels: int = integer(least=1, default=16)
    heads: int = integer(least=1, default=4)
    key_channels: int = integer(least=1, default=8)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of queries and lambdas."""
        tail = self.key_channels, height * width
        return {"q": (batch, self.heads, *tail), "lambdas": (batch, self.channels, *tail)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Channels of every head, for all positions."""
        return {"output": (batch, self.heads, self.channels, height * width)}


@dataclass(frozen=True)
class CrissCrossAttention(PrimitiveSystem):
    """`ops.criss_cross_attention`, of a query, a key and a value for every position of a map."""

    primitive = staticmethod(ops.criss_cross_attention)
    options: ClassVar = ({"value_channels": 1}, {"value_channels": 33})

    channels: int = integer(least=1, default=4)
    value_channels: int | None = integer(least=1, default=None)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of queries, keys and values."""
        shape = batch, self.channels, height, width
        return {"q": shape, "k": shape, "v": (batch, self.value_channels or self.channels, height, width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of what the positions gather."""
        return {"output": (batch, self.value_channels or self.channels, height, width)}


@dataclass(frozen=True)
class RelativeLogits(PrimitiveSystem):
    """`ops.relative_logits`, whose map of queries has a size that is a hyperparameter, whatever others are asked for.

    There are keys on a map that is larger by a margin on every side.
    """

    primitive = staticmethod(ops.relative_logits)
    options: ClassVar = ({"size": (1, 1)}, {"size": (5, 16)}, {"size": (8, 8)}, {"margin": 3}, {"scale": 1.0})

    channels: int = integer(least=1, default=16)
    size: tuple[int, int] = two_integers(default=(4, 6))
    margin: int = integer(least=0, default=0)
    scale: float = number(default=0.25)

    @property
    def keys(self) -> tuple[int, int]:
        """Rows and columns of keys."""
        height, width = self.size
        return height + 2 * self.margin, width + 2 * self.margin

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the queries."""
        return {"q": (batch, self.channels, *self.size)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the logits."""
        return {"output": (batch, math.prod(self.size), math.prod(self.keys))}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the vectors of offsets."""
        names = "height_rel", "width_rel"
        return {n: lecun_normal(2 * keys - 1, self.channels) for n, keys in zip(names, self.keys, strict=True)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the scale."""
        return {"scale": self.scale}


@dataclass(frozen=True)
class CrossEntropy(PrimitiveSystem):
    """`ops.cross_entropy`, of as many classes as there are channels; every ninth label or so is ignored."""

    primitive = staticmethod(ops.cross_entropy)
    without_gradient: ClassVar = ("labels",)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of logits and labels."""
        return {"logits": (batch, self.channels, height, width), "labels": (batch, height, width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """One number."""
        return {"output": ()}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw labels, of which some are -100."""
        if name == "logits":
            return super().draw_input(name, shape, random)
        labels = random.randint(0, self.channels, shape)
        return np.where(random.uniform(size=shape) < 1 / 9, -100, labels)

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        loss, back = ops.cross_entropy(*inputs)
        return Pass(loss, lambda dy: ((back(dy), None), {}))
