"""Primitives of maps as systems: position by position, channel by channel, and along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.fields import boolean, choice, integer, number, pair, positive, probability
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.typing import Array, Params


@dataclass(frozen=True)
class Elementwise(PrimitiveSystem):
    """Of maps, position by position."""

    channels: int = integer(least=1, default=16)


class Relu(Elementwise):
    """`ops.relu`."""

    key: ClassVar = "ops.relu"
    primitive = staticmethod(ops.relu)


class Sigmoid(Elementwise):
    """`ops.sigmoid`."""

    key: ClassVar = "ops.sigmoid"
    primitive = staticmethod(ops.sigmoid)


class HardSigmoid(Elementwise):
    """`ops.hard_sigmoid`."""

    key: ClassVar = "ops.hard_sigmoid"
    primitive = staticmethod(ops.hard_sigmoid)


class HardSwish(Elementwise):
    """`ops.hard_swish`."""

    key: ClassVar = "ops.hard_swish"
    primitive = staticmethod(ops.hard_swish)


class Silu(Elementwise):
    """`ops.silu`."""

    key: ClassVar = "ops.silu"
    primitive = staticmethod(ops.silu)


@dataclass(frozen=True)
class L2Normalize(Elementwise):
    """`ops.l2_normalize`."""

    key: ClassVar = "ops.l2_normalize"
    primitive = staticmethod(ops.l2_normalize)
    options: ClassVar = ({"eps": 1.0},)

    eps: float = number(default=1e-5)

    def options_of_call(self) -> dict[str, Any]:
        """Return ε."""
        return {"eps": self.eps}


@dataclass(frozen=True)
class SumNormalize(Elementwise):
    """`ops.sum_normalize` of positive numbers, over the channels or over the columns."""

    key: ClassVar = "ops.sum_normalize"
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

    key: ClassVar = "ops.z_score"
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

    key: ClassVar = "ops.inverse_energy"
    primitive = staticmethod(ops.inverse_energy)
    options: ClassVar = ({"e_lambda": 1.0}, {"correction": 0})

    e_lambda: float = positive(default=1e-4)
    correction: int = integer(least=0, default=1)

    def options_of_call(self) -> dict[str, Any]:
        """Return λ and what the number of positions is lowered by."""
        return {"e_lambda": self.e_lambda, "correction": self.correction}


@dataclass(frozen=True)
class GlobalPool(PrimitiveSystem):
    """Of maps, one number a channel."""

    channels: int = integer(least=1, default=16)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the pooled map."""
        return {"output": (batch, self.channels)}


class GlobalAveragePool(GlobalPool):
    """`ops.global_average_pool`."""

    key: ClassVar = "ops.global_average_pool"
    primitive = staticmethod(ops.global_average_pool)


class GlobalMaxPool(GlobalPool):
    """`ops.global_max_pool`."""

    key: ClassVar = "ops.global_max_pool"
    primitive = staticmethod(ops.global_max_pool)


class GlobalLpPool(GlobalPool):
    """`ops.global_lp_pool`."""

    key: ClassVar = "ops.global_lp_pool"
    primitive = staticmethod(ops.global_lp_pool)


class GlobalLsePool(GlobalPool):
    """`ops.global_lse_pool`."""

    key: ClassVar = "ops.global_lse_pool"
    primitive = staticmethod(ops.global_lse_pool)


@dataclass(frozen=True)
class AxisPool(PrimitiveSystem):
    """Of maps, along one axis, which stays with length 1."""

    options: ClassVar = ({"axis": 1}, {"axis": 2})

    channels: int = integer(least=1, default=16)
    axis: int = integer(least=1, default=3)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the pooled map."""
        shape = batch, self.channels, height, width
        return {"output": (*shape[: self.axis], 1, *shape[self.axis + 1 :])}

    def options_of_call(self) -> dict[str, Any]:
        """Return the axis."""
        return {"axis": self.axis}


class AveragePool(AxisPool):
    """`ops.average_pool`."""

    key: ClassVar = "ops.average_pool"
    primitive = staticmethod(ops.average_pool)


class MaxPool(AxisPool):
    """`ops.max_pool`."""

    key: ClassVar = "ops.max_pool"
    primitive = staticmethod(ops.max_pool)


@dataclass(frozen=True)
class Add(PrimitiveSystem):
    """`ops.add`, of two maps."""

    key: ClassVar = "ops.add"
    primitive = staticmethod(ops.add)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of the maps."""
        return dict.fromkeys(("x", "y"), (batch, self.channels, height, width))


