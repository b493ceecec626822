"""Faults of softmax, and of what else adds up exponentials."""

import math

import numpy as np

from npattn import ops
from tests.benchmarks.faults.arrays import HALF, SINGLE, on_map, overflowing, without_last
from tests.benchmarks.faults.fault import argument, gradient, value

LSE = "global_lse_pool"


def weights(x, axis=-1):
    return ops.softmax(x, axis)[0]


def several(x, axis):
    return x.shape[axis] > 1


def several_rows(x, axis):
    return axis == -1 and x.shape[-2] > 1 and x.shape[-1] > 1


def dot(y, dy, axis):
    return (y * dy).sum(axis=axis, keepdims=True)


def diagonal(g, dy, x, axis):
    y = weights(x, axis)
    return dy * y * (1 - y)


def of_next_row(g, dy, x, axis):
    y = weights(x, axis)
    return y * (dy - np.roll(dot(y, dy, axis), 1, axis=-2))


def unshifted(largest, name):
    """Take no maximum off, in a format whose largest number is e^largest."""

    def weigh(y, x, axis):
        e = overflowing(x, largest)
        return e / e.sum(axis=axis, keepdims=True)

    def overflows(x, *_):
        return bool((x > largest).any())

    return [
        value("softmax", name, weigh, overflows),
        value(LSE, name, lambda p, x: np.log(overflowing(x, largest).sum(axis=(2, 3))), overflows),
    ]


TUNED_ON = [
    value("softmax", "over the wrong axis", lambda y, x, axis: weights(x, axis - 1), lambda x, axis: x.size > 1),
    argument("softmax", 0, "scaled by 1/√n", lambda x, axis: x * x.shape[axis] ** -0.5, several),
    argument("softmax", 0, "sign lost", lambda x, axis: -x, several),
    value("softmax", "last weight forgotten", lambda y, *_: without_last(y, 1)),
    gradient("softmax", 0, "sum left out", lambda g, dy, *x: weights(*x) * dy),
    gradient("softmax", 0, "diagonal alone", diagonal, several),
    gradient("softmax", 0, "weights forgotten", lambda g, dy, x, axis: dy - dot(weights(x, axis), dy, axis)),
]
HELD_OUT = [
    *unshifted(SINGLE, "maximum not subtracted"),
    *unshifted(HALF, "maximum not subtracted, float16"),
    argument("softmax", 0, "base 2", lambda x, axis: x * math.log(2), several),
    argument(LSE, 0, "base 2", lambda x: x * math.log(2), on_map),
    gradient("softmax", 0, "sum of the next row", of_next_row, several_rows),
]
