"""Residual connection: what a system makes of its input is added to the input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, ClassVar, cast

import numpy as np

from npattn import layers, ops
from npattn.attention.squeeze_excitation import SqueezeExcitation
from npattn.fields import checked
from npattn.module import Module, Paper, Pass, as_tuple
from npattn.parameters import Parameter, add_prefix, strip_prefix
from npattn.synonyms import Naming
from npattn.typing import Array, Params
from npattn.wording import brief, describe_type

SUCH_AS = "such as SqueezeExcitation, CBAM or PositionAttention"


def check_inner(system: str, name: str, inner: Any) -> Module:
    """Refuse what is no system, or makes something of another shape than its input's."""
    if not isinstance(inner, Module):
        kind = describe_type(inner) if not isinstance(inner, type) else "a class, not an instance of it"
        raise TypeError(f"{system}: {name}={brief(inner)} is {kind}; expected a system, {SUCH_AS}")
    size = 2, 211, 307  # batch, height and width, by which no system resizes its output by chance
    first, *_ = inner.input_shapes(*size).values()
    outputs = list(inner.output_shapes(*size).values())
    if len(outputs) > 1:
        raise ValueError(
            f"{system}: {name}={inner} gives {len(outputs)} outputs; expected a system of one output, which has its "
            f"input's shape, {SUCH_AS}"
        )
    if outputs != [first]:
        raise ValueError(
            f"{system}: {name}={inner} makes {outputs[0]} of {first}; expected a system whose output has its input's "
            f"shape, {SUCH_AS}"
        )
    return inner


def published_names(inner: Module) -> Iterator[Naming]:
    """Give what published code calls the inner system's layers, and how it calls them where they stand alone."""
    for naming in inner.published:
        yield from (Naming.join((prefix, "inner.", naming)) for prefix in ("inner.", ""))


@dataclass(frozen=True)
class Residual(Module):
    """Add to a map what any system of the same shape makes of it: y = x + f(x).

    The gradient comes back on two ways, through f and past it. Where f is a gate, f(x) = a ⊙ x, the sum is (1 + a) ⊙ x:
    nothing is shut out. A system that adds its input already, such as `PositionAttention`, then has it twice.

    Parameters
    ----------
    inner : Module
        f: any system whose one output has its first input's shape, another `Residual` included.

    Raises
    ------
    TypeError
        If `inner` is no system.
    ValueError
        If it has several outputs, or one of another shape than its input; when called, whatever `inner` refuses.

    Notes
    -----
    Inputs: those of `inner`; the first, ``x``, is what is added, and the others (masks, noise, features) pass through.
    Output: the shape of the first. The attention maps are those of `inner`; so are ``training`` and, if it has one,
    ``attention_map``. Parameters and running statistics are those of `inner` under ``inner.``: ``inner.fc1.weight``,
    ``inner.fc1.bias``, ``inner.fc2.weight`` and ``inner.fc2.bias`` for `SqueezeExcitation`. Names that the inner system
    reads from published code are read, with ``inner.`` or without.

    References
    ----------
    He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, eq. 1.

    Examples
    --------
    >>> from npattn import EfficientChannelAttention
    >>> module = Residual(EfficientChannelAttention(channels=8))
    >>> run = module(module.init(seed=0), np.ones((2, 8, 7, 5)))
    >>> run
    Pass(output: float64 (2, 8, 7, 5); channel (2, 8))
    >>> dx, grads = run.backward(np.ones((2, 8, 7, 5)))
    >>> {name: grad.shape for name, grad in grads.items()}
    {'inner.conv.weight': (1, 1, 3)}
    """

    key: ClassVar = "residual"
    family: ClassVar = "other"
    paper: ClassVar = Paper(
        title="Deep Residual Learning for Image Recognition",
        authors="He, Zhang, Ren, Sun",
        venue="CVPR",
        year=2016,
        url="https://arxiv.org/abs/1512.03385",
    )

    pairs_positions: ClassVar[Any] = property(attrgetter("inner.pairs_positions"))
    """Whether the inner system pairs positions."""
    estimator: ClassVar[Any] = property(attrgetter("inner.estimator"))
    """What the inner system estimates a gradient by."""
    without_gradient: ClassVar[Any] = property(attrgetter("inner.without_gradient"))
    """Which inputs of the inner system have no gradient."""
    published: ClassVar[Any] = property(lambda self: tuple(published_names(self.inner)))
    """The inner system's published names, under ``inner.`` or alone, as where the sum has no name of its own."""

    inner: Module = checked(check_inner)

    @classmethod
    def example(cls) -> Residual:
        """Return a small instance: round squeeze-and-excitation's."""
        return cls(SqueezeExcitation.example())

    @property
    def channels(self) -> int:
        """C, channels of the map."""
        return cast(Any, self.inner).channels

    @property
    def training(self) -> bool:
        """Whether the inner system trains."""
        return getattr(self.inner, "training", False)

    @property
    def attention_map(self) -> Callable[..., Array]:
        """The inner system's function of this name, for the parameters of the whole."""
        function = cast(Any, self.inner).attention_map
        return lambda params, *arguments, **options: function(strip_prefix("inner.", params), *arguments, **options)

    def input_shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the inner system's inputs."""
        return self.inner.input_shapes(batch, height, width)

    def for_size(self, height: int, width: int) -> Residual:
        """Return a residual connection round the inner system for maps of another size."""
        return replace(self, inner=self.inner.for_size(height, width))

    def expected_shapes(self, inputs: tuple[Any, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes that the inner system's inputs have to have."""
        return self.inner.expected_shapes(inputs)

    def draw_inputs(
        self, shapes: Mapping[str, tuple[int, ...]], random: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Draw the inputs as the inner system does."""
        return self.inner.draw_inputs(shapes, random)

    def draw_input(self, name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
        """Draw an input as the inner system does."""
        return self.inner.draw_input(name, shape, random)

    def parameters(self) -> dict[str, Parameter]:
        """Declare those of the inner system."""
        return add_prefix("inner.", self.inner.parameters())

    def buffers(self) -> dict[str, Parameter]:
        """Declare the inner system's running statistics."""
        return add_prefix("inner.", self.inner.buffers())

    def check_inputs(self, inputs: tuple[Any, ...]) -> None:
        """Refuse, besides, what the inner system refuses."""
        super().check_inputs(inputs)
        self.inner.check_inputs(inputs)

    def surrogate(self, params: Params, *inputs: Array) -> Callable[..., Pass]:
        """Add the input to what the inner system's estimator differentiates, if it has one."""
        if self.estimator is None:
            return self.forward
        inner = self.inner.surrogate(strip_prefix("inner.", params), *inputs)
        return functools.partial(self.forward, inner=inner)

    def forward(self, params: Params, *inputs: Array, inner: Callable[..., Pass] | None = None) -> Pass:
        """Apply the inner system, add. The tags are the equation numbers of the derivation."""
        x, *others = inputs
        run = layers.submodule(inner or self.inner.forward, params, "inner", x, *others)  # (1)
        y, back_add = ops.add(x, run.output)                                              # (2)
        back_inner = run.backward  # alone: the inner output need not live on

        def backward(dy):
            dx_skip, df = back_add(dy)                                                    # (2')
            gradients, grads = back_inner(df)                                             # (1')
            dx_inner, *rest = as_tuple(gradients)
            dx, _ = ops.add(dx_skip, dx_inner)
            return (dx, *rest) if others else dx, grads

        return Pass(y, backward, run.attention, run.buffers)
