"""Primitives as systems: what golden cases, files and the marker know of ``"ops.softmax"`` and others of `npattn.ops`.

Each class says which arrays a primitive takes, and of what shapes; what it computes stands with the primitive itself.
Arrays that networks learn are parameters, all others inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from npattn import ops
from npattn.calls import as_tuple
from npattn.checks import check_variance
from npattn.fields import boolean, choice, integer, number, pair, probability
from npattn.module import Module, Paper, Pass
from npattn.parameters import Parameter, ones, uniform_fan_in, zeros
from npattn.typing import Array, Params

__all__ = ["PRIMITIVE_SYSTEMS", "PrimitiveSystem"]

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class PrimitiveSystem(Module):
    """Base of those here: calls its primitive on the inputs and the parameters, in this order."""

    paper: ClassVar = Paper("npattn.ops", "", "", 0, "")
    primitive: ClassVar[Callable[..., Any]]

    def options_of_call(self) -> dict[str, Any]:
        """Return what the primitive is called with beside arrays."""
        return {}

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Call the primitive."""
        names = list(self.parameter_shapes())
        y, back = self.primitive(*inputs, *(params[name] for name in names), **self.options_of_call())

        def backward(dy: Array) -> Any:
            gradients = as_tuple(back(dy))
            dx, rest = gradients[: len(inputs)], gradients[len(inputs) :]
            # A bias that isn't there has the gradient None, which is left over.
            return dx if len(inputs) > 1 else dx[0], dict(zip(names, rest, strict=False))

        return Pass(y, backward)


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
class Softmax(PrimitiveSystem):
    """`ops.softmax` of logits (batch, channels, height * width), along the last axis, or along the one before."""

    key: ClassVar = "ops.softmax"
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


@dataclass(frozen=True)
class BatchNorm(PrimitiveSystem):
    """`ops.batch_norm`; in training the new running statistics are results."""

    key: ClassVar = "ops.batch_norm"
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
class Conv2d(PrimitiveSystem):
    """`ops.conv2d`, with square kernels; without `padding` the map keeps its size, but for the stride."""

    key: ClassVar = "ops.conv2d"
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
    groups: int = integer(least=1, default=1)
    bias: bool = boolean(default=True)

    def __post_init__(self) -> None:
        """Refuse, besides, groups that can't share the channels equally."""
        super().__post_init__()
        for name in ("channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{type(self).__name__}: groups={self.groups}; expected a divisor of {name}={getattr(self, name)}"
                )

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

    key: ClassVar = "ops.conv1d"
    primitive = staticmethod(ops.conv1d)
    options: ClassVar = ({"kernel_size": 1}, {"kernel_size": 7}, {"kernel_size": 65})

    channels: int = integer(least=1, default=16)
    kernel_size: int = integer(least=1, default=3)

    def __post_init__(self) -> None:
        """Refuse, besides, an even kernel."""
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise ValueError(f"{type(self).__name__}: kernel_size={self.kernel_size}; expected an odd number")

    def input_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """Shape of the rows."""
        return {"x": (batch, self.channels)}

    def parameters(self) -> dict[str, Parameter]:
        """Declare the kernel."""
        return {"weight": uniform_fan_in(1, 1, self.kernel_size)}


@dataclass(frozen=True)
class Linear(PrimitiveSystem):
    """`ops.linear`, of height * width rows an image."""

    key: ClassVar = "ops.linear"
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
class Matmul(PrimitiveSystem):
    """`ops.matmul`: (batch, height, channels) times (batch, channels, width)."""

    key: ClassVar = "ops.matmul"
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

    key: ClassVar = "ops.gram"
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

    key: ClassVar = "ops.dot_product_attention"
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


@dataclass(frozen=True)
class WindowAverage(PrimitiveSystem):
    """`ops.window_average`."""

    key: ClassVar = "ops.window_average"
    primitive = staticmethod(ops.window_average)
    options: ClassVar = ({"window": 1, "stride": 1}, {"window": 4, "stride": 4}, {"window": 100})

    channels: int = integer(least=1, default=16)
    window: int = integer(least=1, default=3)
    stride: int = integer(least=1, default=2)

    def output_shapes(self, batch: int, height: int, width: int) -> Shapes:
        """One number a window."""
        counts = (len(ops.window_starts(length, self.window, self.stride)) for length in (height, width))
        return {"output": (batch, self.channels, *counts)}

    def options_of_call(self) -> dict[str, Any]:
        """Return window and stride."""
        return {"window": self.window, "stride": self.stride}


@dataclass(frozen=True)
class Score(PrimitiveSystem):
    """`ops.score`."""

    key: ClassVar = "ops.score"
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


@dataclass(frozen=True)
class CrossEntropy(PrimitiveSystem):
    """`ops.cross_entropy`, of as many classes as there are channels; every ninth label or so is ignored."""

    key: ClassVar = "ops.cross_entropy"
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


PRIMITIVE_SYSTEMS: dict[str, type[Module]] = {
    system.key: system
    for system in (
        *(Add, AveragePool, BatchNorm, Conv1d, Conv2d, CrossEntropy, DotProductAttention, Dropout, Gate),
        *(GlobalAveragePool, GlobalLpPool, GlobalLsePool, GlobalMaxPool, Gram, HardSigmoid, HardSwish, L2Normalize),
        *(Linear, Matmul, MaxPool, Relu, ResizeBilinear, Score, Sigmoid, Softmax, WindowAverage),
    )
}
"""By key: ``"ops.softmax"``."""
