"""Whether a system's code keeps the kind of array that it is given: in a plain array no rounding can be followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.budgets import Given, named_results
from npattn.typing import Array

__all__ = ["lost_in"]

RELATIVE_STEP = 2.0**-18
"""By how much inputs are moved, relative to them: seldom across a kink, and by some numbers of float32."""
MIN_SHARE = 0.5
"""Share of an array's numbers that must follow the inputs, and be none of float32's: a choice moves a few at most."""


class Followed(np.ndarray):
    """An array whose operations give numbers of float32, and which notes the plain arrays that it meets.

    Attributes
    ----------
    met : list of numpy.ndarray
    """

    met: list[np.ndarray]

    def __array_finalize__(self, source: Any) -> None:
        self.met = getattr(source, "met", [])

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Array, ...] | None = None, **options: Any
    ) -> Any:
        """Compute on plain arrays."""
        met = next(a.met for a in (*inputs, *(out or ())) if isinstance(a, Followed))
        met += [a.copy() for a in inputs if is_plain(a)]
        if out is not None:
            options["out"] = tuple(map(unfollowed, out))
        result = getattr(ufunc, method)(*map(unfollowed, inputs), **options)
        if out is not None:
            for a in options["out"]:
                a[...] = to_float32(a)
            return out[0] if len(out) == 1 else out
        return tuple(follow(a, met) for a in result) if isinstance(result, tuple) else follow(result, met)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: Iterable[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Leave primitives as they are; follow what NumPy's functions make."""
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        self.met.extend(a.copy() for a in arguments if is_plain(a))
        result = super().__array_function__(function, types, arguments, options)
        return follow(result, self.met)


def is_plain(a: Any) -> bool:
    """Tell whether something is an array of floating-point numbers, and of no kind."""
    return type(a) is np.ndarray and a.ndim > 0 and a.dtype.kind == "f"


def unfollowed(a: Any) -> Any:
    """Take the kind off an array."""
    return a.view(np.ndarray) if isinstance(a, Followed) else a


def to_float32(a: np.ndarray) -> np.ndarray:
    """Round to numbers of float32; others than floating-point ones stay."""
    return a.astype(np.float32).astype(a.dtype) if a.dtype.kind == "f" else a


def follow(a: Any, met: list[np.ndarray]) -> Any:
    """Follow an array of floating-point numbers; leave anything else."""
    if not isinstance(a, (np.ndarray, np.floating)) or a.dtype.kind != "f":
        return a
    followed = to_float32(np.asarray(a)).view(Followed)
    followed.met = met
    return followed


def lost_in(module: Module, given: Given) -> str:
    """Say in which pass a system makes plain arrays of what it is given, and computes on; "" where it does not.

    It runs twice, on inputs that are moved a little. A plain array that is met may be a constant, or a choice by
    comparisons, which moves nowhere; or it may have been filled with numbers that were followed, which are float32's.

    Parameters
    ----------
    module : Module
    given : Given

    Returns
    -------
    {"", "forward", "backward"}

    Examples
    --------
    >>> from npattn.module import Pass
    >>> class Careless(Module):
    ...     channels = 3
    ...     def forward(self, params, x):
    ...         e = np.exp(np.asarray(x))
    ...         return Pass(x * e, lambda dy: (dy * (e + x * e), {}))
    >>> x = np.random.RandomState(0).standard_normal((2, 3, 2, 2))
    >>> lost_in(Careless(), Given({}, {"x": x}, {"output": x}))
    'forward'
    """
    inputs = {
        name: x if name in module.without_gradient else x * (1 + RELATIVE_STEP) for name, x in given.inputs.items()
    }
    moved = given._replace(inputs=inputs)
    first, second = (arrays_met(module, one) for one in (given, moved))
    for where in first:
        pairs = zip(first[where], second[where], strict=False)
        if any(a.shape == b.shape and a.size and np.mean(follows(a, b)) > MIN_SHARE for a, b in pairs):
            return where
    return ""


def follows(a: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Tell which numbers move with the inputs, and are none of float32's."""
    return (a != moved) & (a != to_float32(a)) & np.isfinite(a) & np.isfinite(moved)


def arrays_met(module: Module, given: Given) -> dict[str, list[np.ndarray]]:
    """Run a system and list the plain arrays that are met in each pass, or are what it returns."""
    met: list[np.ndarray] = []
    count = 0

    def between() -> None:
        nonlocal count
        count = len(met)

    with np.errstate(all="ignore"):
        results = named_results(module, given.each(lambda a: follow(a, met)), between)
    forward, backward = met[:count], met[count:]
    for name, a in results.items():
        if is_plain(a):
            (backward if name.endswith(".grad") else forward).append(a)
    return {"forward": forward, "backward": backward}
