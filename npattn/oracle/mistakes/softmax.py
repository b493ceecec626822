"""Mistakes in softmax, and of what else adds up exponentials."""

import itertools
import math
from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.arrays import HALF, SINGLE, TILE, TILES, on_map, overflowing, tail_of, without_last
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, always, argument, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

LSE = "global_lse_pool"


def softmax(z: Array, axis: int = -1) -> Array:
    return ops.softmax(z, axis)[0]


def rowsum(s: Array, ds: Array, axis: int = -1) -> Array:
    return (s * ds).sum(axis=axis, keepdims=True)


def slopes(s: Array, ds: Array, axis: int = -1) -> Array:
    return s * (ds - rowsum(s, ds, axis))


def several(z: Array, axis: int) -> bool:
    return z.shape[axis] > 1


def several_rows(z: Array, axis: int) -> bool:
    return axis == -1 and z.shape[-2] > 1 and z.shape[-1] > 1


# Weights of logits, and gradients of logits made of weights and theirs; attention has the same mistakes


def unshifted(z: Array, largest: float, axis: int = -1) -> Array:
    """Take no maximum off, in a format whose largest number is e^largest."""
    e = overflowing(z, largest)
    return e / e.sum(axis=axis, keepdims=True)


def sum_left_out(s: Array, ds: Array, axis: int = -1) -> Array:
    return s * ds


def sum_of_next_row(s: Array, ds: Array, axis: int = -1) -> Array:
    return s * (ds - np.roll(rowsum(s, ds, axis), 1, axis=-2))


def differentiated(name: str, change: Apply, when: When = always) -> Mistake:
    """Make the gradient of weights s and theirs: ``change(s, ds, axis)``."""
    return gradient("softmax", 0, name, lambda g, ds, z, axis: change(softmax(z, axis), ds, axis), when)


def overflow(name: str, largest: float) -> list[Mistake]:
    def overflows(z, *_):
        return bool((z > largest).any())

    return [
        value("softmax", name, lambda s, z, axis: unshifted(z, largest, axis), overflows),
        value(LSE, name, lambda p, x: np.log(overflowing(x, largest).sum(axis=(2, 3))), overflows),
    ]


TUNED_ON = [
    value("softmax", "over the wrong axis", lambda s, z, axis: softmax(z, axis - 1), lambda z, axis: z.size > 1),
    argument("softmax", 0, "scaled by 1/√n", lambda z, axis: z * z.shape[axis] ** -0.5, several),
    argument("softmax", 0, "sign lost", lambda z, axis: -z, several),
    value("softmax", "last weight forgotten", lambda s, *_: without_last(s, 1)),
    differentiated("sum left out", sum_left_out),
    differentiated("diagonal alone", lambda s, ds, axis: ds * s * (1 - s), several),
    differentiated("weights forgotten", lambda s, ds, axis: ds - rowsum(s, ds, axis)),
]
HELD_OUT = [
    *overflow("maximum not subtracted", SINGLE),
    *overflow("maximum not subtracted, float16", HALF),
    argument("softmax", 0, "base 2", lambda z, axis: z * math.log(2), several),
    argument(LSE, 0, "base 2", lambda x: x * math.log(2), on_map),
    differentiated("sum of the next row", sum_of_next_row, several_rows),
]


def not_divided(_: Any, z: Array, axis: int) -> tuple[Any, Backward]:
    """Take exponentials, from which a constant maximum was taken off."""
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e, lambda ds: e * ds


def softmin(z: Array, axis: int = -1) -> Array:
    return ops.softmin(z, axis)[0]


