"""Layers with parameters as systems: convolutions, linear layers, batch norm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from npattn import ops
from npattn.array_checks import check_variance
from npattn.checks import require_equal_shares
from npattn.fields import boolean, integer, number
from npattn.module import Pass
from npattn.oracle.primitives.system import PrimitiveSystem, Shapes
from npattn.parameters import Parameter, ones, uniform_fan_in, zeros
from npattn.typing import Array, Params


@dataclass(frozen=True)
class BatchNorm(PrimitiveSystem):
    """`ops.batch_norm`; in training the new running statistics are results."""

    primitive = staticmethod(ops.batch_norm)
    options: ClassVar = ({"training": False}, {"momentum": 1.0}, {"eps": 1.0})

    channels: int = integer(least=1, default=16)
    training: bool = boolean(default=True)
    momentum: float = number(default=0.1)
    eps: float = number(default=1e-5)

    def parameters(self) -> dict[str, Parameter]:
        """Declare scale and shift."""
        return {"weight": ones(self.channels), "bias": zeros(self.channels)}

    def buffers(self) -> dict[str, Parameter]:
        """Declare the running statistics."""
        return {"running_mean": zeros(self.channels), "running_var": ones(self.channels)}

    def check_inputs(self, inputs: tuple[Array, ...]) -> None:
        """Refuse, besides, a batch whose variance can't be estimated."""
        super().check_inputs(inputs)
        if self.training:
            check_variance(self, inputs[0])

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        arrays = (params[name] for name in ("weight", "bias", "running_mean", "running_var"))
        settings = {"training": self.training, "momentum": self.momentum, "eps": self.eps}
        (y, (mean, variance)), back = ops.batch_norm(*inputs, *arrays, **settings)

        def backward(dy: Array) -> Any:
            dx, dweight, dbias = back(dy)
            return dx, {"weight": dweight, "bias": dbias}

        return Pass(y, backward, buffers={"running_mean": mean, "running_var": variance} if self.training else {})


