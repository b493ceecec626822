"""Primitives that keep a map's shape, of every number or of numbers brought to one scale, as systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.fields import integer, number, positive
from npattn.oracle.primitives.system import PrimitiveSystem


@dataclass(frozen=True)
class Elementwise(PrimitiveSystem):
    """Of maps, position by position."""

    channels: int = integer(least=1, default=16)


class Relu(Elementwise):
    """`ops.relu`."""

    primitive = staticmethod(ops.relu)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """`ops.leaky_relu`."""

    primitive = staticmethod(ops.leaky_relu)
    options: ClassVar = ({"negative_slope": 0.2},)

    negative_slope: float = number(default=0.01)

    def options_of_call(self) -> dict[str, Any]:
        """Return the slope below 0."""
        return {"negative_slope": self.negative_slope}


class Sigmoid(Elementwise):
    """`ops.sigmoid`."""

    primitive = staticmethod(ops.sigmoid)


class Gelu(Elementwise):
    """`ops.gelu`."""

    primitive = staticmethod(ops.gelu)


class HardSigmoid(Elementwise):
    """`ops.hard_sigmoid`."""

    primitive = staticmethod(ops.hard_sigmoid)


class HardSwish(Elementwise):
    """`ops.hard_swish`."""

    primitive = staticmethod(ops.hard_swish)


class Silu(Elementwise):
    """`ops.silu`."""

    primitive = staticmethod(ops.silu)


class Tanh(Elementwise):
    """`ops.tanh`."""

    primitive = staticmethod(ops.tanh)


@dataclass(frozen=True)
class L2Normalize(Elementwise):
    """`ops.l2_normalize`."""

    primitive = staticmethod(ops.l2_normalize)
    options: ClassVar = ({"eps": 1.0},)

    eps: float = number(default=1e-5)

    def options_of_call(self) -> dict[str, Any]:
        """Return ε."""
        return {"eps": self.eps}


@dataclass(frozen=True)
class SumNormalize(Elementwise):
    """`ops.sum_normalize` of positive numbers, over the channels or over the columns."""

    primitive = staticmethod(ops.sum_normalize)
    options: ClassVar = ({"axis": 3}, {"eps": 1.0})

    axis: int = integer(least=1, default=1)
    eps: float = number(default=1e-9)

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw positive numbers."""
        return np.exp(super().draw_input(name, shape, random))

    def options_of_call(self) -> dict[str, Any]:
        """Return axis and ε."""
        return {"axis": self.axis, "eps": self.eps}


@dataclass(frozen=True)
class ZScore(Elementwise):
    """`ops.z_score`, of the rows of maps."""

    primitive = staticmethod(ops.z_score)
    options: ClassVar = ({"eps": 1.0}, {"correction": 0})

    eps: float = positive(default=1e-5)
    correction: int = integer(least=0, default=1)

    def options_of_call(self) -> dict[str, Any]:
        """Return ε and what the length of a row is lowered by."""
        return {"eps": self.eps, "correction": self.correction}


@dataclass(frozen=True)
class InverseEnergy(Elementwise):
    """`ops.inverse_energy`."""

    primitive = staticmethod(ops.inverse_energy)
    options: ClassVar = ({"e_lambda": 1.0}, {"correction": 0})

    e_lambda: float = positive(default=1e-4)
    correction: int = integer(least=0, default=1)

    def options_of_call(self) -> dict[str, Any]:
        """Return λ and what the number of positions is lowered by."""
        return {"e_lambda": self.e_lambda, "correction": self.correction}
