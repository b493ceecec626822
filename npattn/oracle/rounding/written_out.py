"""A softmax that a system writes out, by exponentials and their sum: known by its steps, and computed as kernels do."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar
from weakref import ref

import numpy as np

from npattn.oracle.rounding.arrays import RoundingArray, rounding_of, unwrap, wrap
from npattn.oracle.rounding.averages import error_of_average, follow_sum_of_products, is_view
from npattn.oracle.rounding.following import follow
from npattn.oracle.rounding.weights import change_for_backward, hand_out
from npattn.typing import Array

__all__ = ["Exponentials", "Inverse", "Largest", "LogWeights", "Logarithm", "Shifted", "Total", "Weighted", "Weights"]

Step = TypeVar("Step")


class Largest:
    """The largest logits."""


class Shifted(NamedTuple):
    """Logits less the largest."""

    largest: Array


class Exponentials(NamedTuple):
    """Exponentials of logits, less the largest if that was taken off."""

    largest: Array | float


class Total(NamedTuple):
    """The sum of exponentials along an axis, or several, with a sink's if there is one."""

    exponentials: Array
    axis: int | tuple[int, ...]
    on_way_back: bool


class Inverse(NamedTuple):
    """One over a total."""

    total: Array


class Logarithm(NamedTuple):
    """The logarithm of a total, to which the largest logits have been added or not."""

    total: Array
    added: bool


class LogWeights(NamedTuple):
    """Logits less their logsumexp."""

    total: Array


class Weights(NamedTuple):
    """Exponentials over their total."""

    axis: int | tuple[int, ...]
    largest: Array | float


class Dropped:
    """Weights of which some are dropped, and the others made up for them."""


class Weighted(NamedTuple):
    """A gradient times the weights that it is of, or the exponentials that are to become these."""

    weights: Array
    gradient: Array
    axis: int | tuple[int, ...] | None


def made_as(a: Any, kind: type[Step]) -> Step | None:
    """Return how an array was made, if that is a step of this kind; else None."""
    made = getattr(a, "made", None)
    return made if isinstance(made, kind) else None


def total_of(total: Array) -> Total:
    """Return how an array was made that is known to be a total."""
    made = made_as(total, Total)
    assert made is not None
    return made


def largest_of(total: Array) -> Array | float:
    """Return what was taken off the logits whose exponentials a total adds up."""
    exponentials = made_as(total_of(total).exponentials, Exponentials)
    assert exponentials is not None
    return exponentials.largest


def follow_maximum(_: Array, largest: Array, **__: Any) -> Largest:
    """Know the largest logits."""
    return Largest()


def follow_larger(a: Array, b: Array, _: Array, **__: Any) -> Largest | None:
    """Know the largest logits, with a sink's among them."""
    return made_as(a, Largest) or made_as(b, Largest)


def follow_difference(z: Array, taken_off: Array, result: Array, **__: Any) -> Shifted | LogWeights | None:
    """Know logits less the largest, and less their logsumexp."""
    if made_as(taken_off, Largest):
        return Shifted(taken_off)
    logarithm = made_as(taken_off, Logarithm)
    if not (logarithm and (logarithm.added or made_as(z, Shifted))):
        return None
    if not logarithm.added:
        round_logsumexp(result, taken_off, logarithm.total)
    return LogWeights(logarithm.total)


def round_logsumexp(result: Array, logarithm: Array, total: Array) -> None:
    """Let half of the runs take a rounded logsumexp off the logits, as cross-entropy does, and make weights of it."""
    rounding, largest = rounding_of(result), largest_of(total)
    if not rounding.choose():
        return
    exact = np.asarray(unwrap(largest) + unwrap(logarithm))
    error = rounding.round(exact.copy()) - exact
    error = np.where(np.isfinite(error), error, 0).astype(error.dtype)
    plain = unwrap(result)
    plain -= error
    exponentials, factor = total_of(total).exponentials, np.exp(-error)
    rounding.known.logsumexps.append((largest, factor))
    if not rounding.known.in_backward:
        change_for_backward(exponentials, factor, rounding)
    for y in rounding.known.weights:
        weights = made_as(y, Weights)
        if weights and np.array_equal(unwrap(weights.largest), unwrap(largest)):
            change_for_backward(y, factor, rounding)


def keep_logsumexp(result: Array, largest: Array, total: Array) -> None:
    """Let half of the runs' backward, if it has the exponentials, find them of a logsumexp that is rounded."""
    exact = np.asarray(unwrap(largest), float) + np.log(np.asarray(unwrap(total), float))
    with np.errstate(invalid="ignore"):
        error = unwrap(result) - exact
    factor = np.exp(-np.where(np.isfinite(error), error, 0)).astype(result.dtype)
    rounding_of(result).known.kept_sums.append((largest, ref(total_of(total).exponentials), factor))


def follow_exponential(z: Array, e: Array, **_: Any) -> Exponentials | Weights:
    """Know exponentials of logits, or weights where the logits are less their logsumexp."""
    known = made_as(z, LogWeights)
    if known:
        hand_out(e, largest_of(known.total), known.total, rounding_of(e))
        return Weights(total_of(known.total).axis, largest_of(known.total))
    shifted = made_as(z, Shifted)
    return Exponentials(shifted.largest if shifted else 0.0)


def become_weights(y: Array, total: Array) -> Weights:
    """Hand out weights, which backward may have otherwise: of a logsumexp that is rounded."""
    rounding, largest, made = rounding_of(y), largest_of(total), total_of(total)
    kept = [factor for found, factor in rounding.known.logsumexps if np.array_equal(unwrap(found), unwrap(largest))]
    if not kept:
        hand_out(y, largest, total, rounding)
    else:
        rounding.known.weights.append(y)
        # Exponentials that backward finds are off already, but where it adds them up itself.
        if not rounding.known.in_backward or made.on_way_back:
            change_for_backward(y, kept[0], rounding)
    return Weights(made.axis, largest)


