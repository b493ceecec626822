"""Mistakes in what is added to a map and broadcast to it."""

from npattn.oracle.mistakes.arrays import several_images
from npattn.oracle.mistakes.families import LAST_POSITION, LAST_TILE, ONLY_IMAGE_0
from npattn.oracle.mistakes.gating import broadcast, own_of_images, shared, shifted
from npattn.oracle.mistakes.mistake import dropped, gradient, value
from npattn.typing import Array

__all__ = ["ADDED"]


def several(x: Array, t: Array) -> bool:
    return t.size > 1


ADDED = [
    value("shift", "left out", lambda y, x, t: x * 1.0),
    value("shift", "map lost", lambda y, x, t: y - x),
    value("shift", "term twice", lambda y, x, t: 2 * y - x),
    value("shift", "term taken off", lambda y, x, t: 2 * x - y),
    value("shift", "product for sum", lambda y, x, t: x * broadcast(t, x)),
    value("shift", "scaled by 1 + term", lambda y, x, t: x + x * broadcast(t, x)),
    value("shift", "shifted by one", lambda y, x, t: x + broadcast(shifted(t), x), several),
    value("shift", "term of image 0 for all", lambda y, x, t: x + broadcast(t, x)[:1], own_of_images),
    LAST_TILE.in_value("shift"),
    gradient("shift", 0, "map detached", dropped),
    gradient("shift", 1, "term detached", dropped),
    gradient("shift", 1, "mean for sum", lambda g, dy, x, t: g / (x.size // t.size), shared),
    gradient("shift", 1, "twice", lambda g, *_: 2 * g),
    gradient("shift", 1, "of the last position alone", lambda g, dy, x, t: dy[..., -1, -1], lambda x, t: t.ndim == 2),
    *(family.in_upstream("shift", 1, when=shared) for family in (LAST_POSITION, LAST_TILE)),
    ONLY_IMAGE_0.in_upstream("shift", 1, when=lambda x, t: several_images(x) and len(t) != len(x)),
]
