"""Mistakes in whole passes of a system of somebody's own that read a mask, an input of 0 and 1, otherwise."""

import functools
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.oracle.mistakes.mistake import Apply, Arrays, Mistake, When, mistake
from npattn.oracle.mistakes.planting import Run
from npattn.oracle.mistakes.reading_masks import gradients_of, key_early, key_late, on_the_way_back
from npattn.oracle.systems import is_known
from npattn.typing import Array

__all__ = ["ADDED"]


def mask_of(module: Module, inputs: Arrays) -> str | None:
    """Name the first input without a gradient that is a mask; None where there is none."""
    names = [name for name in inputs if name in module.without_gradient]
    return next((name for name in names if inputs[name].ndim > 1 and np.isin(inputs[name], (0, 1)).all()), None)


def read_as(change: Apply) -> Apply:
    """Make a function that runs a pass which reads the mask otherwise."""

    def wrong(run, module, params, inputs, upstream):
        name = mask_of(module, inputs)
        return run(module, params, inputs | {name: change(inputs[name])}, upstream)

    return wrong


def forward_alone(wrong: Apply, run: Run, *given: Any) -> Arrays:
    """Take the gradients of the pass that reads the mask as it is."""
    return gradients_of(run(*given), wrong(run, *given))


def differs(change: Apply, fits: When | None = None) -> When:
    """Tell whether there is a mask, and the change makes another of it."""

    def when(module, params, inputs, upstream):
        name = None if is_known(module) else mask_of(module, inputs)
        if name is None or not (fits is None or fits(inputs[name])):
            return False
        return bool((change(inputs[name]) != inputs[name]).any())

    return when


def square(mask: Array) -> bool:
    return mask.shape[-1] == mask.shape[-2]


def of_images(mask: Array) -> bool:
    return mask.ndim > 2 and len(mask) > 1


def forms(words: str, change: Apply, *fits: When) -> list[Mistake]:
    """List the forms of a mistake: all of the pass is wrong, forward alone, or the way back alone."""
    wrong, when = read_as(change), differs(change, *fits)
    alone = functools.partial(forward_alone, wrong)
    return [
        mistake("", f"mask {words}", "carried", wrong, when),
        mistake("", f"mask {words}, in forward alone", "forward", alone, when),
        *on_the_way_back(f"mask {words}", wrong, when),
    ]


ADDED = [
    one
    for words, change, *fits in (
        ("left out", np.ones_like),
        ("turned over, 0 for 1", lambda mask: 1 - mask),
        ("one place early along its last axis", key_early),
        ("one place late along its last axis", key_late),
        ("transposed", lambda mask: mask.swapaxes(-1, -2), square),
        ("of the first image for all", lambda mask: np.broadcast_to(mask[:1], mask.shape), of_images),
    )
    for one in forms(words, change, *fits)
]
