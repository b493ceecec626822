"""Mistakes in whole passes of a system of somebody's own that read a mask, an input of 0 and 1, otherwise."""

import numpy as np

from npattn.oracle.mistakes.mistake import mistake
from npattn.oracle.systems import is_known

__all__ = ["ADDED"]


def mask_of(module, inputs):
    """Name the first input without a gradient that is a mask; None where there is none."""
    names = [name for name in inputs if name in module.without_gradient]
    return next((name for name in names if inputs[name].ndim > 1 and np.isin(inputs[name], (0, 1)).all()), None)


def key_early(mask):
    """Let each row end one place earlier."""
    return np.concatenate([mask[..., 1:], np.zeros_like(mask[..., :1])], axis=-1)


def key_late(mask):
    """Let each row end one place later."""
    return np.concatenate([mask[..., :1], mask[..., :-1]], axis=-1)


def read_as(change):
    def apply(run, module, params, inputs, upstream):
        name = mask_of(module, inputs)
        return run(module, params, inputs | {name: change(inputs[name])}, upstream)

    return apply


def differs(change, fits=None):
    """Tell whether there is a mask, and the change makes another of it."""

    def when(module, params, inputs, upstream):
        name = None if is_known(module) else mask_of(module, inputs)
        if name is None or not (fits is None or fits(inputs[name])):
            return False
        return bool((change(inputs[name]) != inputs[name]).any())

    return when


def square(mask):
    return mask.shape[-1] == mask.shape[-2]


def of_images(mask):
    return mask.ndim > 2 and len(mask) > 1


ADDED = [
    mistake("", f"mask {words}", "carried", read_as(change), differs(change, *fits))
    for words, change, *fits in (
        ("left out", np.ones_like),
        ("turned over, 0 for 1", lambda mask: 1 - mask),
        ("one place early along its last axis", key_early),
        ("one place late along its last axis", key_late),
        ("transposed", lambda mask: mask.swapaxes(-1, -2), square),
        ("of the first image for all", lambda mask: np.broadcast_to(mask[:1], mask.shape), of_images),
    )
]
