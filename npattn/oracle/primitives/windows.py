"""Windows of a map as systems: cut out, averaged, and laid back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import ops
from npattn.fields import integer, two_integers
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.typing import Array, Params


@dataclass(frozen=True)
class Windows(PrimitiveSystem):
    """Of windows of a map, which may overlap."""

    options: ClassVar[tuple[dict[str, Any], ...]] = (
        {"window": 1, "stride": 1},
        {"window": 4, "stride": 4},
        {"window": 100},
    )

    channels: int = integer(least=1, default=16)
    window: int = integer(least=1, default=3)
    stride: int = integer(least=1, default=2)

    def counts(self, *size: int) -> tuple[int, ...]:
        """Count the windows along each axis of a map."""
        return tuple(len(ops.window_starts(length, self.window, self.stride)) for length in size)

    def window_size(self, *size: int) -> tuple[int, ...]:
        """Count the positions of a window along each axis of a map."""
        return tuple(min(self.window, length) for length in size)

    def options_of_call(self) -> dict[str, Any]:
        """Return window and stride."""
        return {"window": self.window, "stride": self.stride}


class WindowAverage(Windows):
    """`ops.window_average`."""

    primitive = staticmethod(ops.window_average)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """One number a window."""
        return {"output": (batch, self.channels, *self.counts(height, width))}


class UnfoldWindows(Windows):
    """`ops.unfold_windows`."""

    primitive = staticmethod(ops.unfold_windows)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """All positions of every window."""
        size = height, width
        return {"output": (batch, self.channels, *self.counts(*size), *self.window_size(*size))}


@dataclass(frozen=True)
class Pad(PrimitiveSystem):
    """`ops.pad`."""

    primitive = staticmethod(ops.pad)
    options: ClassVar = ({"margin": 0}, {"margin": 5})

    channels: int = integer(least=1, default=16)
    margin: int = integer(least=0, default=2)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the larger map."""
        return {"output": (batch, self.channels, height + 2 * self.margin, width + 2 * self.margin)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the margin."""
        return {"margin": self.margin}


@dataclass(frozen=True)
class Laid(Windows):
    """Of windows that are laid over a map whose size is a hyperparameter, whatever height and width are asked for."""

    options: ClassVar[tuple[dict[str, Any], ...]] = (*Windows.options, {"size": (1, 1)}, {"size": (5, 16)})

    size: tuple[int, int] = two_integers(default=(7, 9))

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the map."""
        return {"output": (batch, self.channels, *self.size)}

    def options_of_call(self) -> dict[str, Any]:
        """Return the size as well."""
        return {"size": self.size, **super().options_of_call()}


class FoldWindows(Laid):
    """`ops.fold_windows`."""

    primitive = staticmethod(ops.fold_windows)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the windows."""
        return {"windows": (batch, self.channels, *self.counts(*self.size), *self.window_size(*self.size))}


class OverlapAverage(Laid):
    """`ops.overlap_average`."""

    primitive = staticmethod(ops.overlap_average)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """One number a window."""
        return {"z": (batch, self.channels, *self.counts(*self.size))}


@dataclass(frozen=True)
class GatherRelative(PrimitiveSystem):
    """`ops.gather_relative`, for windows of height × width, from a table with `channels` numbers an offset."""

    primitive = staticmethod(ops.gather_relative)
    pairs_positions: ClassVar = True

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the table; there is one for all images."""
        return {"table": (2 * height - 1, 2 * width - 1, self.channels)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """All pairs of positions."""
        return {"output": (self.channels, height * width, height * width)}

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        rows, columns, _ = inputs[0].shape
        g, back = ops.gather_relative(*inputs, ((rows + 1) // 2, (columns + 1) // 2))
        return Pass(g, lambda dg: (back(dg), {}))