def follow_logarithm(total: Array, _: Array, **__: Any) -> Logarithm | None:
    """Know the logarithm of a total."""
    return Logarithm(total, False) if made_as(total, Total) else None


def follow_addition(a: Array, b: Array, result: Array, **_: Any) -> Total | Logarithm | None:
    """Know a logsumexp, and a total with a sink's exponential in it."""
    for one, other in ((a, b), (b, a)):
        total, logarithm = made_as(one, Total), made_as(one, Logarithm)
        if total and np.shape(one) == result.shape:
            return total
        if logarithm and made_as(other, Largest):
            keep_logsumexp(result, other, logarithm.total)
            return Logarithm(logarithm.total, True)
    return None


def follow_sum(terms: Array, total: Array, *, axis: Any = 0, **_: Any) -> Total | None:
    """Know a total; add to an average of a gradient by its weights the error of one that is made apart."""
    if axis is None:
        return None
    axes = tuple(one % terms.ndim for one in (axis if isinstance(axis, tuple) else (axis,)))
    axis = axes[0] if len(axes) == 1 else axes
    weighted = made_as(terms, Weighted)
    if weighted and isinstance(axis, int) and weighted.axis in (axis, None):
        add_error(total, weighted, axis)
    return Total(terms, axis, rounding_of(terms).known.in_backward) if made_as(terms, Exponentials) else None


def add_error(total: Array, weighted: Weighted, axis: int) -> None:
    """Add to an average of a gradient the error of one that is made apart; of exponentials, times their sum."""
    weights, size = weighted.weights, 1.0
    if weighted.axis is None:
        size = unwrap(weights).sum(axis=axis, keepdims=True)
        weights = wrap(unwrap(weights) / size, rounding_of(weights))
    total += (error_of_average(weights, weighted.gradient, axis) * size).reshape(total.shape)


def follow_einsum(subscripts: str, *operands: Any) -> Total | None:
    """Know a total, or an average, that is a sum of products."""
    *terms, total = operands
    given, _, kept = subscripts.partition("->")
    first, *others = given.split(",")
    if len(others) == 1 and others != [first]:
        follow_sum_of_products((first, others[0], kept), terms[0], terms[1], total)
        return None
    summed = [axis for axis, letter in enumerate(first) if letter not in kept]
    if len(summed) != 1 or kept != first.replace(first[summed[0]], ""):
        return None
    if not others:
        return follow_sum(terms[0], total, axis=summed[0])
    weighted = follow_product(terms[0], terms[1], total) if others == [first] else None
    if isinstance(weighted, Weighted) and weighted.axis in (summed[0], None):
        add_error(total, weighted, summed[0])
    return None


def follow_quotient(e: Array, total: Array, y: Array, **_: Any) -> Weights | Inverse | Dropped | None:
    """Know weights, which backward may have otherwise, and one over a total."""
    found, exponentials = made_as(total, Total), made_as(e, Exponentials)
    if not found:
        return follow_dropping(e, total, y)
    if exponentials and is_view(e, found.exponentials):
        return become_weights(y, total)
    return Inverse(total) if np.ndim(e) == 0 and e == 1 else None


def follow_dropping(a: Array, numbers: Any, result: Array) -> Dropped | None:
    """Know weights of which some are dropped, and keep what their gradient averages to."""
    if not isinstance(a, RoundingArray) or isinstance(numbers, RoundingArray):
        return None
    rounding = rounding_of(a)
    if made_as(a, Weights) or made_as(a, Dropped):
        rounding.known.weights.append(result)
        rounding.known.drops = True
        return Dropped()
    if rounding.known.drops:
        result.average = a.average
    return None


def follow_product(a: Array, b: Array, product: Array, **_: Any) -> Weighted | Exponentials | Weights | Dropped | None:
    """Know a gradient times the weights that it is of, and exponentials of which some are hidden."""
    for one, other in ((a, b), (b, a)):
        weights, exponentials, inverse = made_as(one, Weights), made_as(one, Exponentials), made_as(one, Inverse)
        if inverse and made_as(other, Exponentials) and is_view(other, total_of(inverse.total).exponentials):
            return become_weights(product, inverse.total)
        if weights and np.shape(one) == np.shape(other):
            return Weighted(one, other, weights.axis)
        if exponentials and not isinstance(other, RoundingArray):
            return exponentials
        if exponentials and np.shape(one) == np.shape(other) and getattr(other, "average", None):
            return Weighted(one, other, None)
    return follow_dropping(a, b, product) or follow_dropping(b, a, product)


def follow_choice(_: Array, a: Array, b: Array, chosen: Array) -> Exponentials | Dropped | None:
    """Know exponentials of which some are hidden, and weights of which some are dropped."""
    hidden = made_as(a, Exponentials) or made_as(b, Exponentials)
    return hidden or follow_dropping(a, b, chosen) or follow_dropping(b, a, chosen)


follow((np.maximum, "reduce"), follow_maximum)
follow((np.maximum, "__call__"), follow_larger)
follow((np.subtract, "__call__"), follow_difference)
follow((np.exp, "__call__"), follow_exponential)
follow((np.log, "__call__"), follow_logarithm)
follow((np.add, "__call__"), follow_addition)
follow((np.add, "reduce"), follow_sum)
follow((np.einsum, "__call__"), follow_einsum)
follow((np.divide, "__call__"), follow_quotient)
follow((np.multiply, "__call__"), follow_product)
follow((np.where, "__call__"), follow_choice)
