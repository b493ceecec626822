"""Mistakes in gates."""

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.arrays import (
    LAST_OF_TILES,
    TILE,
    TILES,
    both,
    filled,
    image_0_for_all,
    on_tile,
    on_wide_map,
    positions,
    tail_of,
    transposed,
)
from npattn.oracle.mistakes.families import (
    ADDED_UP,
    LAST_POSITION,
    LAST_TILE,
    LOSSES,
    ONLY_IMAGE_0,
    ONLY_LAST_IMAGE,
    TAILS,
    TRANSPOSED,
    Family,
    of_last,
)
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, dropped, gradient, upstream, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]


def broadcast(a: Array, x: Array) -> Array:
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim))


def shared(x: Array, a: Array) -> bool:
    return a.size < x.size


def own_of_images(x: Array, a: Array) -> bool:
    return len(x) > 1 and len(a) == len(x)


def own_of_channels(x: Array, a: Array) -> bool:
    return x.shape[1] > 1 and a.ndim > 1 and a.shape[1] == x.shape[1]


def of_image(by: int) -> Apply:
    """Gate each image as another one in the batch."""
    return lambda y, x, a: x * np.roll(broadcast(a, x), by, axis=0)


def shared_channel(x: Array, a: Array) -> bool:
    return a.size == 1 and x.shape[1] > 1


def passed_on(y: Array, x: Array, a: Array) -> Array:
    return filled(y, LAST_OF_TILES, value=x.reshape(*x.shape[:2], -1)[..., LAST_OF_TILES])


def shifted(a: Array) -> Array:
    return np.roll(a.reshape(-1), 1).reshape(a.shape)


def of_gated(da: Array, dy: Array, x: Array, a: Array) -> Array:
    return ops.gate(x * broadcast(a, x), a)[1](dy)[1]


def in_upstream(family: Family, when: When = shared) -> Mistake:
    return family.in_upstream("gate", 1, when=both(family.when, when))


def last_left_out(words: str, axis: int) -> Mistake:
    """Add the gate's gradient up over all rows, or columns, but the last."""

    def change(dy, *_):
        changed = dy.copy()
        changed[(..., -1) if axis == 3 else (..., -1, slice(None))] = 0
        return changed

    def when(x, a):
        return shared(x, a) and x.ndim == 4 and x.shape[axis] > 1

    return upstream("gate", (1,), f"last {words} left out of the sum", change, when)


