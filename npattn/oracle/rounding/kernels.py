"""Primitives as kernels compute them, where the reference does better: what stands for them on rounding arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from npattn import ops
from npattn.ops import attention, criss_cross
from npattn.ops.primitive import Primitive
from npattn.ops.resizing import interpolate
from npattn.oracle.heads import attend_by_heads
from npattn.oracle.pairs import keep_apart
from npattn.oracle.rounding.accumulators import ACCUMULATOR_ROUNDOFF
from npattn.oracle.rounding.arrays import RoundingArray, implements, rounding_of, unwrap, wrap
from npattn.oracle.rounding.averages import error_of_average, tell_average
from npattn.oracle.rounding.products import multiply
from npattn.oracle.rounding.stochastic import Rounding
from npattn.oracle.rounding.weights import hand_out, total_above_largest
from npattn.typing import Array, Backward

__all__ = [
    "criss_cross_attention",
    "dot_product_attention",
    "linear_attention",
    "matmul",
    "resize_bilinear",
    "softmax",
    "softmin",
    "sum_normalize",
]

MANY_WEIGHTS = 2**16
"""Weights of one head from which heads are computed one after the other."""


@implements(ops.softmax)
def softmax(x: RoundingArray, axis: int = -1) -> tuple[Array, Backward]:
    """Compute softmax and its gradient as kernels do, whose dy - Σ y dy cancels where one weight is nearly 1."""
    rounding = rounding_of(x)
    largest = x.max(axis=axis, keepdims=True)
    e = np.exp(x - largest)
    total = e.sum(axis=axis, keepdims=True)
    total.made = None  # no softmax that is written out
    y: Array = e / total_above_largest(e, total, rounding, axis)
    # In float32 half of the runs take off one dy, as the reference does: that of the largest weight. The sum is larger
    # then, and so is the error of its accumulator, which in narrower formats is far below a rounding.
    shifted = rounding.format.is_single_precision and rounding.choose()
    # Half of the runs round nothing on the way back, as kernels do that keep y in the format and compute in float32:
    # then it is y's own error that does not cancel.
    fused = rounding.choose()
    first = unwrap(y).argmax(axis=axis, keepdims=True)
    kept = hand_out(y, largest, total, rounding)

    def backward(dy: Array) -> Array:
        error = error_of_average(kept, dy, axis)
        if shifted:
            dy = dy - np.take_along_axis(unwrap(dy), first, axis)
        weights, upstream = (unwrap(kept), unwrap(dy)) if fused and not shifted else (kept, dy)
        dx = weights * (upstream - ((weights * upstream).sum(axis=axis, keepdims=True) + error))
        return dx if isinstance(dx, RoundingArray) else wrap(rounding.round(dx), rounding)

    return y, backward


@implements(ops.sum_normalize)
def sum_normalize(x: RoundingArray, axis: int = -1, eps: float = 1e-9) -> tuple[Array, Backward]:
    """Divide by the sum, and take from the gradient an average that is made apart from it.

    Half of the runs differentiate the quotient as products of its terms, not of its value.
    """
    total = x.sum(axis=axis, keepdims=True) + eps
    y: Array = x / total
    by_terms = rounding_of(x).choose()

    def backward(dy: Array) -> Array:
        error = error_of_average(y, dy, axis)
        if by_terms:
            return dy / total - ((x * dy).sum(axis=axis, keepdims=True) + error * unwrap(total)) / total / total
        return (dy - ((y * dy).sum(axis=axis, keepdims=True) + error)) / total

    return y, backward


@implements(ops.matmul)
def matmul(a: Array, b: Array) -> tuple[Array, Backward]:
    """Multiply as the primitive does; gradients know what they average to by the product."""
    c, back = ops.matmul.definition(a, b)

    def backward(dc: Array) -> tuple[Array, Array]:
        da, db = back(dc)
        tell_average(da, c, dc, -1)
        tell_average(db, c, dc, -2)
        return da, db

    return c, backward


@implements(ops.linear_attention)
def linear_attention(q: Array, k: Array, v: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Multiply as the primitive does; gradients know what they average to by the two products."""
    gathered = v @ k.swapaxes(-1, -2)
    g = scale * gathered
    o = g @ q

    def backward(do: Array) -> tuple[Array, Array, Array]:
        dg = scale * (do @ q.swapaxes(-1, -2))
        dq, dk = g.swapaxes(-1, -2) @ do, dg.swapaxes(-1, -2) @ v
        tell_average(dq, o, do, -2)
        tell_average(dk, gathered, dg, -2)
        return dq, dk, dg @ k

    return o, backward


@implements(ops.criss_cross_attention)
def criss_cross_attention(q: Array, k: Array, v: Array) -> tuple[Array, Backward]:
    """Attend as the primitive does; gradients of weights know what they average to by what was gathered."""
    s, back_softmax = ops.softmax(np.where(criss_cross.is_itself(q), -np.inf, criss_cross.products(q, k)))
    o = criss_cross.gather_on_lines(v, s)

    def backward(do: Array) -> tuple[Array, Array, Array]:
        ds = criss_cross.products(do, v)
        tell_average(ds, o, do, -3)
        dz = back_softmax(ds)
        return (
            criss_cross.gather_on_lines(k, dz),
            criss_cross.scatter_on_lines(q, dz),
            criss_cross.scatter_on_lines(do, s),
        )

    return o, backward