@dataclass(frozen=True)
class GatherAverage(PrimitiveSystem):
    """`ops.gather_average`."""

    key: ClassVar = "ops.gather_average"
    primitive = staticmethod(ops.gather_average)
    options: ClassVar = ({"extent": 1}, {"extent": 3}, {"extent": 40})

    channels: int = integer(least=1, default=16)
    extent: int = integer(least=1, default=2)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the averages."""
        return {"output": (batch, self.channels, *(-(-n // self.extent) for n in (height, width)))}

    def options_of_call(self) -> dict[str, Any]:
        """Return the extent."""
        return {"extent": self.extent}


@dataclass(frozen=True)
class ResizeNearest(PrimitiveSystem):
    """`ops.resize_nearest`."""

    key: ClassVar = "ops.resize_nearest"
    primitive = staticmethod(ops.resize_nearest)
    options: ClassVar = ({"size": (1, 1)}, {"size": (14, 18)}, {"size": (3, 40)})

    channels: int = integer(least=1, default=16)
    size: tuple[int, int] = pair(default=(15, 11))

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the resized map."""
        return {"output": (batch, self.channels, *self.size)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the size."""
        return {"size": self.size}


@dataclass(frozen=True)
class Gate(PrimitiveSystem):
    """`ops.gate`, of channels or of positions."""

    key: ClassVar = "ops.gate"
    primitive = staticmethod(ops.gate)
    options: ClassVar = ({"by": "positions"},)

    channels: int = integer(least=1, default=16)
    by: str = choice(("channels", "positions"), default="channels")

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of map and gate."""
        gate = (batch, self.channels) if self.by == "channels" else (batch, 1, height, width)
        return {"x": (batch, self.channels, height, width), "a": gate}


@dataclass(frozen=True)
class Shift(PrimitiveSystem):
    """`ops.shift`, of channels or of positions."""

    key: ClassVar = "ops.shift"
    primitive = staticmethod(ops.shift)
    options: ClassVar = ({"by": "positions"},)

    channels: int = integer(least=1, default=16)
    by: str = choice(("channels", "positions"), default="channels")

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of map and term."""
        term = (batch, self.channels) if self.by == "channels" else (batch, 1, height, width)
        return {"x": (batch, self.channels, height, width), "t": term}


@dataclass(frozen=True)
class Dropout(PrimitiveSystem):
    """`ops.dropout`, of whole channels."""

    key: ClassVar = "ops.dropout"
    without_gradient: ClassVar = ("mask",)
    options: ClassVar = ({"rate": 0.0}, {"rate": 0.9})

    channels: int = integer(least=1, default=16)
    rate: float = probability(default=0.1)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of map and mask."""
        return {"x": (batch, self.channels, height, width), "mask": (batch, self.channels)}

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw a mask of 0 and 1."""
        return random.randint(0, 2, shape).astype(float) if name == "mask" else super().draw_input(name, shape, random)

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        y, back = ops.dropout(*inputs, self.rate)
        return Pass(y, lambda dy: ((back(dy), None), {}))


@dataclass(frozen=True)
class ResizeBilinear(PrimitiveSystem):
    """`ops.resize_bilinear`."""

    key: ClassVar = "ops.resize_bilinear"
    primitive = staticmethod(ops.resize_bilinear)
    options: ClassVar = ({"size": (1, 1)}, {"size": (14, 18)}, {"size": (3, 40)}, {"align_corners": True})

    channels: int = integer(least=1, default=16)
    size: tuple[int, int] = pair(default=(5, 11))
    align_corners: bool = boolean(default=False)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the resized map."""
        return {"output": (batch, self.channels, *self.size)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the size."""
        return {"size": self.size, "align_corners": self.align_corners}
