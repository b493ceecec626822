"""Mistakes in scores, and of positions that are selected by them."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import longer
from npattn.oracle.mistakes.families import (
    IMAGE_0_FOR_ALL,
    ONLY_IMAGE_0,
    ONLY_LAST_IMAGE,
    ROW_TAIL,
    ROW_TAILS,
    UNCLEARED,
)
from npattn.oracle.mistakes.mistake import Apply, When, argument, dropped, gradient, instead, mistake, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def shares_of_selected(dh: Array, dy: Array, x: Array, index: Array) -> Array:
    changed = np.zeros_like(dh)
    np.put_along_axis(changed, index[:, None], np.take_along_axis(dh, index[:, None], 1), 1)
    return changed


def lowest(top: Apply, x: Array, k: int) -> tuple[Any, Backward]:
    (y, index), backward = top(-x, k)
    return (-y, index), backward


def reversed_top(found: Any, x: Array, k: int) -> tuple[Array, ...]:
    y, index = found
    return y[:, ::-1].copy(), index


TUNED_ON = [
    ONLY_IMAGE_0.in_upstream("score", 1, 2),
    gradient("score", 0, "dx dropped", dropped),
    ROW_TAIL.in_value("score"),
    value("score", "magnitudes", lambda s, *_: np.maximum(s, -s)),
    *(
        mistake
        for name in ("take", "select")
        for mistake in (
            argument(name, 1, "one position on", lambda x, index: (index + 1) % x.shape[2], longer(2)),
            gradient(name, 0, "one position on", lambda g, *_: np.roll(g, 1, axis=2), longer(2)),
        )
    ),
    gradient("select", 1, "score's share dropped", dropped),
    gradient("select", 0, "feature's share dropped", dropped),
    gradient("select", 1, "share of the selected alone", shares_of_selected, longer(2)),
    instead("top", "lowest for highest", lowest, lambda x, k: x.shape[1] > k, way="both"),
    gradient("top", 0, "dropped", dropped),
    gradient("top", 0, "reversed", lambda g, *_: np.zeros_like(g) + g[:, ::-1]),
]
HELD_OUT = [
    *(IMAGE_0_FOR_ALL.in_argument(name, 1, "positions of image 0 for all") for name in ("take", "select")),
    UNCLEARED.in_upstream("score", 1, 2),
    value("top", "numbers in reverse order", reversed_top, lambda x, k: k > 1),
]


def by_magnitude(top: Apply, x: Array, k: int) -> tuple[Any, Backward]:
    """Rank by magnitude; take the numbers themselves."""
    (_, index), _ = top(np.maximum(x, -x), k)

    def backward(dy):
        dx = np.zeros_like(x)
        np.put_along_axis(dx, index, dy, 1)
        return dx

    return (np.take_along_axis(x, index, 1), index), backward


def zeros_for_others(top: Apply, x: Array, k: int) -> tuple[Any, Backward]:
    """Keep all positions: those that are not among the highest with a score of 0."""
    (_, index), _ = top(x, k)
    chosen = np.zeros_like(x)
    np.put_along_axis(chosen, index, 1, 1)
    return (x * chosen, np.broadcast_to(np.arange(x.shape[1]), x.shape)), lambda dy: dy * chosen


def all_taken(top: Apply, x: Array, k: int) -> tuple[Any, Backward]:
    return top(x, x.shape[1])


def leaves_some(x: Array, k: int) -> bool:
    return x.shape[1] > k


def within_tile(tile: int) -> Apply:
    """Count the position from the start of its tile."""
    return lambda x, index: index % tile


def all_within_tiles(tile: int) -> Apply:
    """Count positions from the starts of their tiles, where several may be the same."""
    return lambda y, x, index: np.take_along_axis(x, index[:, None] % tile, 2)


def has_tiles(tile: int) -> When:
    return lambda x, index: x.shape[2] > tile


def to_first_positions(g: Array, dy: Array, x: Array, k: int) -> Array:
    changed = np.zeros_like(g)
    changed[:, :k] = dy
    return changed


ADDED = [
    *(
        one
        for tile in (4, 8, 16, 32, 64)
        for one in (
            value("take", f"number within its tile of {tile}", all_within_tiles(tile), has_tiles(tile)),
            argument("select", 1, f"number within its tile of {tile}", within_tile(tile), has_tiles(tile)),
        )
    ),
    gradient("top", 0, "to the first positions, not where the numbers stood", to_first_positions, leaves_some),
    *(family.in_value("score") for family in ROW_TAILS),
    ONLY_LAST_IMAGE.in_upstream("score", 1, 2),
    instead("top", "ranked by magnitude", by_magnitude, leaves_some, way="both"),
    mistake("top", "scores that are not chosen become 0", "carried", zeros_for_others, leaves_some),
    mistake("top", "all positions taken", "carried", all_taken, leaves_some),
    argument("take", 1, "positions in ascending order", lambda x, index: np.sort(index, 1), longer(-1, i=1)),
    value("score", "divided by √C", lambda s, x, *_: s / x.shape[1] ** 0.5),
    value("score", "lost bias", lambda s, x, weight, bias: s - bias),
    value("score", "bias twice", lambda s, x, weight, bias: s + bias),
    gradient("score", 2, "bias averaged, not summed", lambda g, ds, *_: g / ds.size),
    gradient("score", 1, "of the weights lost", dropped),
]
