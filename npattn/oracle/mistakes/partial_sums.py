"""Gradients of parameters whose sum over the batch lacks something, each gradient by itself."""

from collections.abc import Sequence

import numpy as np

from npattn.oracle.mistakes.arrays import first_image
from npattn.oracle.mistakes.mistake import Apply, Mistake, upstream
from npattn.typing import Array

__all__ = ["ADDED"]

PARAMETERS = {
    "affine": ("weight", "bias"),
    "batch_norm": ("weight", "bias"),
    "conv1d": ("weights",),
    "conv2d": ("weights", "bias"),
    "group_norm": ("weight", "bias"),
    "layer_norm": ("weight", "bias"),
    "linear": ("weights", "bias"),
}
"""Primitives that add up gradients of parameters over the batch, and what these are called."""


def without_last_image(dy: Array) -> Array:
    changed = dy.copy()
    changed[-1:] = 0
    return changed


def without_last_of_all(dy: Array) -> Array:
    """Leave out the last position of the last image."""
    changed = dy.copy()
    rows = changed[-1:].reshape(1, dy.shape[1], -1)
    rows[..., -1] = 0
    changed[-1:] = rows.reshape(changed[-1:].shape)
    return changed


def lacking(primitive: str, of: Sequence[int], name: str, change: Apply, least: int) -> Mistake:
    """Let gradients of the arguments `of` be made from a dy that lacks something, of so many images at least."""

    def when(*arguments, **_):
        given = all(getattr(arguments[i], "ndim", 0) for i in of)
        return given and len(arguments[0]) >= least and np.ndim(arguments[0]) > 1

    return upstream(primitive, of, name, lambda dy, *_, **__: change(dy), when)


ADDED = [
    lacking(primitive, of, f"{words}{lack}", change, least)
    for primitive, names in PARAMETERS.items()
    for lack, change, least in (
        ("from image 0 alone", first_image, 2),
        ("without the last image", without_last_image, 3),
        ("without the last position of the last image", without_last_of_all, 1),
    )
    for of, words in (
        *(((i,), f"of the {one} ") for i, one in enumerate(names, 1)),
        *([((1, 2), "")] if lack == "without the last image" and len(names) > 1 else []),
    )
    if primitive in ("conv2d", "linear") or "position" not in lack
]