@implements(ops.softmin)
def softmin(x: RoundingArray, axis: int = -1) -> tuple[Array, Backward]:
    """Compute softmin as released code does: the softmax of max x - x, differentiated through the maximum as well.

    The difference is rounded once more than -x is. The maximum's gradient is the sum of a row of softmax's, which is 0
    but for rounding, and stands where weights are 0 and nothing else errs.
    """
    finite = np.isfinite(unwrap(x))
    highest = np.max(unwrap(x), axis=axis, keepdims=True, where=finite, initial=-np.inf)
    y, back_softmax = ops.softmax(highest - x, axis)

    def backward(dy: Array) -> Array:
        dz = back_softmax(dy)
        return np.where(unwrap(x) == highest, dz.sum(axis=axis, keepdims=True), 0) - dz

    return y, backward


@implements(ops.dot_product_attention)
def dot_product_attention(q: Array, k: Array, v: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Attend as the primitive does, but of many weights only those of one image and head at a time fill the memory."""
    lead, attend = q.shape[:-2], ops.dot_product_attention.definition
    if math.prod(lead) > 1 and q.shape[-1] * k.shape[-1] >= MANY_WEIGHTS and lead == k.shape[:-2] == v.shape[:-2]:
        attend = partial(attend_by_heads, attend)
    return share_scale(attend, q, k, v, scale)


def share_scale(
    attend: Callable[..., Any], q: Array, k: Array, v: Array, scale: float = 1.0, **options: Any
) -> tuple[Any, Backward]:
    """Attend; in tf32 half of the runs scale both queries and keys, by the root, before the product shortens them.

    Kernels do so where queries alone would leave the format's range. Multiplied by no power of two, numbers that were
    short are short no more.
    """
    rounding = rounding_of(q, k, v)
    if not rounding.format.shortens or abs(scale) == 1 or not rounding.choose():
        return attend(q, k, v, scale, **options)
    root = math.sqrt(abs(scale))
    signed = math.copysign(root, scale)
    output, back = attend(signed * q, root * k, v, **options)

    def backward(*upstream: Array) -> tuple[Any, ...]:
        dq, dk, *others = back(*upstream)
        return signed * dq, root * dk, *others

    return output, backward


@implements(attention.average_slope)
def average_slope(do: Array, o: Array, dl: Array | float = 0.0) -> Array:
    """Average slopes as kernels do, of which half keep what comes of it in float32.

    Where a query sees one key, or one weight is nearly 1, it is taken off a number that it equals but for rounding. If
    both were rounded in all runs, they might cancel in all; a kernel that rounds one of them is left with its error.
    That number may lie so near one of the format's that all runs round it alike: so the average is blurred.
    """
    rounding = rounding_of(do, o)
    if not rounding.choose():
        return attention.average_slope.definition(do, o, dl)
    terms = unwrap(do) * unwrap(o)
    total = rounding.accumulate(terms.sum(axis=-2), np.square(terms).sum(axis=-2), terms.shape[-2])
    return wrap(rounding.blur(np.asarray(total - unwrap(dl))), rounding)


def apart(primitive: Primitive) -> Callable[..., Any]:
    """Return how to compute a primitive whose logits of many pairs are kept as their summands, or as it is defined."""

    def compute(*arguments: Any, **options: Any) -> Any:
        found = keep_apart(primitive, arguments, options)
        return primitive.definition(*arguments, **options) if found is NotImplemented else found

    return compute


implements(ops.relative_logits)(apart(ops.relative_logits))
implements(ops.masked_attention)(partial(share_scale, apart(ops.masked_attention)))


@implements(ops.resize_bilinear)
def resize_bilinear(x: RoundingArray, size: tuple[int, int], align_corners: bool = False) -> tuple[Array, Backward]:
    """Interpolate as kernels do, which compute where an output reads its input in float32.

    The primitive's weights are exact. A kernel's are off by the error of a position, up to its unit roundoff times the
    length of the axis.
    """
    rounding = rounding_of(x)
    rows, columns = (inexact_weights(rounding, n, m, align_corners) for n, m in zip(x.shape[2:], size, strict=True))
    return weigh(weigh(rows, x), columns.T), lambda dy: weigh(weigh(rows.T, dy), columns)


def weigh(a: Array, b: Array) -> Array:
    """Weigh and add up by a matrix that no kernel makes: its products go through no unit that shortens operands."""
    rounding = rounding_of(a, b)
    with np.errstate(over="ignore"):
        return wrap(rounding.round(multiply(unwrap(a), unwrap(b), rounding, shortens=False)), rounding)


def inexact_weights(rounding: Rounding, length: int, outputs: int, align_corners: bool) -> Array:
    """Make the matrix of an interpolation, whose two weights of a row differ from the exact ones by opposite errors.

    Where a position is right on a number, though the step from one to the next is none of float32's, it may be read a
    trace to one side or the other.
    """
    matrix = interpolate(np.eye(length, dtype=rounding.format.storage), 0, outputs, align_corners)
    if rounding.random is not None:
        row, first, num_read = np.arange(outputs), (matrix > 0).argmax(axis=1), (matrix > 0).sum(axis=1)
        farthest = ACCUMULATOR_ROUNDOFF * length
        error = rounding.random.uniform(-farthest, farthest, outputs)
        step = (length - 1) / max(outputs - 1, 1) if align_corners else length / outputs
        on_number = (num_read == 1) & (first > 0) & (first < length - 1) & (float(np.float32(step)) != step)
        second = np.where((num_read == 2) | (error < 0), first + 1, first - 1) % length
        error = np.where(on_number, -np.abs(error), error) * (on_number | (num_read == 2))
        matrix[row, first] += error
        matrix[row, second] -= error
    return wrap(matrix, rounding)
