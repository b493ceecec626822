"""Parameters as a system declares them: name, shape and initial distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.scalars import python_scalar
from npattn.wording import brief, describe_type

__all__ = [
    "Parameter",
    "add_prefix",
    "conv_norm_act_buffers",
    "conv_norm_act_parameters",
    "conv_parameters",
    "declared",
    "he_normal",
    "lecun_normal",
    "linear_parameters",
    "nearest_channels",
    "norm_buffers",
    "norm_parameters",
    "normal",
    "ones",
    "round_channels",
    "strip_prefix",
    "uniform_fan_in",
    "xavier_uniform",
    "zeros",
]

CONV_AND_NORM = "0", "1"
"""What PyTorch's `Sequential` calls a convolution and the norm behind it."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a system: its shape, and how its first values are drawn.

    Attributes
    ----------
    shape : tuple of int
    initial : callable
        ``initial(random, shape)`` draws the values that the published module starts from.
    generic : callable
        ``generic(random, shape)`` draws values without zeros or ones that a gradient's term could hide behind.
    """

    shape: tuple[int, ...]
    initial: Callable[[np.random.RandomState, tuple[int, ...]], np.ndarray]
    generic: Callable[[np.random.RandomState, tuple[int, ...]], np.ndarray]

    def __post_init__(self) -> None:
        # Sizes that are integers of NumPy would wrap where they are multiplied.
        object.__setattr__(self, "shape", python_scalar(self.shape))

    def draw(self, random: np.random.RandomState, generic: bool = False) -> np.ndarray:
        """Draw float64 values: the paper's initial ones, or generic ones."""
        # NumPy makes numbers of arrays without axes wherever it computes with them.
        return np.asarray((self.generic if generic else self.initial)(random, self.shape))


def declared(module: Any, of: str) -> dict[str, Parameter]:
    """Return what a system's `parameters`, or `buffers`, declares, if it is a dict of `Parameter` by name.

    Raises
    ------
    TypeError
    """
    found = getattr(module, of)()
    example = "expected a dict of what npattn.parameters makes, by name, such as {'weight': ones(16)}"
    if not isinstance(found, Mapping):
        raise TypeError(f"{module}: {of}() returns {describe_type(found)}; {example}")
    for name, one in found.items():
        if not (isinstance(name, str) and isinstance(one, Parameter)):
            raise TypeError(f"{module}: {of}() declares {brief(name)} as {describe_type(one)}; {example}")
    return dict(found)


def he_normal(*shape: int, fan: str = "in") -> Parameter:
    """Weights from a normal distribution of variance 2 / fan-in (He et al., ICCV 2015, eq. 10).

    With ``fan="out"`` it is 2 / fan-out (eq. 14), by which gradients keep their size, not values; generic values do.
    """

    def draw(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) * math.sqrt(2 / fan_in(shape))

    def draw_backward(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) * math.sqrt(2 / fan_out(shape))

    def generic(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) / math.sqrt(fan_in(shape))

    return Parameter(shape, draw_backward, generic) if fan == "out" else Parameter(shape, draw, draw)


def normal(*shape: int, deviation: float) -> Parameter:
    """Weights from a normal distribution with mean 0: small ones, as in transformers. Generic values keep sizes."""

    def draw(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) * deviation

    def generic(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) / math.sqrt(fan_in(shape))

    return Parameter(shape, draw, generic)


