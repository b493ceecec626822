"""Derivatives of NumPy's functions, for taped arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.ops.attention import transpose

__all__ = ["FLAT", "FUNCTIONS", "MOVING", "UFUNCS"]


UFUNCS: dict[str, Callable[..., Any]] = {
    "add": lambda y, a, b: (1, 1),
    "subtract": lambda y, a, b: (1, -1),
    "multiply": lambda y, a, b: (b, a),
    "divide": lambda y, a, b: (1 / b, -y / b),
    "negative": lambda y, a: (-1,),
    "positive": lambda y, a: (1,),
    "exp": lambda y, a: (y,),
    "log": lambda y, a: (1 / a,),
    "log1p": lambda y, a: (1 / (1 + a),),
    "sqrt": lambda y, a: (0.5 / y,),
    "square": lambda y, a: (2 * a,),
    "tanh": lambda y, a: (1 - y * y,),
    "erf": lambda y, a: (2 / np.pi**0.5 * np.exp(-a * a),),
    "power": lambda y, a, b: (b * a ** (b - 1), np.log(a) * y),
    "absolute": lambda y, a: (np.sign(a),),
    "maximum": lambda y, a, b: (a >= b, a < b),
    "minimum": lambda y, a, b: (a <= b, a > b),
    "matmul": lambda g, y, a, b: (g @ transpose(b), transpose(a) @ g),
}
"""Slopes by each argument, of the value and the arguments; of matmul the gradients. By names, for erf is SciPy's, which
takes long to load."""

MOVING = {
    np.reshape,
    np.transpose,
    np.swapaxes,
    np.moveaxis,
    np.roll,
    np.flip,
    np.repeat,
    np.tile,
    np.broadcast_to,
    np.concatenate,
    np.stack,
    np.split,
    np.expand_dims,
    np.squeeze,
    np.ravel,
    np.take,
    np.take_along_axis,
    np.where,
    np.copy,
}
"""Functions whose result is made of elements of their arguments, as they are."""


def total(a: Any, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
    """Add up."""
    y = np.sum(a, axis=axis, keepdims=keepdims)
    kept = np.sum(a, axis=axis, keepdims=True).shape
    return y, lambda g: np.broadcast_to(np.reshape(g, kept), a.shape)


def mean(a: Any, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
    """Average."""
    y, back = total(a, axis, keepdims)
    count = a.size // max(y.size, 1)
    return y / count, lambda g: back(g) / count


def extreme(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the maximum or the minimum; its gradient goes to the first place that has it."""

    def compute(a: Any, axis: Any = None, keepdims: bool = False, **_: Any) -> Any:
        y = function(a, axis=axis, keepdims=keepdims)
        axes = tuple(range(a.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(i % a.ndim for i in axes)
        last = np.moveaxis(a, axes, range(-len(axes), 0))
        rows = last.reshape(*last.shape[: a.ndim - len(axes)], -1)
        first = (rows == function(rows, axis=-1, keepdims=True)).argmax(axis=-1)[..., None]

        def back(g: Any) -> Any:
            scattered = np.zeros_like(rows)
            np.put_along_axis(scattered, first, np.reshape(g, first.shape), -1)
            return np.moveaxis(scattered.reshape(last.shape), range(-len(axes), 0), axes)

        return y, back

    return compute


def cumulated(a: Any, axis: int = 0, **_: Any) -> Any:
    """Add up along an axis."""
    return np.cumsum(a, axis=axis), lambda g: np.flip(np.cumsum(np.flip(g, axis), axis=axis), axis)


def clipped(a: Any, low: Any, high: Any, **_: Any) -> Any:
    """Clip."""
    return np.clip(a, low, high), lambda g: np.where((a >= low) & (a <= high), g, 0)


def einsum(subscripts: str, *factors: Any, **options: Any) -> Any:
    """Sum products; of the gradient as well, which is the product of all the others."""
    given, _, kept = subscripts.partition("->")
    letters = given.split(",")

    def back(g: Any) -> Any:
        found: list[Any] = [None]  # of the subscripts
        for i, own in enumerate(letters):
            others = [a for j, a in enumerate(factors) if j != i]
            left = [names for j, names in enumerate(letters) if j != i]
            shared = "".join(c for c in own if c in kept or any(c in names for names in left))
            d = np.einsum(f"{','.join([kept, *left])}->{shared}", g, *others)
            wide = [n if c in shared else 1 for c, n in zip(own, factors[i].shape, strict=True)]
            found.append(np.broadcast_to(d.reshape(wide), factors[i].shape))
        return tuple(found)

    return np.einsum(subscripts, *factors), back


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: total,
    np.mean: mean,
    np.max: extreme(np.max),
    np.amax: extreme(np.max),
    np.min: extreme(np.min),
    np.cumsum: cumulated,
    np.clip: clipped,
    np.einsum: einsum,
}
"""Functions of value and pullback."""

FLAT = {"sign", "floor", "ceil", "rint", "trunc", "round", "around"}
"""Names of functions whose results are real numbers that no gradient comes from."""
