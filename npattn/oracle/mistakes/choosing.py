"""Mistakes in how a position is drawn, or some are chosen: they stand in several steps at once."""

from typing import Any

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.oracle.mistakes.mistake import Apply, Arrays, mistake
from npattn.oracle.mistakes.planting import Run, answering
from npattn.typing import Array

__all__ = ["ADDED"]


def draws(module: Module, *_: Any) -> bool:
    """Whether a position is drawn by scores and noise."""
    return getattr(module, "key", None) == "hard"


def chooses(module: Module, *_: Any) -> bool:
    """Whether the highest scores are chosen, and weighed by a softmax."""
    return getattr(module, "key", None) == "soft-hard"


def selects_on_map(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    """Whether positions of a map of several rows and columns are selected."""
    return (draws(module) or chooses(module)) and min(next(iter(inputs.values())).shape[2:]) > 1


def drawn(
    value: Apply | None = None, back: Apply | None = None, *, rank: Apply | None = None, soften: Apply | None = None
) -> Apply:
    """Draw otherwise.

    ``value(v, a)`` makes the output of features and probabilities, ``back(dy, v, a)`` the gradient of features; the
    largest of ``rank(s, a, noise)`` is drawn, and ``soften(s, noise)`` goes through the softmax.
    """

    def apply(run, module, params, inputs, upstream):
        noise, left = list(inputs.values())[1], {}

        def spoil(primitive, arguments, options):
            if primitive is ops.softmax:
                s = arguments[0]
                a, back_softmax = primitive(s if soften is None else soften(s, noise), **options)
                left["s"], left["a"] = s, a
                return a, back_softmax
            if primitive is not ops.select or "a" not in left:
                return NotImplemented
            v, index = arguments
            a = left["a"]
            if rank is not None:
                index = rank(left["s"], a, noise).argmax(axis=1)
            y, back_select = primitive(v, index)

            def wrong_back(dy):
                dv, dh = back_select(dy)
                return dv if back is None else back(dy, v, a), dh

            return y if value is None else value(v, a), wrong_back

        with answering(spoil):
            return run(module, params, inputs, upstream)

    return apply


def mean(v: Array, a: Array) -> Array:
    return np.einsum("bcn,bn->bc", v, a)


def shares(dy: Array, v: Array, a: Array) -> Array:
    return dy[:, :, None] * a[:, None]


def softmax_before(again: bool) -> Apply:
    """Take the softmax of all scores before some are chosen, and whether it is taken of those again."""

    def apply(run, *given):
        def spoil(primitive, arguments, options):
            if primitive is ops.top:
                a, back_softmax = ops.softmax(arguments[0])
                found, back_top = primitive(a, *arguments[1:], **options)
                return found, lambda dy: back_softmax(back_top(dy))
            if primitive is ops.softmax and not again:
                return arguments[0] * 1.0, lambda da: da
            return NotImplemented

        with answering(spoil):
            return run(*given)

    return apply


def by_columns(run: Run, module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> Arrays:
    """Read a map by columns at positions that are counted by rows."""
    height, width = next(iter(inputs.values())).shape[2:]

    def spoil(primitive, arguments, options):
        if primitive not in (ops.select, ops.take):
            return NotImplemented
        v, *others = arguments
        y, back = primitive(turned(v, height, width), *others, **options)

        def wrong_back(dy):
            found = back(dy)
            if primitive is ops.take:
                return turned(found, width, height)
            return turned(found[0], width, height), found[1]

        return y, wrong_back

    with answering(spoil):
        return run(module, params, inputs, upstream)


def in_forward_alone(apply: Apply) -> Apply:
    """Take forward's results alone."""

    def alone(run, *given):
        wrong = apply(run, *given)
        return wrong | {name: g for name, g in run(*given).items() if name.endswith(".grad")}

    return alone


def turned(v: Array, height: int, width: int) -> Array:
    """Lay out the positions of a map by columns."""
    return v.reshape(*v.shape[:2], height, width).swapaxes(2, 3).reshape(v.shape)


ADDED = [
    mistake("", "soft mean in the place of what was drawn", "carried", drawn(mean, shares), draws),
    mistake("", "soft mean in the place of what was drawn, in forward alone", "forward", drawn(mean), draws),
    mistake("", "of the map by the probabilities, not by what was drawn", "backward", drawn(None, shares), draws),
    mistake("", "noise added to the probabilities", "carried", drawn(rank=lambda s, a, noise: a + noise), draws),
    mistake("", "least for highest drawn", "carried", drawn(rank=lambda s, a, noise: -(s + noise)), draws),
    mistake("", "softmax of the scores with their noise (Gumbel softmax)", "carried", drawn(soften=np.add), draws),
    mistake("", "softmax of all positions, those chosen not renormalised", "carried", softmax_before(False), chooses),
    mistake("", "softmax of all positions, and of those chosen again", "carried", softmax_before(True), chooses),
    mistake("", "map read by columns at positions counted by rows", "carried", by_columns, selects_on_map),
    mistake(
        *("", "map read by columns at positions counted by rows, in forward alone", "forward"),
        *(in_forward_alone(by_columns), selects_on_map),
    ),
]