def lecun_normal(*shape: int) -> Parameter:
    """Weights from a normal distribution of variance 1 / fan-in (LeCun et al.: Efficient BackProp, 1998)."""

    def draw(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.standard_normal(shape) / math.sqrt(fan_in(shape))

    return Parameter(shape, draw, draw)


def uniform_fan_in(*shape: int, inputs: int | None = None) -> Parameter:
    """Weights uniform in ±1/√fan-in: what PyTorch's convolutions and linear layers start from.

    A bias starts within the bounds of its layer's weight, whose fan-in has to be given: `inputs`.
    """

    def draw(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(-1, 1, shape) / math.sqrt(inputs or fan_in(shape))

    return Parameter(shape, draw, draw)


def xavier_uniform(*shape: int, gain: float = 1.0) -> Parameter:
    """Weights uniform in ± gain √(6 / (fan-in + fan-out)) (Glorot, Bengio: AISTATS 2010, eq. 16)."""

    def draw(random: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
        return random.uniform(-1, 1, shape) * (gain * math.sqrt(6 / (fan_in(shape) + fan_out(shape))))

    return Parameter(shape, draw, draw)


def zeros(*shape: int) -> Parameter:
    """Start at 0 (biases, means, residual scales)."""
    return Parameter(shape, lambda _, shape: np.zeros(shape), lambda random, shape: random.standard_normal(shape) / 2)


def ones(*shape: int) -> Parameter:
    """Start at 1 (batch norm's scales and variances); generic values stay positive."""
    return Parameter(shape, lambda _, shape: np.ones(shape), lambda random, shape: random.uniform(0.5, 1.5, shape))


def conv_parameters(
    name: str,
    out_channels: int,
    in_channels: int,
    kernel_size: int | tuple[int, int] = 1,
    *,
    bias: bool = True,
    initial: Callable[..., Parameter] = uniform_fan_in,
) -> dict[str, Parameter]:
    """Declare what `layers.conv` reads: a weight (out, in, k, k), and a bias (out,).

    Parameters
    ----------
    name : str
    out_channels, in_channels : int
    kernel_size : int or pair of int, default 1
        k; rows and columns, if they differ.
    bias : bool, default True
        Whether there is a bias.
    initial : callable, default `uniform_fan_in`
        Makes the weight from its shape. A bias then starts within the same bounds; beside a weight that starts
        otherwise it starts at 0.

    Returns
    -------
    dict of Parameter

    Examples
    --------
    >>> {name: parameter.shape for name, parameter in conv_parameters("conv1", 4, 8, 3).items()}
    {'conv1.weight': (4, 8, 3, 3), 'conv1.bias': (4,)}
    """
    kernel = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
    return weight_and_bias(name, (out_channels, in_channels, *kernel), bias, initial)


def linear_parameters(
    name: str,
    out_features: int,
    in_features: int,
    *,
    bias: bool = True,
    initial: Callable[..., Parameter] = uniform_fan_in,
) -> dict[str, Parameter]:
    """Declare what `layers.linear` reads: a weight (out, in), and a bias (out,).

    Parameters
    ----------
    name : str
    out_features, in_features : int
    bias : bool, default True
        Whether there is a bias.
    initial : callable, default `uniform_fan_in`
        As `conv_parameters` has it.

    Returns
    -------
    dict of Parameter

    Examples
    --------
    >>> {name: parameter.shape for name, parameter in linear_parameters("fc", 3, 8).items()}
    {'fc.weight': (3, 8), 'fc.bias': (3,)}
    """
    return weight_and_bias(name, (out_features, in_features), bias, initial)


def norm_parameters(name: str, channels: int) -> dict[str, Parameter]:
    """Declare a norm's scale and shift, which start at 1 and 0."""
    return {f"{name}.weight": ones(channels), f"{name}.bias": zeros(channels)}


def norm_buffers(name: str, channels: int) -> dict[str, Parameter]:
    """Declare a batch norm's running mean and variance, which start at 0 and 1."""
    return {f"{name}.running_mean": zeros(channels), f"{name}.running_var": ones(channels)}


def conv_norm_act_parameters(
    name: str,
    out_channels: int,
    in_channels: int,
    kernel_size: int = 1,
    *,
    parts: tuple[str, str] = CONV_AND_NORM,
) -> dict[str, Parameter]:
    """Declare the parameters of `layers.conv_norm_act`: a norm, and a kernel without bias, which the norm would undo.

    Parameters
    ----------
    name : str
    out_channels, in_channels : int
    kernel_size : int, default 1
    parts : pair of str, default ("0", "1")
        What convolution and norm are called in the layer.

    Returns
    -------
    dict of Parameter

    Examples
    --------
    >>> list(conv_norm_act_parameters("conv5a", 4, 16, 3))
    ['conv5a.0.weight', 'conv5a.1.weight', 'conv5a.1.bias']
    """
    kernel, norm = (f"{name}.{part}" for part in parts)
    weight = conv_parameters(kernel, out_channels, in_channels, kernel_size, bias=False)
    return weight | norm_parameters(norm, out_channels)


def conv_norm_act_buffers(
    name: str, out_channels: int, *, parts: tuple[str, str] = CONV_AND_NORM
) -> dict[str, Parameter]:
    """Declare the running statistics of `layers.conv_norm_act`.

    Parameters
    ----------
    name : str
    out_channels : int
    parts : pair of str, default ("0", "1")
        What convolution and norm are called in the layer.

    Returns
    -------
    dict of Parameter

    Examples
    --------
    >>> list(conv_norm_act_buffers("conv5a", 4))
    ['conv5a.1.running_mean', 'conv5a.1.running_var']
    """
    return norm_buffers(f"{name}.{parts[1]}", out_channels)


def round_channels(wanted: float, least: int = 8) -> int:
    """Round a number of channels to a multiple of 8, as MobileNet's authors do, but not down by more than a tenth.

    Examples
    --------
    >>> [round_channels(wanted) for wanted in (3, 11, 12, 20, 84)]
    [8, 16, 16, 24, 88]
    """
    rounded = max(least, 8 * int(wanted / 8 + 0.5))
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def nearest_channels(wanted: float) -> int:
    """Round a number of channels to the nearest whole number, halves up, at least 1, as timm does.

    Examples
    --------
    >>> [nearest_channels(wanted) for wanted in (0.1, 1.4, 2.5)]
    [1, 1, 3]
    """
    return max(1, int(wanted + 0.5))


def weight_and_bias(
    name: str, shape: tuple[int, ...], bias: bool, initial: Callable[..., Parameter]
) -> dict[str, Parameter]:
    """Declare a weight and, if there is to be one, a bias that starts as its weight does, or else at 0."""
    shape = python_scalar(shape)
    weight = {f"{name}.weight": initial(*shape)}
    if not bias:
        return weight
    start = uniform_fan_in(shape[0], inputs=fan_in(shape)) if initial is uniform_fan_in else zeros(shape[0])
    return weight | {f"{name}.bias": start}


def strip_prefix(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Select the entries under a prefix and drop it: the parameters of a part, from those of the whole.

    Examples
    --------
    >>> strip_prefix("a.", {"a.weight": 1, "b.weight": 2})
    {'weight': 1}
    """
    require_prefix(prefix)
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def add_prefix(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Put entries under a prefix: the inverse of `strip_prefix`.

    Examples
    --------
    >>> add_prefix("a.", {"weight": 1})
    {'a.weight': 1}
    """
    require_prefix(prefix)
    return {f"{prefix}{name}": value for name, value in values.items()}


def require_prefix(prefix: Any) -> None:
    """Refuse a prefix that is no text.

    Raises
    ------
    TypeError
    """
    if not isinstance(prefix, str):
        raise TypeError(
            f"prefix={brief(prefix)} is {describe_type(prefix)}; expected a str, what names begin with: "
            "'layer1.0.se.', say, or '' for none"
        )


def fan_in(shape: tuple[int, ...]) -> int:
    """Count the inputs that one output of a weight (out, in, *kernel) sums over."""
    return math.prod(shape[1:])


def fan_out(shape: tuple[int, ...]) -> int:
    """Count the outputs that one input of a weight (out, in, *kernel) is summed in."""
    return shape[0] * math.prod(shape[2:])
