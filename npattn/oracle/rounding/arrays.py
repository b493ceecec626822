"""Arrays whose operations round: how NumPy's functions compute on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.ops.primitive import PRIMITIVES, ask_handlers
from npattn.oracle.rounding.accumulators import ACCUMULATED
from npattn.oracle.rounding.disturbing import DISTURBED, select_equal
from npattn.oracle.rounding.following import FOLLOWED, known_step
from npattn.oracle.rounding.products import multiply
from npattn.typing import Array

if TYPE_CHECKING:
    from npattn.oracle.rounding.stochastic import Rounding

__all__ = [
    "HANDLED_FUNCTIONS",
    "HANDLED_UFUNCS",
    "RoundingArray",
    "implements",
    "place_of",
    "rounding_of",
    "to_storage",
    "unwrap",
    "wrap",
]

EXACT = {
    np.absolute,
    np.copysign,
    np.fabs,
    np.fmax,
    np.fmin,
    np.frexp,
    np.isfinite,
    np.isinf,
    np.isnan,
    np.ldexp,
    np.maximum,
    np.minimum,
    np.negative,
    np.positive,
    np.sign,
    np.signbit,
}
"""Functions whose result is one of the format's numbers if their arguments are."""
BASIC = {np.add, np.subtract, np.multiply, np.divide, np.sqrt, np.square, np.reciprocal, np.floor, np.ceil, np.rint}
"""Functions that every machine rounds correctly. The others (exp, log, …) may be off by one bit more."""
ORDERINGS = {np.less, np.less_equal, np.greater, np.greater_equal}
MOVING = {np.where, np.concatenate, np.stack, np.broadcast_to, np.pad, np.roll, np.tile}
"""Functions that make plain arrays, of numbers that they move and don't change."""
PRODUCTS = {np.inner, np.vdot, np.convolve, np.correlate}
"""Functions that add up products out of sight."""
HANDLED_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""What stands for a function that NumPy computes out of sight, or for a primitive that no kernel computes so."""
HANDLED_UFUNCS: dict[str, Callable[..., Any]] = {"equal": select_equal}
"""What stands for a ufunc on plain operands, behind how they round: by name, for SciPy's take long to load."""


