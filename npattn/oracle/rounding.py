"""Rounding arrays: NumPy arrays on which every operation makes an error that a kernel in some format may make.

A `RoundingArray` speaks NumPy's protocols (NEP 13 and 18), so the systems' code runs on it as it stands. Run several
times, it shows how far each result of a correct kernel may stray; ``derivations/error_budgets.md`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn import ops
from npattn.ops.primitive import PRIMITIVES, ask_handlers
from npattn.ops.resizing import interpolate
from npattn.oracle.formats import Format, ulp

__all__ = ["Rounding", "RoundingArray", "Selections"]

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
SINGLE = 2.0**-24
"""Unit roundoff of the accumulators, float32."""
COARSE = 0.25
"""Logits that lie so far apart in the format make softmax's weights jump."""


class Rounding:
    """How errors are made: one for each run.

    Parameters
    ----------
    format : Format
    seed : int or list of int, optional
        Of the errors. Without one, all results are rounded to nearest, as one plain kernel rounds them.
    selections : Selections, optional
        What decides comparisons and maxima; by default the numbers as they are.

    Attributes
    ----------
    wide : bool
        Whether results are left in the storage's own precision for now, as within a fused kernel.
    """

    def __init__(self, format: Format, seed: Any = None, selections: Selections | None = None):
        self.format = format
        self.wide = False
        self.random = None if seed is None else np.random.Generator(np.random.SFC64(seed))
        self.selections = selections or Selections()

    def array(self, values: np.ndarray) -> RoundingArray:
        """Take numbers of the format, exact as they are, for a run."""
        array = np.array(values, self.format.storage).view(RoundingArray)
        array.rounding = self
        return array

    def round(self, values: np.ndarray, precision: int | None = None) -> np.ndarray:
        """Round to one of the format's two neighbours, in place and at random: to the nearer one more often."""
        format = self.format
        values = np.asarray(values)
        if self.wide or values.dtype != format.storage:  # integers, Booleans
            return values
        bits = values.view(np.uint32 if format.storage is np.float32 else np.uint64)
        drop = np.finfo(format.storage).nmant + 1 - (precision or format.precision)
        if drop == 0:
            return values
        limited = format.least_exponent > -126 or format.storage is np.float64
        if limited:
            magnitude = np.abs(values)
            small = (magnitude < 2.0**format.least_exponent) & (magnitude > 0)
            near_zero = self.round_evenly(values[small])
        word = bits.dtype.type
        if self.random is None:
            bits += ((bits >> word(drop)) & word(1)) + word((1 << drop - 1) - 1)
        else:
            # A number is cut after a random amount below the last place has been added to it.
            bits += self.draw_bits(values.shape, drop)
        bits &= ~word((1 << drop) - 1)
        if limited:
            values[small] = near_zero
            beyond = (np.abs(values) > format.largest) & (magnitude < np.inf)
            values[beyond] = np.copysign(format.largest if format.saturates else np.inf, values[beyond])
        return values

    def round_evenly(self, values: np.ndarray) -> np.ndarray:
        """Round numbers near 0, where those of the format are evenly spaced."""
        steps = values / self.format.smallest
        rounded = np.rint(steps) if self.random is None else np.floor(steps + self.random.random(steps.shape))
        return rounded * self.format.smallest

    def draw_bits(self, shape: tuple[int, ...], count: int) -> np.ndarray:
        """Draw integers of so many random bits, from as narrow words as hold them."""
        word = next(word for word in (np.uint16, np.uint32, np.uint64) if np.iinfo(word).bits >= count)
        size, bits = math.prod(shape), np.iinfo(word).bits
        raw = self.random.bit_generator.random_raw(size * bits // 64 + 1).view(word)[:size].reshape(shape)
        return raw if bits == count else raw >> word(bits - count)

    def accumulate(self, total: np.ndarray, squares: np.ndarray, count: int) -> np.ndarray:
        """Add to sums the error that an accumulator in float32 may make, in place.

        Given its end S, the sum of the first k of n terms is kS/n plus a random walk that ends at 0, of variance
        k(n - k)/n² Q², where Q² is the sum of the squared terms; over k the squares add up to n (S²/3 + Q²/6). Rounding
        a number s errs by u²s²/3 in the mean square at most.
        """
        if self.random is not None and count > 1:
            with np.errstate(invalid="ignore"):
                size = np.sqrt(np.square(total) + squares / 2) * (SINGLE / 3 * np.sqrt(count))
            # Uniform numbers of the same variance do as well as normal ones, and are drawn sooner.
            noise = self.random.random(total.shape, dtype=np.float32)
            noise -= np.float32(0.5)
            size *= noise
            size *= np.sqrt(12)
            total += np.where(np.isfinite(total), size, 0).astype(total.dtype, copy=False)  # an infinity is exact
        return total


class Selections:
    """Decide comparisons and maxima by the numbers as they are.

    Heirs record how close decisions were, or turn close ones over: `npattn.oracle.budgets`.
    """

    def compare(self, left: Any, right: Any, ordering: Callable[..., np.ndarray]) -> np.ndarray:
        """Compare numbers."""
        return ordering(left, right)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the index of the first maximum along an axis, which stays with length 1."""
        return values.argmax(axis=axis, keepdims=True)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the indices that sort along an axis, equals in order."""
        return values.argsort(axis=axis, kind="stable")


class RoundingArray(np.ndarray):
    """An array whose operations round: made by `Rounding.array`, and by NumPy from one that is."""

    rounding: Rounding | None

    def __array_finalize__(self, source: Any) -> None:
        self.rounding = getattr(source, "rounding", None)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Compute on plain arrays, then round."""
        rounding = next(
            a.rounding for a in (*inputs, *(out or ())) if isinstance(a, RoundingArray) and a.rounding is not None
        )
        operands = [stored(plain(a), rounding) for a in inputs]
        if ufunc in ORDERINGS and method == "__call__" and np.result_type(*operands).kind == "f":
            return rounding.selections.compare(*operands, ufunc)
        if ufunc is np.equal and method == "__call__":
            return select_equal(rounding, *operands)
        if ufunc is np.subtract and method == "__call__":
            operands[0] = push_apart(rounding, *operands)
        if out is not None:
            options["out"] = tuple(plain(a) for a in out)
        with np.errstate(over="ignore"):
            if ufunc is np.matmul:
                operands = [round_operand(rounding, a) for a in operands]
                result = ufunc(*operands, **options)
                rounding.accumulate(result, np.matmul(*map(np.square, operands)), operands[0].shape[-1])
            else:
                result = getattr(ufunc, method)(*operands, **options)
                if ufunc is np.add and method == "reduce":
                    squares = np.add.reduce(np.square(operands[0]), **{k: v for k, v in options.items() if k != "out"})
                    result = np.asarray(result)
                    rounding.accumulate(result, squares, operands[0].size // max(result.size, 1))
        if not isinstance(result, tuple):
            result = (result,)
        if ufunc not in EXACT:
            precision = rounding.format.precision
            if ufunc not in BASIC and ufunc is not np.matmul and precision == 24:
                precision = 23
            result = tuple(rounding.round(stored(np.asarray(array), rounding), precision) for array in result)
        wrapped = out or tuple(wrap(array, rounding) for array in result)
        return wrapped[0] if len(wrapped) == 1 else wrapped

    def __array_function__(self, function, types, arguments, options):
        """Count einsum as a product; see that what other functions make keeps rounding."""
        rounding = next((a.rounding for a in flat((arguments, options)) if isinstance(a, RoundingArray)), None)
        if rounding is None:  # makes something like an array of this kind, which `like` has named
            return function(*arguments, **options)
        if function in TAKEN_OVER:
            watched = ask_handlers(function, arguments, options) if function in PRIMITIVES else NotImplemented
            return TAKEN_OVER[function](*arguments, **options) if watched is NotImplemented else watched
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        result = super().__array_function__(function, types, arguments, options)
        plainly = type(result) is np.ndarray and result.dtype.kind == "f" and function not in MOVING
        if plainly or function in PRODUCTS:
            raise TypeError(f"np.{function.__name__} computes without rounding; expected matmul, einsum, or ufuncs")
        if isinstance(result, (tuple, list)):
            return type(result)(wrap(array, rounding) for array in result)
        return wrap(result, rounding)

    def argmax(self, axis=None, out=None, *, keepdims=False):
        """Return the index of the first maximum."""
        values, axis = (plain(self).ravel(), 0) if axis is None else (plain(self), axis)
        first = self.rounding.selections.winners(values, axis)
        return first if keepdims else np.squeeze(first, axis)

    def argsort(self, axis=-1, kind=None, order=None, *, stable=None):
        """Return the indices that sort."""
        return self.rounding.selections.order(plain(self), axis)


def plain(a: Any) -> Any:
    """Take the rounding off an array."""
    return a.view(np.ndarray) if isinstance(a, RoundingArray) else a


def stored(a: Any, rounding: Rounding) -> Any:
    """Take numbers of another floating dtype, such as a constant that NumPy makes in float64, as the storage's.

    They would lift what they are combined with to their own dtype, in which nothing is rounded.
    """
    other = isinstance(a, (np.ndarray, np.floating)) and a.dtype.kind == "f" and a.dtype != rounding.format.storage
    with np.errstate(over="ignore"):
        return a.astype(rounding.format.storage) if other else a


def wrap(a: Any, rounding: Rounding) -> Any:
    """Put rounding on an array of floating-point numbers."""
    a = stored(a, rounding)
    if not isinstance(a, (np.ndarray, np.floating)) or a.dtype != rounding.format.storage:
        return plain(a)
    array = np.asarray(a).view(RoundingArray)
    array.rounding = rounding
    return array


def flat(value: Any) -> Any:
    """Yield all that stands in nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from flat(part)
    elif isinstance(value, dict):
        yield from flat(tuple(value.values()))
    else:
        yield value


def round_operand(rounding: Rounding, a: np.ndarray) -> np.ndarray:
    """Shorten an operand of a product to what the format's products take."""
    format = rounding.format
    if format.operand_precision == format.precision:
        return a
    return rounding.round(np.array(a), format.operand_precision)


def einsum(subscripts: str, *operands: Any) -> RoundingArray:
    """Sum products, as matmul, for whatever axes; products of maps element by element are rounded before."""
    rounding = next(a.rounding for a in operands if isinstance(a, RoundingArray))
    operands = tuple(stored(a, rounding) for a in operands)
    first, *others = subscripts.partition("->")[0].split(",")
    if others == [first]:
        product = wrap(operands[0] * operands[1], rounding)
        return einsum(f"{first}->{subscripts.partition('->')[2]}", product)
    operands = [round_operand(rounding, plain(a)) for a in operands]
    result = np.asarray(np.einsum(subscripts, *operands))
    squares = np.asarray(np.einsum(subscripts, *map(np.square, operands)))
    lengths = {
        letter: length
        for letters, a in zip(subscripts.partition("->")[0].split(","), operands, strict=True)
        for letter, length in zip(letters, a.shape, strict=True)
    }
    kept = subscripts.partition("->")[2]
    count = int(np.prod([length for letter, length in lengths.items() if letter not in kept], dtype=int))
    return wrap(rounding.round(rounding.accumulate(result, squares, count)), rounding)


def sigmoid(x: RoundingArray) -> tuple[Any, Any]:
    """Compute the logistic function and its slope as kernels do, which keep y alone: near 1 its 1 - y cancels.

    The primitive itself keeps more than y, and loses nothing there; a correct kernel may.
    """
    y = 1 / (1 + np.exp(-x))
    return y, lambda dy: dy * (y * (1 - y))


def softmax(x: RoundingArray, axis: int = -1) -> tuple[Any, Any]:
    """Compute softmax and its gradient as kernels do, whose dy - Σ y dy cancels where one weight is nearly 1."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    y = e / e.sum(axis=axis, keepdims=True)
    # Half of the runs round nothing on the way back, as kernels do that keep y in the format and compute in float32:
    # then it is y's own error that does not cancel.
    random = x.rounding.random
    whole = random is not None and random.random() < 0.5
    # In float32 half of the runs take off one dy, as the reference does: that of the largest weight. The sum is larger
    # then, and so is the error of its accumulator, which in narrower formats is far below a rounding.
    shifted = random is not None and x.rounding.format.precision == 24 and random.random() < 0.5
    first = plain(y).argmax(axis=axis, keepdims=True)

    def backward(dy):
        if shifted:
            dy = dy - np.take_along_axis(plain(dy), first, axis)
            return y * (dy - (y * dy).sum(axis=axis, keepdims=True))
        weights, upstream = (plain(y), plain(dy)) if whole else (y, dy)
        dx = weights * (upstream - (weights * upstream).sum(axis=axis, keepdims=True))
        return wrap(x.rounding.round(dx), x.rounding) if whole else dx

    return y, backward


def softmin(x: RoundingArray, axis: int = -1) -> tuple[Any, Any]:
    """Compute softmin as released code does: the softmax of max x - x, differentiated through the maximum as well.

    The difference is rounded once more than -x is. The maximum's gradient is the sum of a row of softmax's, which is 0
    but for rounding, and stands where weights are 0 and nothing else errs.
    """
    finite = np.isfinite(plain(x))
    highest = np.max(plain(x), axis=axis, keepdims=True, where=finite, initial=-np.inf)
    y, back_softmax = ops.softmax(highest - x, axis)

    def backward(dy):
        dz = back_softmax(dy)
        return np.where(plain(x) == highest, dz.sum(axis=axis, keepdims=True), 0) - dz

    return y, backward


def resize_bilinear(x: RoundingArray, size: tuple[int, int], align_corners: bool = False) -> tuple[Any, Any]:
    """Interpolate as kernels do, which compute where an output reads its input in float32.

    The primitive's weights are exact. A kernel's are off by the error of a position, up to its rounding unit times the
    length of the axis.
    """
    rounding = x.rounding
    rows, columns = (inexact_weights(rounding, n, m, align_corners) for n, m in zip(x.shape[2:], size, strict=True))
    return (rows @ x) @ columns.T, lambda dy: (rows.T @ dy) @ columns


def inexact_weights(rounding: Rounding, length: int, outputs: int, align_corners: bool) -> RoundingArray:
    """Make the matrix of an interpolation, whose two weights of a row differ from the exact ones by opposite errors."""
    matrix = interpolate(np.eye(length, dtype=rounding.format.storage), 0, outputs, align_corners)
    if rounding.random is not None:
        between = (matrix > 0).sum(axis=1) == 2
        error = rounding.random.uniform(-SINGLE * length, SINGLE * length, (outputs, 1)) * between[:, None]
        matrix += np.where(matrix > 0, error, 0) * np.where(np.cumsum(matrix > 0, axis=1) == 1, 1, -1)
    return wrap(matrix, rounding)


def push_apart(rounding: Rounding, a: np.ndarray, b: Any) -> np.ndarray:
    """Move logits from which the maximum is taken, as before a softmax, where they lie far apart in the format.

    There an exponential turns rounding into jumps, and the largest error that a kernel may make, which few runs come
    near, is not in proportion to the usual one. So each goes to one side or the other by a unit in the last place.
    """
    if rounding.random is None or not reduced_axes(a, b) or not (b >= a).all():
        return a
    step = ulp(a, rounding.format)
    if not (step >= COARSE).any():
        return a
    side = np.where(rounding.draw_bits(a.shape, 1), 1, -1)
    return np.where(step >= COARSE, a + side * step, a).astype(a.dtype)


def reduced_axes(a: np.ndarray, b: Any) -> list[int]:
    """List the axes along which one number of `b` serves several of `a`."""
    if np.ndim(a) != np.ndim(b):
        return []
    return [axis for axis, (n, m) in enumerate(zip(np.shape(a), np.shape(b), strict=True)) if m == 1 < n]


def select_equal(rounding: Rounding, a: np.ndarray, b: Any) -> np.ndarray:
    """Tell equals; where an array is compared with its maximum along an axis, the winner is a selection."""
    equal = np.equal(a, b)
    axes = reduced_axes(a, b)
    if len(axes) != 1 or not (b >= a).all():
        return equal
    equal[...] = False
    np.put_along_axis(equal, rounding.selections.winners(a, axes[0]), True, axes[0])
    return equal


MOVING = {np.where, np.concatenate, np.stack, np.broadcast_to, np.pad, np.roll, np.tile}
"""Functions that make plain arrays, of numbers that they move and don't change."""
PRODUCTS = {np.inner, np.vdot, np.convolve, np.correlate}
"""Functions that add up products in one piece."""
TAKEN_OVER = {
    np.einsum: einsum,
    np.dot: np.matmul,
    np.argmax: RoundingArray.argmax,
    np.argsort: RoundingArray.argsort,
    ops.sigmoid: sigmoid,
    ops.softmax: softmax,
    ops.softmin: softmin,
    ops.resize_bilinear: resize_bilinear,
}
"""Functions that NumPy computes in one piece, or as no kernel does."""
