"""Weights that a softmax gives that goes over the keys tile by tile, and gets a tile, a maximum or a sum wrong."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.arrays import LOW, TILE, filled, with_tile
from npattn.oracle.mistakes.mistake import Apply, When
from npattn.oracle.mistakes.softmax import softmax
from npattn.oracle.mistakes.taping import untape
from npattn.typing import Array

__all__: list[str] = []  # for the mistakes of this package alone


def with_padding(z: Array) -> Array:
    """Keys that are not there, with logit 0, in the sum."""
    more = arrays.padded(z.shape[-1]) - z.shape[-1]
    wide = np.concatenate([z, np.zeros_like(z, shape=(*z.shape[:-1], more))], axis=-1)
    return softmax(wide)[..., : z.shape[-1]]


def masked(z: Array, at: Any) -> Array:
    return softmax(filled(z, at, 1, LOW))


def last_tile(a: Array) -> slice:
    """Return where the last tile stands."""
    return slice((a.shape[-1] - 1) // TILE * TILE, None)


def divided(e: Array, summed: Array | None = None) -> Array:
    return e / (e if summed is None else summed).sum(axis=-1, keepdims=True)


def exponentials(z: Array) -> Array:
    return np.exp(z - z.max(axis=-1, keepdims=True))


def last_tile_twice(z: Array) -> Array:
    e = exponentials(z)
    return divided(2 * e - filled(e, last_tile(z), 1))


def sum_of_last_tile(z: Array) -> Array:
    e = exponentials(z)
    return divided(e, e[..., last_tile(z)])


def stale(z: Array, tile: int = TILE) -> Array:
    """Return exponentials, each by the maximum of the tiles so far: not brought down when a later one is larger."""
    return np.exp(z - running_maximum(z, tile))


def running_maximum(z: Array, tile: int) -> Array:
    """Return the maximum of all tiles up to a key's own."""
    plain, keys = untape(z), np.arange(z.shape[-1])
    if z is plain:
        highest = np.maximum.accumulate(np.maximum.reduceat(z, keys[::tile], axis=-1), axis=-1)
        return np.repeat(highest, tile, axis=-1)[..., : len(keys)]
    last = np.maximum.accumulate(np.where(plain >= np.maximum.accumulate(plain, axis=-1), keys, 0), axis=-1)
    end = np.minimum((keys // tile + 1) * tile - 1, len(keys) - 1)
    return np.take_along_axis(z, last[..., end], -1)


def not_rescaled(tile: int) -> Iterator[tuple[str, Apply]]:
    """Yield names of what is not rescaled when a later tile has a larger maximum, and weights then."""
    yield with_tile("accumulator not rescaled", tile), lambda z: divided(stale(z, tile), exponentials(z))
    yield with_tile("sum not rescaled", tile), lambda z: divided(exponentials(z), stale(z, tile))


def only_last(a: Array) -> Array:
    return filled(a, slice(last_tile(a).start), 1)


def padded_to(tile: int) -> tuple[Apply, When]:
    """Count keys that fill up the last tile, with logit 0: the weights, and when there are such keys."""

    def weigh(z):
        highest = z.max(axis=-1, keepdims=True)
        e = np.exp(z - highest)
        return e / (e.sum(axis=-1, keepdims=True) + -z.shape[-1] % tile * np.exp(-highest))

    def when(q, k, *_):
        n = k.shape[-1]
        return n % tile > 0 and all(-n % tile != -n % size for size in (TILE, *arrays.TILES) if size < tile)

    return weigh, when
