"""The words of every signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

__all__ = ["Array", "Backward", "Gradients", "Params"]

Array: TypeAlias = Any
"""An array that follows NumPy's protocols NEP 13 and NEP 18: NumPy's own of any kind of number, a rounding array,
CuPy's. No type that a checker knows says so."""

Params: TypeAlias = Mapping[str, Array]
"""Parameters and buffers of a system, by name."""

Gradients: TypeAlias = dict[str, Array]
"""A gradient for every parameter, by name."""

Backward: TypeAlias = Callable[..., Any]
"""The vector-Jacobian product (VJP, or pullback) that a primitive or a system hands back beside its value: the gradient
of its result in, those of its arguments out."""
