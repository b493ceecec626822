"""A module at given values, with both ways to its derivatives: backward, and the complex step."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from npattn.module import Module, Pass, as_tuple

__all__ = ["STEP", "Point"]

STEP = 2.0**-600
"""Imaginary step: its square is below all rounding, so real parts stay; dividing by a power of two is exact."""
NEIGHBOUR_DISTANCE = 2.0**-10
"""Relative size up to which every tensor is scaled to get there."""


class Point:
    """A module at given values, in one kind of number, with both ways to its derivatives.

    Directions are flat: among all outputs, or in one input or parameter. A forward pass gets copies of its own, so that
    one which writes to them spoils no other.

    Parameters
    ----------
    module : Module
    params, inputs : dict of numpy.ndarray
        All of one kind of number.
    upstream_scale : float, default 1
        What every upstream gradient is multiplied by.
    """

    def __init__(
        self,
        module: Module,
        params: dict[str, np.ndarray],
        inputs: dict[str, np.ndarray],
        upstream_scale: float = 1.0,
    ) -> None:
        self.module, self.params, self.inputs, self.upstream_scale = module, params, inputs, upstream_scale
        self.dtype = next(iter(inputs.values())).dtype
        self.given = {name: value.copy() for name, value in (params | inputs).items()}
        self.run = module(*self.arguments(self.given))
        self.shapes = [y.shape for y in as_tuple(self.run.output)]
        self.outputs = sum(map(math.prod, self.shapes))
        self.surrogate: Callable[..., Pass] | None = None

    def arguments(self, values: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
        """Arrange values as a module takes them."""
        return {name: values[name] for name in self.params}, *(values[name] for name in self.inputs)

    def upstream(self, dy: np.ndarray) -> Any:
        """Shape a flat direction as the output."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        each = [one.reshape(shape) for one, shape in zip(np.split(dy, ends), self.shapes, strict=True)]
        return tuple(each) if isinstance(self.run.output, tuple) else each[0]

    def vjp(self, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Jᵀ dy, the vector-Jacobian product: all gradients, flat, as the module's backward pass has them."""
        return {name: gradient.ravel() for name, gradient in self.gradients(dy).items()}

    def gradients(self, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Copy what the backward pass returns, for it may write the next gradients there."""
        dx, grads = self.run.backward(self.upstream((dy * self.upstream_scale).astype(self.dtype)))
        by_input = dict(zip(self.inputs, as_tuple(dx), strict=True))
        given = {name: gradient for name, gradient in grads.items() if gradient is not None}
        found = {name: gradient for name, gradient in by_input.items() if gradient is not None} | given
        return {name: np.array(gradient) for name, gradient in found.items()}

    def jvp(self, name: str, v: np.ndarray) -> np.ndarray:
        """J v, the Jacobian-vector product: how all outputs move, flat, while one input or parameter moves along v."""
        if self.surrogate is None:
            copies = {name: value.copy() for name, value in (self.params | self.inputs).items()}
            self.surrogate = self.module.surrogate(*self.arguments(copies))
        kind = np.result_type(self.dtype, np.complex64)
        constant = self.module.without_gradient
        lifted = {
            name: value if name in constant else value.astype(kind)
            for name, value in (self.params | self.inputs).items()
        }
        lifted[name] += 1j * (STEP * v.astype(self.dtype).reshape(lifted[name].shape))
        run = self.surrogate(*self.arguments(lifted))
        return self.upstream_scale * np.concatenate([y.imag.ravel() for y in as_tuple(run.output)]) / STEP

    def nearby(self, names: Collection[str], random: np.random.RandomState) -> Point:
        """Scale tensors, and the upstream gradient, by almost 1: all is rounded anew, and what ties still ties."""

        def factor() -> Any:
            return self.dtype.type(1 + NEIGHBOUR_DISTANCE * random.uniform(-1, 1))

        params, inputs = (
            {name: value * factor() if name in names else value for name, value in values.items()}
            for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs, factor())

    def elsewhere(self, names: Collection[str]) -> Point:
        """Take values far from these: reversed, by which masks remain masks, and larger if they have a gradient."""
        params, inputs = (
            {name: np.flip(value) * (1.5 if name in names else 1.0) for name, value in values.items()}
            for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs)

    def astype(self, dtype: Any) -> Point:
        """Take the same values in another kind of number."""
        params, inputs = (
            {name: value.astype(dtype) for name, value in values.items()} for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs)


def gradient_shapes(point: Point) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the gradients, by name; of every parameter there must be one."""
    found = point.gradients(np.zeros(point.outputs))
    expected = {name: value.shape for name, value in point.inputs.items() if name in found}
    expected |= point.module.parameter_shapes()
    for name in expected:
        if name not in found:
            raise ValueError(
                f"{point.module}: backward returns no gradient of {name}; expected one of shape {expected[name]}"
            )
    return expected