def by_tiles(z: Array, tile: int, *, averaged: bool) -> Array:
    """Let the weights of every tile on the last axis add up to 1, or to a tile's share."""
    whole = z.shape[-1] // tile * tile
    tiles = z[..., :whole].reshape(*z.shape[:-1], -1, tile)
    weights = softmax(tiles).reshape(*z.shape[:-1], whole)
    if whole < z.shape[-1]:
        weights = np.concatenate([weights, softmax(z[..., whole:])], axis=-1)
    return weights / (-(-z.shape[-1] // tile) if averaged else 1)


WITHIN_TILES = [
    (f"within tiles of {tile}{words}", tile, {"averaged": averaged})
    for tile in (TILE, *TILES)
    for words, averaged in ((", which are averaged", True), (", which are added up", False))
]
"""Names, tiles and options of softmaxes whose sums go over a tile alone."""


def has_tiles(tile: int) -> When:
    return lambda z, axis: axis in (-1, z.ndim - 1) and z.shape[-1] > tile


def sum_along(step: int) -> tuple[Apply, When]:
    """Take the sum of a gradient along the axis beside the right one: the change, and when there is such an axis."""

    def change(s, ds, axis):
        return s * (ds - rowsum(s, ds, axis % s.ndim + step))

    def when(z, axis):
        other = axis % z.ndim + step
        return 0 <= other < z.ndim and z.shape[other] > 1 and (axis, step) != (-1, -1)

    return change, when


def own_maxima(tile: int) -> Apply:
    """Let every tile on the last axis take off its own maximum, and add up the sums as if it were one."""

    def change(s, z, axis):
        ends = [*range(0, z.shape[-1], tile), z.shape[-1]]
        parts = [z[..., i:j] for i, j in itertools.pairwise(ends)]
        e = np.concatenate([np.exp(part - part.max(axis=-1, keepdims=True)) for part in parts], axis=-1)
        return e / e.sum(axis=-1, keepdims=True)

    return change


def sum_of_whole_tiles(tile: int) -> tuple[Apply, When]:
    """Leave out of the sum what is not in whole tiles: the change, and when something is left over."""

    def start(z, axis):
        return tail_of(z.shape[axis], tile) if axis in (-1, z.ndim - 1) else None

    def change(s, z, axis):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e[..., : start(z, axis)].sum(axis=-1, keepdims=True)

    return change, lambda z, axis: start(z, axis) is not None


def last_left_out(s: Array, z: Array, axis: int) -> Array:
    """Leave the last exponential out of the sum alone."""
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / (e.sum(axis=axis, keepdims=True) - e.take([-1], axis=axis))


def kept(name: str, change: Apply, when: When) -> Mistake:
    """Make other weights, and keep them: backward differentiates by them, as if they were right."""

    def other(_, z, axis):
        s = change(None, z, axis)
        return s, lambda ds: slopes(s, ds, axis)

    return instead("softmax", name, other, when, way="weights")


def sum_without_last(s: Array, ds: Array, axis: int = -1) -> Array:
    """Leave the last term out of the sum."""
    return s * (ds - rowsum(s, ds, axis) + (s * ds).take([-1], axis=axis))


def with_zeros_to(tile: int) -> tuple[Apply, When]:
    """Count zeros that fill up the axis to whole tiles: the change, and when there are any."""

    def change(s, z, axis):
        highest = z.max(axis=axis, keepdims=True)
        e = np.exp(z - highest)
        return e / (e.sum(axis=axis, keepdims=True) + -z.shape[axis] % tile * np.exp(-highest))

    def when(z, axis):
        missing = [-z.shape[axis] % size for size in (TILE, *TILES) if size == TILE or size < tile]
        return z.shape[axis] % tile > 0 and (tile == TILE or -z.shape[axis] % tile not in missing)

    return change, when


def over_two_axes(s: Array, z: Array, axis: int) -> Array:
    """Let weights along two axes, as those of all heads, add up to 1."""
    axes = (axis % z.ndim - 1, axis % z.ndim)
    e = np.exp(z - z.max(axis=axes, keepdims=True))
    return e / e.sum(axis=axes, keepdims=True)


def has_axis_before(z: Array, axis: int) -> bool:
    before = axis % z.ndim - 1
    return before > 0 and min(z.shape[before], z.shape[axis]) > 1


def over_other_axis(s: Array, z: Array, axis: int) -> Array:
    return softmax(z, 2 * z.ndim - 3 - axis % z.ndim)


def over_last_axes(z: Array, axis: int) -> bool:
    return z.ndim > 2 and axis % z.ndim >= z.ndim - 2 and min(z.shape[-2:]) > 1


ADDED = [
    *(
        differentiated(f"sum over the {words} one", *sum_along(step))
        for step, words in ((-1, "axis before the right"), (1, "axis behind the right"))
    ),
    *(
        value("softmax", f"tiles of {tile} by their own maxima, not rescaled", own_maxima(tile), has_tiles(tile))
        for tile in (TILE, *TILES)
    ),
    *(
        value("softmax", f"zeros that fill up to a multiple of {tile} counted", *with_zeros_to(tile))
        for tile in (TILE, *TILES)
    ),
    *(
        value("softmax", f"last tile of {tile} left out of the sum", *sum_of_whole_tiles(tile))
        for tile in (TILE, *TILES)
    ),
    value("softmax", "last weight left out of the sum", last_left_out, several),
    kept("last weight left out of the sum", last_left_out, several),
    *(kept(f"last tile of {tile} left out of the sum", *sum_of_whole_tiles(tile)) for tile in (TILE, *TILES)),
    differentiated("last term left out of the sum", sum_without_last, several),
    value("softmax", "over two axes together, as of all heads", over_two_axes, has_axis_before),
    value("softmax", "over the other of the last two axes", over_other_axis, over_last_axes),
    *(
        value("softmax", name, lambda s, z, axis, tile=tile, how=how: by_tiles(z, tile, **how), has_tiles(tile))
        for name, tile, how in WITHIN_TILES
    ),
    value("softmax", "equal weights", lambda s, z, axis: 0 * z + 1 / z.shape[axis], several),
    argument("softmax", 0, "logits doubled (temperature 1/2)", lambda z, axis: 2 * z, several),
    argument("softmax", 0, "logits halved (temperature 2)", lambda z, axis: z / 2, several),
    value(
        "softmin",
        "sign lost: softmax of the energies, not of their maximum less them",
        lambda s, z, axis: softmax(z, axis),
    ),
    value("softmax", "sigmoid", lambda s, z, axis: 1 / (1 + np.exp(-z))),
    value("softmax", "logarithm taken", lambda s, z, axis: np.log(s)),
    value("softmax", "maximum less the energies", lambda s, z, axis: softmin(z, axis)),
    value("softmin", "over the wrong axis", lambda s, z, axis: softmin(z, axis - 1), lambda z, axis: z.size > 1),
    gradient("softmin", 0, "sign lost", lambda g, *_: -g),
    *(gradient(name, 0, "map detached", lambda g, *_: np.zeros_like(g)) for name in ("softmax", "softmin")),
    value(
        "softmin",
        "maximum of the column, which does not cancel",
        lambda s, z, axis: softmax(z.max(axis=-2, keepdims=True) - z, axis),
        several_rows,
    ),
    instead("softmax", "not divided by the sum", not_divided, several, way="both"),
    differentiated("sum over the wrong axis", lambda s, ds, axis: s * (ds - rowsum(s, ds, -2)), several_rows),
    value("softmax", "divided by the largest, not the sum", lambda s, z, axis: s / s.max(axis=axis, keepdims=True)),
]
