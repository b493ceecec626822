"""Norms by another deviation, which forward has saved: backward goes by it as if it were right."""

import numpy as np

from npattn.oracle.mistakes.mistake import instead
from npattn.oracle.mistakes.standardizing import parts

__all__ = ["ADDED"]


def channels_first(x, weight, bias):
    """Return what batch norm brings together along the last axis, scale and shift, and what undoes it."""
    rows = x.swapaxes(0, 1)
    return rows.reshape(len(rows), -1), weight[:, None], bias[:, None], lambda a: a.reshape(rows.shape).swapaxes(0, 1)


def saved(primitive, name, deviation):
    """Normalise by ``deviation(variance, eps, count)``, and differentiate as if that were right."""
    of_batch = primitive == "batch_norm"

    def other(norm, x, weight, bias, *others, eps, **options):
        rows, scale, shift, undo = channels_first(x, weight, bias) if of_batch else parts(x, weight, bias, *others)
        centred = rows - rows.mean(axis=-1, keepdims=True)
        by = deviation((centred * centred).mean(axis=-1, keepdims=True), eps, rows.shape[-1])
        n = centred / by
        axes = tuple(i for i in range(x.ndim) if i != (x.ndim - 1 if primitive == "layer_norm" else 1))

        def backward(dy):
            dn = channels_first(dy, weight, bias)[0] * scale if of_batch else dy.reshape(rows.shape) * scale
            mean, along = (a.mean(axis=-1, keepdims=True) for a in (dn, dn * n))
            return undo((dn - mean - n * along) / by), (dy * undo(n)).sum(axis=axes), dy.sum(axis=axes)

        y = undo(n * scale + shift)
        return (y, norm(x, weight, bias, *others, eps=eps, **options)[0][1]) if of_batch else y, backward

    def when(x, weight, bias, *others, training=True, **_):
        rows = channels_first(x, weight, bias)[0] if of_batch else parts(x, weight, bias, *others)[0]
        return training and rows.shape[-1] > 2

    return instead(primitive, name, other, when, way="weights")


ADDED = [
    saved(primitive, name, deviation)
    for primitive in ("batch_norm", "layer_norm", "group_norm")
    for name, deviation in (
        ("unbiased variance", lambda v, eps, n: np.sqrt(v * (n / (n - 1)) + eps)),
        ("epsilon beside the root", lambda v, eps, n: np.sqrt(v) + eps),
        ("no root", lambda v, eps, n: v + eps),
    )
]
