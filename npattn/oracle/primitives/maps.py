"""Primitives that add, gate, shift, drop and resize maps, as systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.fields import boolean, choice, integer, probability, two_integers
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.typing import Array, Params


@dataclass(frozen=True)
class Add(PrimitiveSystem):
    """`ops.add`, of two maps."""

    primitive = staticmethod(ops.add)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shapes of the maps."""
        return dict.fromkeys(("x", "y"), (batch, self.channels, height, width))


@dataclass(frozen=True)
class GatherAverage(PrimitiveSystem):
    """`ops.gather_average`."""

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

    primitive = staticmethod(ops.resize_nearest)
    options: ClassVar = ({"size": (1, 1)}, {"size": (14, 18)}, {"size": (3, 40)})

    channels: int = integer(least=1, default=16)
    size: tuple[int, int] = two_integers(default=(15, 11))

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the resized map."""
        return {"output": (batch, self.channels, *self.size)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the size."""
        return {"size": self.size}


@dataclass(frozen=True)
class Gate(PrimitiveSystem):
    """`ops.gate`, of channels or of positions."""

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

    primitive = staticmethod(ops.dropout)
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

    primitive = staticmethod(ops.resize_bilinear)
    options: ClassVar = ({"size": (1, 1)}, {"size": (14, 18)}, {"size": (3, 40)}, {"align_corners": True})

    channels: int = integer(least=1, default=16)
    size: tuple[int, int] = two_integers(default=(5, 11))
    align_corners: bool = boolean(default=False)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the resized map."""
        return {"output": (batch, self.channels, *self.size)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the size."""
        return {"size": self.size, "align_corners": self.align_corners}
