"""Ways in which a kernel gets an array wrong, and what an array must have for them to matter."""

from typing import Any

import numpy as np

from npattn.oracle.formats import binades
from npattn.oracle.mistakes.mistake import Apply, When
from npattn.oracle.mistakes.taping import straight_through
from npattn.typing import Array

__all__ = ["HALF", "LAST_OF_TILES", "LOW", "SINGLE", "TILE", "TILES"]

TILE = 16
"""Positions that a kernel takes at once; what is left over at the end needs a mask."""
TILES = 4, 8, 24, 32, 64
"""Other numbers of positions or channels that a kernel takes at once."""
LAST_OF_TILES = slice(TILE - 1, None, TILE)
LOW = -1e4
"""What a logit is masked with."""
SINGLE, HALF = 88.72, 11.09
"""Logarithms of the largest numbers of float32 and float16."""


# When there is anything to get wrong: functions of an array, or of a primitive's arguments


def longer(axis: int, than: int = 1, i: int = 0) -> When:
    """Tell whether argument `i` has such an axis, of more than so many elements."""
    return lambda *args, **_: args[i].ndim > axis and args[i].shape[axis] > than


def larger_map(than: int = 1) -> When:
    """Tell whether the first argument is a map of more than so many positions."""
    return lambda x, *_, **__: x.ndim == 4 and positions(x) > than


def both(one: When, other: When) -> When:
    return lambda *args, **options: one(*args, **options) and other(*args, **options)


def positions(a: Array) -> int:
    return a.shape[-1] * a.shape[-2]


def has_tail(n: int) -> bool:
    """Whether there is a tile that is not full, behind full ones."""
    return n > TILE and n % TILE > 0


def tail(n: int) -> int:
    """Return where the tile that is not full begins: at the end, if all are full."""
    return n // TILE * TILE


def before(tile: int) -> tuple[int, ...]:
    """List the sizes of tiles that have their mistakes before those of a size."""
    sizes = TILE, *TILES
    return sizes[: sizes.index(tile)]


def with_tile(name: str, tile: int) -> str:
    """Name a mistake with tiles of a size."""
    return name if tile == TILE else f"{name}, tiles of {tile}"


def tail_of(n: int, tile: int) -> int | None:
    """Return where what is left over of tiles of a size begins; None where nothing is, or smaller tiles leave as much.

    Tiles of `TILE` come first: they have mistakes of their own.
    """
    start = n // tile * tile
    return None if start in (0, n) or any(n // size * size == start for size in before(tile)) else start


def padded(n: int) -> int:
    """Round a number of positions up to whole tiles."""
    return -(-n // TILE) * TILE


several_images, several_channels = longer(0), longer(1)
on_map, on_tile, on_tiles = larger_map(), larger_map(TILE - 1), larger_map(TILE)


def on_wide_map(x: Array, *_: Any, **__: Any) -> bool:
    return x.ndim == 4 and min(x.shape[2:]) > 1


def on_tiles_and_tail(x: Array, *_: Any, **__: Any) -> bool:
    return x.ndim == 4 and has_tail(positions(x))


def filled(a: Array, at: Any, axes: int = 2, value: float = 0) -> Array:
    """Set some of the positions on the last axes, counted through, to a value."""
    changed = a.reshape(*a.shape[: a.ndim - axes], -1).copy()
    changed[..., at] = value
    return changed.reshape(a.shape)


def without_last(a: Array, axes: int = 2) -> Array:
    return filled(a, slice(-1, None), axes)


def without_tail(a: Array, axes: int = 2) -> Array:
    return filled(a, slice(tail(np.prod(a.shape[-axes:], dtype=int)), None), axes)


def unwritten(*at: Any) -> Apply:
    """Return a function that sets a part of an array to 0."""

    def change(a):
        changed = a.copy()
        changed[at] = 0
        return changed

    return change


def first_image(a: Array) -> Array:
    changed = np.zeros_like(a)
    changed[:1] = a[:1]
    return changed


def last_image(a: Array) -> Array:
    changed = np.zeros_like(a)
    changed[-1:] = a[-1:]
    return changed


def with_losses(a: Array) -> Array:
    """Leave out one number in a hundred, as additions that race do, and one at least."""
    random = np.random.RandomState(a.size)
    lost = random.random_sample(a.shape) < 0.01
    lost.flat[random.randint(a.size)] = True
    return np.where(lost, 0, a)


def transposed(a: Array) -> Array:
    """Write a map as if height and width were the other way round."""
    return a.swapaxes(2, 3).reshape(a.shape)


def shifted(a: Array) -> Array:
    """Write every position of a map one further on."""
    return np.roll(a.reshape(*a.shape[:2], -1), 1, axis=-1).reshape(a.shape)


def from_neighbour(a: Array, axes: int = 2) -> Array:
    """Let the last of every `TILE` positions be read from its neighbour."""
    flat = a.reshape(*a.shape[: a.ndim - axes], -1)
    before = flat[..., TILE - 2 :: TILE][..., : flat.shape[-1] // TILE]
    return filled(a, LAST_OF_TILES, axes, before)


def image_0_for_all(a: Array) -> Array:
    changed = a.copy()
    changed[1:] = a[:1]
    return changed


def channels_swapped(a: Array) -> Array:
    changed = a.copy()
    changed[:, 0], changed[:, 1] = a[:, 1], a[:, 0]
    return changed


def channels_last(x: Array) -> Array:
    """Read a map as if its channels stood last."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)


def added_to_image_before(a: Array) -> Array:
    changed = a.copy()
    changed[1:] += a[:-1]
    return changed


def uncleared(dy: Array) -> Array:
    """Weight images as an accumulator does that is not cleared for the next image: the first counts for all."""
    return dy * np.arange(len(dy), 0, -1, dtype=dy.dtype).reshape((-1,) + (1,) * (dy.ndim - 1))


def in_bfloat16(a: Array) -> Array:
    return straight_through(lambda a: with_bits(a, 8), a)


def with_bits(a: Array, count: int) -> Array:
    """Round to so many bits."""
    spacing = binades(a, np.finfo(a.dtype).minexp) * a.dtype.type(2.0 ** (1 - count))
    return np.rint(a / spacing) * spacing


def overflowing(x: Array, largest: float) -> Array:
    """Take exponentials as a format with numbers up to e^largest does."""
    return np.where(x > largest, np.inf, np.exp(np.where(x > largest, 0, x)))