class RoundingArray(np.ndarray):
    """An array whose operations round: made by `Rounding.array`, and by NumPy from one that is.

    Attributes
    ----------
    rounding : Rounding or None
    average : callable or None
        Of a gradient that a product has made, and of views of it: returns what it averages to along the axis that was
        summed over, weighted by what it is the gradient of, and the sum of the magnitudes.
    made : object
        Of a step of what a primitive is, written out, and of views of it: which one it is.
    """

    rounding: Rounding | None
    average: Callable[[], tuple[np.ndarray, np.ndarray]] | None
    made: object

    def __array_finalize__(self, source: Any) -> None:
        self.rounding = getattr(source, "rounding", None)
        self.average = getattr(source, "average", None)
        self.made = getattr(source, "made", None)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Array, ...] | None = None, **options: Any
    ) -> Any:
        """Compute on plain arrays, then round."""
        rounding = self.rounding or rounding_of(*inputs, *(out or ()))
        operands = [to_storage(a.view(np.ndarray) if isinstance(a, RoundingArray) else a, rounding) for a in inputs]
        if ufunc in ORDERINGS and method == "__call__" and np.result_type(*operands).kind == "f":
            return rounding.selections.compare(operands[0], operands[1], ufunc)
        if ufunc.__name__ in HANDLED_UFUNCS and method == "__call__" and out is None:
            return HANDLED_UFUNCS[ufunc.__name__](rounding, *operands)
        if ufunc in DISTURBED and method == "__call__":
            operands[0] = DISTURBED[ufunc](rounding, *operands)
        if out is not None:
            options["out"] = tuple(unwrap(a) for a in out)
            for a in out:
                if isinstance(a, RoundingArray):
                    a.average = None
        accumulated = ACCUMULATED.get((ufunc, method))
        with np.errstate(over="ignore"):
            if ufunc is np.matmul:
                result: Any = multiply(operands[0], operands[1], rounding, **options)
            elif accumulated is not None and (rounding.random is not None or method == "at"):
                result = accumulated(operands[0], rounding, *operands[1:], **options)
            else:
                result = getattr(ufunc, method)(*operands, **options)
        if not isinstance(result, tuple):
            result = (result,)
        if ufunc not in EXACT:
            precision = precision_of(ufunc, rounding)
            result = tuple([rounding.round(to_storage(a, rounding), precision) for a in result])
        wrapped = out or tuple([wrap(a, rounding) for a in result])
        if isinstance(wrapped[0], RoundingArray):
            wrapped[0].made = known_step((ufunc, method), *inputs, wrapped[0], **options)
        return wrapped[0] if len(wrapped) == 1 else wrapped

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: Iterable[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Count einsum as a product; see that what other functions make keeps rounding."""
        found = next((a for a in arguments if a is self), None)  # mostly there, and nothing nested is looked through
        if found is None:
            found = next((a for a in flatten((arguments, options)) if isinstance(a, RoundingArray)), None)
        if found is None:  # makes something like an array of this kind, which `like` has named
            return function(*arguments, **options)
        if function in HANDLED_FUNCTIONS:
            watched = ask_handlers(function, tuple(arguments), options) if function in PRIMITIVES else NotImplemented
            return HANDLED_FUNCTIONS[function](*arguments, **options) if watched is NotImplemented else watched
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        result = super().__array_function__(function, types, arguments, options)
        plainly = type(result) is np.ndarray and result.dtype.kind == "f" and function not in MOVING
        if plainly or function in PRODUCTS:
            raise TypeError(f"np.{function.__name__} computes without rounding; expected matmul, einsum, or ufuncs")
        rounding = rounding_of(found)
        if isinstance(result, (tuple, list)):
            return type(result)(wrap(a, rounding) for a in result)
        wrapped = wrap(result, rounding)
        if isinstance(wrapped, RoundingArray):
            step, made = (function, "__call__"), getattr(result, "made", None)
            wrapped.made = known_step(step, *arguments, wrapped) if step in FOLLOWED else made
        return wrapped

    def dot(self, b: Any, out: Any = None) -> Any:
        """Multiply as ``np.dot`` does."""
        return np.dot(self, b)

    def argmax(self, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        """Return the index of the first maximum."""
        values, axis = (unwrap(self).ravel(), 0) if axis is None else (unwrap(self), axis)
        first = rounding_of(self).selections.winners(values, axis)
        return first if keepdims else np.squeeze(first, axis)

    def argsort(self, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
        """Return the indices that sort."""
        return rounding_of(self).selections.order(unwrap(self), axis)

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """Return running sums, of all numbers in a row where no axis is named."""
        return np.add.accumulate(self.ravel() if axis is None else self, axis=axis or 0, dtype=dtype, out=out)

    def cumprod(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """Return running products, of all numbers in a row where no axis is named."""
        return np.multiply.accumulate(self.ravel() if axis is None else self, axis=axis or 0, dtype=dtype, out=out)


HANDLED_FUNCTIONS |= {
    np.argmax: RoundingArray.argmax,
    np.argsort: RoundingArray.argsort,
    np.cumprod: RoundingArray.cumprod,
    np.cumsum: RoundingArray.cumsum,
}


def implements(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as what stands for `function` on rounding arrays."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        HANDLED_FUNCTIONS[function] = implementation
        return implementation

    return register


def place_of(a: Any) -> tuple[Any, ...]:
    """Return where an array's numbers lie."""
    plain = np.asarray(unwrap(a))
    return plain.__array_interface__["data"], plain.shape, plain.strides


def precision_of(ufunc: np.ufunc, rounding: Rounding) -> int:
    """Return how many bits of a function's results are right."""
    basic = ufunc in BASIC or ufunc is np.matmul or not rounding.format.is_single_precision
    return rounding.format.precision - (not basic)


def rounding_of(*values: Any) -> Rounding:
    """Return how the first rounding array among some values rounds."""
    return next(a.rounding for a in values if isinstance(a, RoundingArray) and a.rounding is not None)


def unwrap(a: Any) -> Any:
    """Take the rounding off an array."""
    return a.view(np.ndarray) if isinstance(a, RoundingArray) else a


def wrap(a: Any, rounding: Rounding) -> Any:
    """Put rounding on an array of floating-point numbers."""
    a = to_storage(a, rounding)
    if not isinstance(a, (np.ndarray, np.floating)) or a.dtype != rounding.dtype:
        return unwrap(a)
    array = np.asarray(a).view(RoundingArray)
    array.rounding = rounding
    if rounding.footprint is not None:
        rounding.footprint.add(array)
    return array


def to_storage(a: Any, rounding: Rounding) -> Any:
    """Take numbers of another floating dtype, such as a constant that NumPy makes in float64, as the storage's.

    They would lift what they are combined with to their own dtype, in which nothing is rounded.
    """
    if not isinstance(a, (np.ndarray, np.floating)) or a.dtype == rounding.dtype or a.dtype.kind != "f":
        return a
    with np.errstate(over="ignore"):
        return a.astype(rounding.dtype)


def flatten(value: Any) -> Iterator[Any]:
    """Yield all that stands in nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from flatten(one)
    elif isinstance(value, Mapping):
        yield from flatten(tuple(value.values()))
    else:
        yield value
