"""Primitives that choose or repeat numbers as systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import ops
from npattn.fields import integer
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.typing import Array, Params


@dataclass(frozen=True)
class Top(PrimitiveSystem):
    """`ops.top`: the k largest numbers of rows (batch, height * width); where they stood is no result."""

    primitive = staticmethod(ops.top)
    options: ClassVar = ({"k": 1}, {"k": 30})

    k: int = integer(least=1, default=5)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the rows."""
        return {"x": (batch, height * width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the largest."""
        return {"output": (batch, self.k)}

    def check_inputs(self, inputs: tuple[Array, ...]) -> None:
        """Refuse, besides, rows of fewer numbers."""
        super().check_inputs(inputs)
        if inputs[0].shape[1] < self.k:
            raise ValueError(f"{self}: x has shape {inputs[0].shape}; expected at least k={self.k} numbers in a row")

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        (y, _), back = ops.top(*inputs, self.k)
        return Pass(y, lambda dy: (back(dy), {}))


@dataclass(frozen=True)
class ChannelShuffle(PrimitiveSystem):
    """`ops.channel_shuffle`."""

    primitive = staticmethod(ops.channel_shuffle)
    options: ClassVar = ({"groups": 1},)

    channels: int = integer(least=1, default=16)
    groups: int = integer(least=1, default=2, divides="channels")

    def options_of_call(self) -> dict[str, Any]:
        """Return the groups."""
        return {"groups": self.groups}


@dataclass(frozen=True)
class Repeat(PrimitiveSystem):
    """`ops.repeat`, of channels: what groups of heads share."""

    primitive = staticmethod(ops.repeat)
    options: ClassVar = ({"times": 1}, {"times": 8})

    channels: int = integer(least=1, default=16)
    times: int = integer(least=1, default=3)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the repeated map."""
        return {"output": (batch, self.channels * self.times, height, width)}

    def options_of_call(self) -> dict[str, Any]:
        """Return how often, and along which axis."""
        return {"times": self.times, "axis": 1}