@dataclass(frozen=True)
class LayerNorm(PrimitiveSystem):
    """`ops.layer_norm` of tokens, (B, N, C)."""

    primitive = staticmethod(ops.layer_norm)
    options: ClassVar = ({"eps": 1.0}, {"channels": 1}, {"channels": 96})

    channels: int = integer(least=1, default=16)
    eps: float = number(default=1e-5)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the tokens."""
        return {"x": (batch, height * width, self.channels)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the tokens."""
        return {"output": (batch, height * width, self.channels)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare scale and shift."""
        return {"weight": ones(self.channels), "bias": zeros(self.channels)}

    def options_of_call(self) -> dict[str, Any]:
        """Return epsilon."""
        return {"eps": self.eps}


@dataclass(frozen=True)
class GroupNorm(PrimitiveSystem):
    """`ops.group_norm`."""

    primitive = staticmethod(ops.group_norm)
    options: ClassVar = ({"groups": 1}, {"groups": 16}, {"eps": 1.0})

    channels: int = integer(least=1, default=16)
    groups: int = integer(least=1, default=4, divides="channels")
    eps: float = number(default=1e-5)

    def parameters(self) -> dict[str, Parameter]:
        """Declare scale and shift."""
        return {"weight": ones(self.channels), "bias": zeros(self.channels)}

    def options_of_call(self) -> dict[str, Any]:
        """Return groups and epsilon."""
        return {"groups": self.groups, "eps": self.eps}


@dataclass(frozen=True)
class Conv2d(PrimitiveSystem):
    """`ops.conv2d`, with square kernels; without `padding` the map keeps its size, but for the stride."""

    primitive = staticmethod(ops.conv2d)
    options: ClassVar = (
        {"kernel_size": 1},
        {"kernel_size": 4},
        {"stride": 2},
        {"stride": 3, "padding": 0},
        {"dilation": 2},
        {"padding": 0},
        {"padding": 5},
        {"groups": 4},
        {"groups": 16, "out_channels": 16},
        {"out_channels": 1},
        {"bias": False},
    )

    channels: int = integer(least=1, default=16)
    out_channels: int = integer(least=1, default=8)
    kernel_size: int = integer(least=1, default=3)
    stride: int = integer(least=1, default=1)
    padding: int | None = integer(least=0, default=None)
    dilation: int = integer(least=1, default=1)
    groups: int = integer(least=1, default=1, divides="channels")
    bias: bool = boolean(default=True)

    def __post_init__(self) -> None:
        """Refuse, besides, groups that can't share the channels equally."""
        super().__post_init__()
        require_equal_shares("Conv2d", "groups", self.groups, "out_channels", self.out_channels)

    @property
    def margin(self) -> int:
        """Zeros on every side."""
        return self.dilation * (self.kernel_size - 1) // 2 if self.padding is None else self.padding

    def parameters(self) -> dict[str, Parameter]:
        """Declare kernels and bias."""
        weight = uniform_fan_in(self.out_channels, self.channels // self.groups, self.kernel_size, self.kernel_size)
        inputs = math.prod(weight.shape[1:])
        bias = {"bias": uniform_fan_in(self.out_channels, inputs=inputs)} if self.bias else {}
        return {"weight": weight} | bias

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the output."""
        reach = self.dilation * (self.kernel_size - 1) + 1
        size = ((length + 2 * self.margin - reach) // self.stride + 1 for length in (height, width))
        return {"output": (batch, self.out_channels, *size)}

    def check_inputs(self, inputs: tuple[Array, ...]) -> None:
        """Refuse, besides, a map that is smaller than the kernel."""
        super().check_inputs(inputs)
        _, _, height, width = self.output_shapes(1, *inputs[0].shape[2:])["output"]
        if height < 1 or width < 1:
            reach = self.dilation * (self.kernel_size - 1) + 1
            raise ValueError(
                f"{self}: x has shape {inputs[0].shape}; expected at least {max(1, reach - 2 * self.margin)} rows and "
                "columns, or the kernel does not fit"
            )

    def options_of_call(self) -> dict[str, Any]:
        """Return stride and the like."""
        return {"stride": self.stride, "padding": self.margin, "dilation": self.dilation, "groups": self.groups}


@dataclass(frozen=True)
class Conv1d(PrimitiveSystem):
    """`ops.conv1d`, along rows as long as there are channels."""

    primitive = staticmethod(ops.conv1d)
    options: ClassVar = ({"kernel_size": 1}, {"kernel_size": 7}, {"kernel_size": 65})

    channels: int = integer(least=1, default=16)
    kernel_size: int = integer(least=1, default=3, odd=True)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the rows."""
        return {"x": (batch, self.channels)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the kernel."""
        return {"weight": uniform_fan_in(1, 1, self.kernel_size)}


@dataclass(frozen=True)
class Linear(PrimitiveSystem):
    """`ops.linear`, of height * width rows an image."""

    primitive = staticmethod(ops.linear)
    options: ClassVar = ({"out_features": 1}, {"out_features": 129}, {"bias": False})

    channels: int = integer(least=1, default=16)
    out_features: int = integer(least=1, default=8)
    bias: bool = boolean(default=True)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the rows."""
        return {"x": (batch * height * width, self.channels)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the output."""
        return {"output": (batch * height * width, self.out_features)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare matrix and bias."""
        bias = {"bias": uniform_fan_in(self.out_features, inputs=self.channels)} if self.bias else {}
        return {"weight": uniform_fan_in(self.out_features, self.channels)} | bias


@dataclass(frozen=True)
class Score(PrimitiveSystem):
    """`ops.score`."""

    primitive = staticmethod(ops.score)

    channels: int = integer(least=1, default=16)

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the map, its positions in a row."""
        return {"x": (batch, self.channels, height * width)}

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """One number a position."""
        return {"output": (batch, height * width)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the weights of the channels, and a bias."""
        return {"weight": uniform_fan_in(1, self.channels, 1, 1), "bias": uniform_fan_in(1, inputs=self.channels)}
