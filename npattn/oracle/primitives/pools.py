"""Pools as systems: of all positions, and along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import ops
from npattn.fields import integer
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes


@dataclass(frozen=True)
class GlobalPool(PrimitiveSystem):
    """Of maps, one number a channel."""

    channels: int = integer(least=1, default=16)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the pooled map."""
        return {"output": (batch, self.channels)}


class GlobalAveragePool(GlobalPool):
    """`ops.global_average_pool`."""

    primitive = staticmethod(ops.global_average_pool)


class GlobalMaxPool(GlobalPool):
    """`ops.global_max_pool`."""

    primitive = staticmethod(ops.global_max_pool)


class GlobalLpPool(GlobalPool):
    """`ops.global_lp_pool`."""

    primitive = staticmethod(ops.global_lp_pool)


class GlobalLsePool(GlobalPool):
    """`ops.global_lse_pool`."""

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

    primitive = staticmethod(ops.average_pool)


class MaxPool(AxisPool):
    """`ops.max_pool`."""

    primitive = staticmethod(ops.max_pool)
