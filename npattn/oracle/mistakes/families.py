"""Mistakes that many primitives share: an array is got wrong in the same way, whichever array it is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.oracle.mistakes import arrays
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, argument, gradient, upstream, value

__all__ = ["Family"]


@dataclass(frozen=True)
class Family:
    """A mistake with an array, and the mistakes that it is in one of a primitive's arrays.

    Attributes
    ----------
    name : str
    change : callable
        Takes the array, returns it as a faulty kernel has it.
    when : callable
        Takes the array, or all arguments of a primitive: whether there is anything to get wrong.
    """

    name: str
    change: Callable[[Any], Any]
    when: Callable[..., bool]

    def in_value(self, primitive: str, when: When | None = None) -> Mistake:
        """Get a primitive's value wrong."""
        return value(primitive, self.name, lambda y, *_, **__: self.change(y), when or self.when)

    def in_argument(
        self, primitive: str, i: int, name: str | None = None, *, when: When | None = None, way: str = "forward"
    ) -> Mistake:
        """Get wrong what a primitive reads."""

        def change(*args, **_):
            return self.change(args[i])

        return argument(primitive, i, name or self.name, change, when or self.when, way=way)

    def in_gradient(self, primitive: str, i: int = 0, when: When | None = None) -> Mistake:
        """Get the gradient of an argument wrong."""
        return gradient(primitive, i, self.name, lambda g, *_, **__: self.change(g), when or self.when)

    def in_upstream(self, primitive: str, *of: int, when: When | None = None) -> Mistake:
        """Let gradients of the arguments `of`, or of all, be made from dy that is got wrong."""
        return upstream(primitive, of or None, self.name, lambda dy, *_, **__: self.change(dy), when or self.when)


TRANSPOSED = Family("transposed map", arrays.transposed, arrays.on_wide_map)
SHIFTED = Family("shifted by one", arrays.shifted, arrays.on_map)
LAST_TILE = Family("last tile ignored", arrays.without_tail, arrays.on_tiles_and_tail)
LAST_POSITION = Family("last position forgotten", arrays.without_last, arrays.on_map)
FIRST_TILE = Family("first tile skipped", lambda a: arrays.filled(a, slice(arrays.TILE)), arrays.on_tiles)
LAST_TILE_TWICE = Family("last tile twice", lambda a: 2 * a - arrays.without_tail(a), arrays.on_tiles_and_tail)
NEIGHBOUR = Family("every 16th position read from its neighbour", arrays.from_neighbour, arrays.on_tile)
ONLY_IMAGE_0 = Family("only image 0", arrays.first_image, arrays.several_images)
ONLY_LAST_IMAGE = Family("only the last image", arrays.last_image, arrays.several_images)
IMAGE_0_FOR_ALL = Family("image 0 for all", arrays.image_0_for_all, arrays.several_images)
ADDED_UP = Family("added up over images", lambda a: np.cumsum(a, axis=0), arrays.several_images)
UNCLEARED = Family("accumulator not cleared", arrays.uncleared, arrays.several_images)
LOSSES = Family("additions lost", arrays.with_losses, lambda x, *_, **__: x.size > len(x))

# Of positions that stand on the last axis alone
ROW_TAIL = Family(LAST_TILE.name, lambda a: arrays.without_tail(a, 1), lambda a, *_: arrays.has_tail(a.shape[-1]))
ROW_NEIGHBOUR = Family(NEIGHBOUR.name, lambda a: arrays.from_neighbour(a, 1), arrays.longer(-1, arrays.TILE - 1))


def tails(axes: int) -> list[Family]:
    """List families of what is left over of tiles of other sizes, along so many of the last axes."""

    def of_size(tile):
        def start(a):
            return arrays.tail_of(int(np.prod(a.shape[-axes:], dtype=int)), tile)

        return Family(
            f"last tile of {tile} ignored",
            lambda a: arrays.filled(a, slice(start(a), None), axes),
            lambda a, *_, **__: a.ndim > axes and start(a) is not None,
        )

    return [of_size(tile) for tile in arrays.TILES]


TAILS, ROW_TAILS = tails(2), tails(1)
"""Of positions of maps, and on the last axis alone."""


def of_last(count: int) -> tuple[Apply, When]:
    """Keep the last of every so many images, as of groups that lie among them, or of all: and when that is apart."""

    def change(dy, *_, **__):
        numbers = np.arange(len(dy))
        kept = numbers == len(dy) - 1 if count == 0 else numbers % count == count - 1
        return dy * kept.astype(dy.dtype).reshape((-1,) + (1,) * (dy.ndim - 1))

    def when(x, *_, **__):
        return len(x) > 1 if count == 0 else len(x) > count and len(x) % count == 0

    return change, when


def wrong_means(primitive: str, count: Apply) -> list[Mistake]:
    """Means over ``count(*arguments)`` numbers, divided by something else."""

    def several(*args):
        return count(*args) > 1

    return [
        value(primitive, "sum for mean", lambda p, *args: p * count(*args), several),
        value(primitive, "divided by N - 1", lambda p, *args: p * (count(*args) / (count(*args) - 1)), several),
    ]
