"""When two systems of somebody's own are equal: if they are of one class, and made with the same."""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["equal", "held"]


def held(module: object) -> dict[str, Any]:
    """Return what a module was made with, by name: not what a `functools.cached_property` has kept since."""
    kept = [name for name in vars(module) if isinstance(getattr(type(module), name, None), functools.cached_property)]
    return {name: value for name, value in vars(module).items() if name not in kept}


def equal(one: Any, other: Any) -> bool:
    """Tell whether two values are equal, arrays and what holds them among them."""
    if one is other:
        return True
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())
    if hasattr(one, "shape") and hasattr(other, "shape"):
        return tuple(one.shape) == tuple(other.shape) and bool((one == other).all())
    return bool(one == other)