TUNED_ON = [
    value("gate", "one added", lambda y, x, a: y + x),
    value("gate", "applied twice", lambda y, x, a: y * broadcast(a, x)),
    value("gate", "left out", lambda y, x, a: x + np.zeros_like(y)),
    value("gate", "transposed map", lambda y, x, a: x * broadcast(transposed(a), x), lambda x, a: on_wide_map(a)),
    value("gate", "shifted by one", lambda y, x, a: x * broadcast(shifted(a), x), lambda x, a: a.size > 1),
    LAST_TILE.in_value("gate"),
    gradient("gate", 1, "gate detached", dropped),
    gradient("gate", 0, "x detached", dropped),
    gradient("gate", 0, "gate forgotten in dx", lambda g, dy, x, a: dy.copy()),
    gradient("gate", 1, "of the output, not of x", of_gated),
    gradient("gate", 1, "mean for sum", lambda g, dy, x, a: g / (x.size // a.size), shared),
    in_upstream(LAST_POSITION),
    in_upstream(LAST_TILE),
    in_upstream(ONLY_IMAGE_0, lambda x, a: len(a) != len(x)),
]
HELD_OUT = [
    value("gate", "gate of image 0 for all", lambda y, x, a: x * image_0_for_all(broadcast(a, x)), own_of_images),
    value("gate", "every 16th position passed on", passed_on, on_tile),
    gradient(
        "gate", 1, "of one channel alone", lambda g, dy, x, a: (dy * x)[:, :1].sum().reshape(a.shape), shared_channel
    ),
    LOSSES.in_upstream("gate", 1, when=shared),
    gradient("gate", 1, "of the gate added up over images", lambda g, *_: ADDED_UP.change(g), own_of_images),
]


def along_one_axis(x: Array, a: Array) -> bool:
    return a.ndim == 4 and 1 in a.shape[2:] and max(a.shape[2:]) > 1 and min(x.shape[2:]) > 1


def by_other_axis(y: Array, x: Array, a: Array) -> Array:
    """Read the gates of rows at the column's number, modulo their own, or the reverse."""
    turned, length = a.swapaxes(2, 3), max(a.shape[2:])
    axis = 3 if a.shape[3] == 1 else 2
    return x * np.take(turned, np.arange(x.shape[axis]) % length, axis)


def passed_on_behind(tile: int) -> tuple[Apply, When]:
    """Gate whole tiles of positions alone: the change, and when there is a rest."""

    def start(x):
        return tail_of(positions(x), tile)

    def change(y, x, a):
        rest = x.reshape(*x.shape[:2], -1)[..., start(x) :]
        return filled(y, slice(start(x), None), value=rest)

    return change, lambda x, a: x.ndim == 4 and start(x) is not None


def channels_passed_on(block: int) -> tuple[Apply, When]:
    """Gate whole blocks of channels alone."""

    def start(x):
        return tail_of(x.shape[1], block)

    def change(y, x, a):
        changed = y.copy()
        changed[:, start(x) :] = x[:, start(x) :]
        return changed

    return change, lambda x, a: x.ndim > 1 and start(x) is not None


def of_first_channel(g: Array, dy: Array, x: Array, a: Array) -> Array:
    return (dy * x)[:, :1].reshape(g.shape)


def one_of_several(x: Array, a: Array) -> bool:
    return a.ndim == x.ndim and a.shape == (len(x), 1, *x.shape[2:]) and x.shape[1] > 1


def of_last_images(count: int) -> Mistake:
    """Keep what the last of every so many images send to a gate that all share, or the last of all."""
    change, when = of_last(count)
    return gradient(
        *("gate", 1, f"of the last {f'of every {count} images' if count else 'image'} alone"),
        *(lambda g, dy, x, a: ops.gate(x, a)[1](change(dy))[1], lambda x, a: when(x) and len(a) != len(x)),
    )


ADDED = [
    gradient("gate", 1, "of the first channel alone", of_first_channel, one_of_several),
    *map(of_last_images, (2, 4, 8)),
    TRANSPOSED.in_argument("gate", 0, "map with height and width exchanged"),
    gradient("gate", 1, "twice", lambda g, *_: 2 * g),
    value("gate", "added, not multiplied", lambda y, x, a: x + broadcast(a, x)),
    value("gate", "gate alone, without x", lambda y, x, a: broadcast(a, x) + np.zeros_like(y)),
    value("gate", "gates of the next image", of_image(-1), own_of_images),
    value("gate", "gates of the image before", of_image(1), own_of_images),
    value("gate", "gate of the first channel for all", lambda y, x, a: x * broadcast(a, x)[:, :1], own_of_channels),
    value("gate", "1 - gate", lambda y, x, a: x - y),
    gradient("gate", 0, "gate twice in dx", lambda g, dy, x, a: g * broadcast(a, x)),
    value("gate", "read by the index of the other axis", by_other_axis, along_one_axis),
    *(value("gate", f"last positions passed on, tiles of {n}", *passed_on_behind(n)) for n in (TILE, *TILES)),
    *(value("gate", f"last channels passed on, blocks of {n}", *channels_passed_on(n)) for n in (TILE, *TILES)),
    *(in_upstream(family) for family in TAILS),
    *(last_left_out(words, axis) for words, axis in (("row", 2), ("column", 3))),
    ONLY_LAST_IMAGE.in_upstream("gate", 1, when=lambda x, a: len(x) > 1 and len(a) != len(x)),
]
