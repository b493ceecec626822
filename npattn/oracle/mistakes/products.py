"""Mistakes in products of matrices."""

import numpy as np

from npattn import ops
from npattn.ops.attention import transpose
from npattn.oracle.mistakes.arrays import (
    TILE,
    TILES,
    image_0_for_all,
    longer,
    several_images,
    tail_of,
    without_last,
    without_tail,
)
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ROW_NEIGHBOUR, ROW_TAIL, ROW_TAILS
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, dropped, gradient, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def square(a: Array, b: Array) -> bool:
    return a.shape[-1] == a.shape[-2] > 1


def of_right_0(g: Array, dc: Array, a: Array, b: Array) -> Array:
    return dc @ transpose(image_0_for_all(b))


def with_diagonal_twice(g: Array, a: Array) -> Array:
    return g * (1 + np.eye(a.shape[-2], dtype=a.dtype))


def fewer_terms(name: str, change: Apply, when: When) -> Mistake:
    """Sum up fewer products of each row with each."""
    return value("gram", name, lambda g, a: ops.matmul(change(a, 1), transpose(a))[0], when)


TUNED_ON = [
    fewer_terms("last tile ignored", without_tail, ROW_TAIL.when),
    fewer_terms("last position forgotten", without_last, longer(-1)),
    value("gram", "scaled", lambda g, a: g * a.shape[-1] ** -0.5, longer(-1)),
    gradient("gram", 0, "one side alone", lambda g, dg, a: dg @ a),
    gradient("gram", 0, "twice one side", lambda g, dg, a: 2 * (dg @ a)),
    gradient("gram", 0, "dropped", dropped),
    argument("matmul", 0, "transposed map", lambda a, b: transpose(a), square),
    ROW_TAIL.in_value("matmul", when=lambda a, b: ROW_TAIL.when(b)),
    gradient("matmul", 0, "left side detached", dropped),
    gradient("matmul", 1, "right side detached", dropped),
    gradient("matmul", 1, "transpose forgotten", lambda g, dc, a, b: a @ dc, square),
]


def unit_rows(g: Array, a: Array) -> Array:
    b = a / np.sqrt((a * a).sum(axis=-1, keepdims=True))
    return b @ transpose(b)


def centred_rows(g: Array, a: Array) -> Array:
    b = a - a.mean(axis=-1, keepdims=True)
    return b @ transpose(b)


def averaged(g: Array, a: Array) -> Array:
    return g.mean(axis=0, keepdims=True) + np.zeros_like(g)


def unweighted(g: Array, dc: Array, a: Array, b: Array) -> Array:
    return dc @ transpose(np.ones_like(b))


def exponentials(s: Array, axis: int) -> Array:
    """Return what a softmax has not yet divided, but for the maximum."""
    return s / s.max(axis=axis, keepdims=True)


def are_weights(s: Array, axis: int) -> bool:
    return s.shape[axis] > 1 and bool(np.allclose(s.sum(axis=axis), 1))


def fewer_products(tile: int) -> tuple[Apply, When]:
    """Leave out of every sum the terms that are not in whole tiles: the change, and when there are any."""

    def start(a):
        return tail_of(a.shape[-1], tile)

    return lambda c, a, b: a[..., : start(a)] @ b[..., : start(a), :], lambda a, b: start(a) is not None


ADDED = [
    *(value("matmul", f"last tile of {tile} of the terms ignored", *fewer_products(tile)) for tile in (TILE, *TILES)),
    gradient(
        *("matmul", 0, "of the left side by exponentials, not divided by their sum"),
        *(lambda g, dc, a, b: dc @ transpose(exponentials(b, -2)), lambda a, b: are_weights(b, -2)),
    ),
    gradient(
        *("matmul", 1, "of the right side by exponentials, not divided by their sum"),
        *(lambda g, dc, a, b: transpose(exponentials(a, -1)) @ dc, lambda a, b: are_weights(a, -1)),
    ),
    *(fewer_terms(family.name, lambda a, _, family=family: family.change(a), family.when) for family in ROW_TAILS),
    gradient("matmul", 0, "of the left side not multiplied by the right one", unweighted),
    gradient(
        "matmul",
        1,
        "of the right side not multiplied by the left one",
        lambda g, dc, a, b: transpose(np.ones_like(a)) @ dc,
    ),
    gradient("gram", 0, "the other side alone", lambda g, dg, a: transpose(dg) @ a),
    value("gram", "of rows of unit length (cosines)", unit_rows, longer(-1)),
    value("gram", "of rows less their mean (covariance)", centred_rows, longer(-1)),
    value("gram", "divided by the number of positions", lambda g, a: g / a.shape[-1], longer(-1)),
    value("gram", "averaged over the batch", averaged, several_images),
]
HELD_OUT = [
    value("gram", "diagonal twice", with_diagonal_twice, longer(-1, 0)),
    *(ROW_NEIGHBOUR.in_argument("gram", 0, way=way) for way in ("forward", "both")),
    gradient("gram", 0, "of the next image", lambda g, *_: np.roll(g, 1, axis=0), several_images),
    ROW_NEIGHBOUR.in_argument("matmul", 0, "every 16th term read from its neighbour"),
    IMAGE_0_FOR_ALL.in_argument("matmul", 1, "right side of image 0 for all", when=longer(0, i=1)),
    gradient("matmul", 0, "right side of image 0 for all", of_right_0, longer(0, i=1)),
]
