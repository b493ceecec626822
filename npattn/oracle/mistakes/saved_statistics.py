"""Norms by another deviation, which forward has saved: backward goes by it as if it were right."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.mistake import Apply, Mistake, When, gradient, instead
from npattn.oracle.mistakes.standardizing import parts
from npattn.typing import Array

__all__ = ["ADDED"]

BATCH = "batch_norm"
NORMS = BATCH, "layer_norm", "group_norm"


def channels_first(x: Array, weight: Array, bias: Array) -> tuple[Any, Any, Any, Apply]:
    """Return what batch norm brings together along the last axis, scale and shift, and what undoes it."""
    rows = x.swapaxes(0, 1)
    return rows.reshape(len(rows), -1), weight[:, None], bias[:, None], lambda a: a.reshape(rows.shape).swapaxes(0, 1)


def axes_of(primitive: str, x: Array) -> tuple[int, ...]:
    """Return the axes over which gradients of weight and bias are added up."""
    return tuple(i for i in range(x.ndim) if i != (x.ndim - 1 if primitive == "layer_norm" else 1))


def several(primitive: str) -> When:
    """Return a function that tells whether statistics are made, of more than two numbers each."""

    def when(x, weight, bias, *others, training=True, **_):
        rows = channels_first(x, weight, bias)[0] if primitive == BATCH else parts(x, weight, bias, *others)[0]
        return training and rows.shape[-1] > 2

    return when


def saved(primitive: str, name: str, deviation: Apply) -> Mistake:
    """Normalise by ``deviation(variance, eps, count)``, and differentiate as if that were right."""
    of_batch = primitive == BATCH

    def other(norm, x, weight, bias, *others, eps, **options):
        rows, scale, shift, undo = channels_first(x, weight, bias) if of_batch else parts(x, weight, bias, *others)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        by = deviation((centred * centred).mean(axis=-1, keepdims=True), eps, rows.shape[-1])
        n = centred / by
        axes = axes_of(primitive, x)

        def backward(dy):
            dn = channels_first(dy, weight, bias)[0] * scale if of_batch else dy.reshape(rows.shape) * scale
            mean, along = (a.mean(axis=-1, keepdims=True) for a in (dn, dn * n))
            return undo((dn - mean - n * along) / by), (dy * undo(n)).sum(axis=axes), dy.sum(axis=axes)

        y = undo(n * scale + shift)
        return (y, norm(x, weight, bias, *others, eps=eps, **options)[0][1]) if of_batch else y, backward

    return instead(primitive, name, other, several(primitive), way="weights")


def of_weight(primitive: str, name: str, change: Apply) -> Mistake:
    """Make the gradient of the weight of something else than what is normal: ``change(x, mean)``."""

    def changed(g, dy, x, weight, bias, *others, **_):
        rows, *_, undo = channels_first(x, weight, bias) if primitive == BATCH else parts(x, weight, bias, *others)
        read = undo(change(rows, rows.mean(axis=-1, keepdims=True)))
        return (dy * read).sum(axis=axes_of(primitive, x))

    return gradient(primitive, 1, name, changed, several(primitive))


ADDED = [
    *(
        saved(primitive, name, deviation)
        for primitive in NORMS
        for name, deviation in (
            ("unbiased variance", lambda v, eps, n: np.sqrt(v * (n / (n - 1)) + eps)),
            ("epsilon beside the root", lambda v, eps, n: np.sqrt(v) + eps),
            ("no root", lambda v, eps, n: v + eps),
        )
    ),
    *(of_weight(primitive, "of weight from x less its mean, not divided", np.subtract) for primitive in NORMS),
    *(
        of_weight(primitive, "of weight from x as it is", lambda x, mean: x)
        for primitive in NORMS
        if primitive != BATCH
    ),
]
