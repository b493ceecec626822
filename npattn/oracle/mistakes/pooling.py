"""Mistakes in pools."""

import math
from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import (
    LOW,
    TILE,
    filled,
    longer,
    on_map,
    on_wide_map,
    padded,
    positions,
    several_images,
    shifted,
    tail,
)
from npattn.oracle.mistakes.families import ADDED_UP, LAST_POSITION, LAST_TILE, TAILS, wrong_means
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, dropped, gradient, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

AVERAGES = "global_average_pool", "average_pool"
MAXIMA = "global_max_pool", "max_pool"
LP, LSE = "global_lp_pool", "global_lse_pool"


def along(axis: int | None = None) -> dict[str, Any]:
    """Return the axes of a pool: along one that it keeps, or of a global one."""
    return {"axis": (2, 3)} if axis is None else {"axis": axis, "keepdims": True}


def broadcast(dp: Array) -> Array:
    return dp[:, :, None, None] if dp.ndim == 2 else dp


def count(x: Array, axis: int | tuple[int, ...] = (2, 3)) -> int:
    return int(np.prod([x.shape[i] for i in np.atleast_1d(axis)]))


def several(*pool: Any) -> bool:
    return count(*pool) > 1


def average_mistakes(name: str) -> list[Mistake]:
    return [
        *wrong_means(name, count),
        value(
            name,
            "divided by the padded size",
            lambda p, *pool: p * (count(*pool) / padded(count(*pool))),
            lambda *pool: count(*pool) % TILE > 0,
        ),
        gradient(name, 0, "not divided by N", lambda g, dp, *pool: g * count(*pool), several),
        gradient(name, 0, "divided by N - 1", lambda g, dp, *pool: g * (count(*pool) / (count(*pool) - 1)), several),
        gradient(name, 0, "dropped", dropped),
    ]


def last_maximum(x: Array, axis: int | None = None) -> Array:
    """Put 1 where the last maximum stands, else 0."""
    flat = x.reshape(*x.shape[:2], -1) if axis is None else np.moveaxis(x, axis, -1)
    hit = np.zeros_like(flat)
    last = flat.shape[-1] - 1 - flat[..., ::-1].argmax(axis=-1, keepdims=True)
    np.put_along_axis(hit, last, 1, axis=-1)
    return hit.reshape(x.shape) if axis is None else np.moveaxis(hit, -1, axis)


def every_maximum(x: Array, axis: int | None = None) -> Array:
    highest = x.max(**along(axis) | {"keepdims": True})
    return np.where(x >= highest, np.ones_like(x), np.zeros_like(x))


def has_ties(x: Array, *axis: int) -> bool:
    hits = every_maximum(x, *axis)
    return hits.sum() > hits.max(**along(*axis)).sum()


def has_negative(x: Array, *axis: int) -> bool:
    return (x.max(**along(*axis)) < 0).any()


def has_several(x: Array, *_: Any) -> bool:
    return x.size > x.shape[0] * x.shape[1]


def maximum_mistakes(name: str) -> list[Mistake]:
    return [
        gradient(name, 0, "to the last maximum", lambda g, dp, *pool: broadcast(dp) * last_maximum(*pool)),
        gradient(name, 0, "to all", lambda g, dp, *pool: np.zeros_like(g) + broadcast(dp)),
        gradient(name, 0, "dropped", dropped),
        gradient(name, 0, "one position on", lambda g, *_: shifted(g), has_several),
        value(name, "mean for maximum", lambda p, x, *axis: x.mean(**along(*axis)), several),
        value(name, "magnitudes compared", lambda p, x, *axis: np.maximum(x, -x).max(**along(*axis))),
    ]


def more_maximum_mistakes(name: str) -> list[Mistake]:
    return [
        value(name, "started at 0", lambda p, *_: np.maximum(p, 0), has_negative),
        gradient(name, 0, "to every maximum", lambda g, dp, *pool: every_maximum(*pool) * broadcast(dp), has_ties),
    ]


def masked_tail(x: Array) -> Array:
    """Put positions of the last tile below all others, so that no maximum stands there."""
    return filled(x, slice(tail(positions(x)), None), value=LOW)


TUNED_ON = [
    *(mistake for name in AVERAGES for mistake in average_mistakes(name)),
    *(family.in_argument("global_average_pool", 0) for family in (LAST_TILE, LAST_POSITION)),
    LAST_TILE.in_gradient("global_average_pool"),
    *(mistake for name in MAXIMA for mistake in maximum_mistakes(name)),
    argument("global_max_pool", 0, LAST_TILE.name, masked_tail, LAST_TILE.when),
    value(LP, "no root", lambda p, x: p * p),
    value(LP, "mean, not sum", lambda p, x: p / positions(x) ** 0.5, on_map),
    gradient(LP, 0, "not divided by the norm", lambda g, dp, x: x * broadcast(dp)),
    gradient(LP, 0, "twice", lambda g, dp, x: 2 * g),
    value(LSE, "mean, not sum", lambda p, x: p - math.log(positions(x)), on_map),
    value(LSE, "no logarithm", lambda p, x: np.exp(p)),
    gradient(LSE, 0, "of the maximum", lambda g, dp, x: broadcast(dp) * last_maximum(x)),
    gradient(LSE, 0, "not normalised", lambda g, dp, x: np.exp(x) * broadcast(dp)),
]
HELD_OUT = [
    value(
        "average_pool",
        "over the wrong axis",
        lambda p, x, axis: x.mean(axis=5 - axis, keepdims=True).swapaxes(2, 3),
        lambda x, axis: axis in (2, 3) and x.shape[2] == x.shape[3] > 1,
    ),
    *(ADDED_UP.in_gradient(name) for name in AVERAGES),
    *(mistake for name in MAXIMA for mistake in more_maximum_mistakes(name)),
]


def shared(g: Array, dp: Array, *pool: Any) -> Array:
    hits = every_maximum(*pool)
    return hits / hits.sum(**along(*pool[1:]) | {"keepdims": True}) * broadcast(dp)


def as_average(g: Array, dp: Array, *pool: Any) -> Array:
    return np.zeros_like(g) + broadcast(dp) / count(*pool)


def of_other_length(p: Array, x: Array, axis: int) -> Array:
    return p * (x.shape[axis] / x.shape[5 - axis])


def by_padded(tile: int) -> Apply:
    return lambda p, *pool: p * (count(*pool) / (-(-count(*pool) // tile) * tile))


def with_zeros_to(tile: int) -> Apply:
    return lambda p, x: p + np.log(1 + -count(x) % tile * np.exp(-p))


def unpadded(tile: int) -> When:
    return lambda *pool: count(*pool) % tile > 0


def not_square(x: Array, axis: int) -> bool:
    return axis in (2, 3) and x.shape[2] != x.shape[3]


def over_batch(p: Array, *_: Any) -> Array:
    return p.mean(axis=0, keepdims=True) + np.zeros_like(p)


def last_row_twice(p: Array, x: Array) -> Array:
    return p + x[:, :, -1].sum(axis=2) / positions(x)


def by_padded_sides(p: Array, x: Array) -> Array:
    height, width = (-(-n // 8) * 8 for n in x.shape[2:])
    return p * (positions(x) / (height * width))


def deviation(degrees: int) -> Apply:
    def change(p, x):
        centred = x - x.mean(axis=(2, 3), keepdims=True)
        return np.sqrt((centred * centred).sum(axis=(2, 3)) / max(positions(x) - degrees, 1))

    return change


def last_left_out(name: str, axis: int, change: Apply) -> Mistake:
    """Pool a map without its last row or column: ``change(pool, x, rest, *axes)``."""

    def shorter(p, x, *axes):
        rest = x[:, :, :-1] if axis == 2 else x[..., :-1]
        return change(p, x, rest, *axes)

    return value(name, f"last {'row' if axis == 2 else 'column'} left out", shorter, longer(axis))


def still_divided(p: Array, x: Array, rest: Array) -> Array:
    return rest.sum(axis=(2, 3)) / positions(x)


def maximum_of(p: Array, x: Array, rest: Array) -> Array:
    return rest.max(axis=(2, 3))


def by_channels(g: Array, dp: Array, x: Array, axis: int) -> Array:
    return g * (x.shape[axis] / x.shape[1])


def by_columns(g: Array, dp: Array, x: Array) -> Array:
    """Count the maximum's place by columns, and write its gradient where the count by rows is as much."""
    hit = np.zeros((*x.shape[:2], positions(x)), g.dtype)
    np.put_along_axis(hit, x.swapaxes(2, 3).reshape(hit.shape).argmax(axis=-1)[..., None], 1, axis=-1)
    return hit.reshape(x.shape) * broadcast(dp)


ADDED = [
    *(last_left_out("global_max_pool", axis, maximum_of) for axis in (2, 3)),
    *(last_left_out("global_average_pool", axis, still_divided) for axis in (2, 3)),
    gradient("global_max_pool", 0, "to the maximum's place counted column by column", by_columns, on_wide_map),
    *(family.in_argument("global_average_pool", 0) for family in TAILS),
    value("global_average_pool", "over the batch as well", over_batch, several_images),
    value("global_average_pool", "last row twice", last_row_twice, on_map),
    value("global_average_pool", "divided by height and width padded to 8", by_padded_sides, on_map),
    *(
        value("global_average_pool", f"standard deviation for mean, {words}", deviation(degrees), on_map)
        for degrees, words in ((1, "unbiased"), (0, "biased"))
    ),
    value(LSE, "maximum not added again", lambda p, x: p - x.max(axis=(2, 3)), on_map),
    *(
        value(LSE, f"zeros that fill up to a multiple of {tile} counted", with_zeros_to(tile), unpadded(tile))
        for tile in (16, 64)
    ),
    value(LP, "magnitudes added up (power 1)", lambda p, x: np.maximum(x, -x).sum(axis=(2, 3)), on_map),
    *(
        value(name, f"divided by the size padded to {tile}", by_padded(tile), unpadded(tile))
        for name in AVERAGES
        for tile in (4, 8, 32)
    ),
    value("average_pool", "divided by the length of the other axis", of_other_length, not_square),
    value(
        LSE, "base 2 throughout", lambda p, x: np.log(np.exp(x * math.log(2)).sum(axis=(2, 3))) / math.log(2), on_map
    ),
    *(value(name, "maximum for mean", lambda p, x, *axis: x.max(**along(*axis)), several) for name in AVERAGES),
    *(value(name, "divided by √N", lambda p, *pool: p * count(*pool) ** 0.5, several) for name in AVERAGES),
    *(value(name, "minimum for maximum", lambda p, x, *axis: x.min(**along(*axis)), several) for name in MAXIMA),
    *(gradient(name, 0, "that of a mean", as_average, several) for name in MAXIMA),
    *(gradient(name, 0, "shared among ties", shared, has_ties) for name in MAXIMA),
    gradient(
        *("average_pool", 0, "divided by the number of channels, whichever axis was pooled"),
        *(by_channels, lambda x, axis: axis in (2, 3) and x.shape[axis] != x.shape[1]),
    ),
    *(gradient(name, 0, "divided by N", lambda g, dp, *pool: g / count(*pool), several) for name in MAXIMA),
    *(gradient(name, 0, "divided twice by N", lambda g, dp, *pool: g / count(*pool), several) for name in AVERAGES),
]
