"""Mistakes in linear maps that are applied to the queries of positions."""

import numpy as np

from npattn.oracle.mistakes.arrays import TILE, longer
from npattn.oracle.mistakes.families import IMAGE_0_FOR_ALL, ROW_TAIL
from npattn.oracle.mistakes.mistake import argument, dropped, gradient, value
from npattn.typing import Array

__all__ = ["ADDED"]

NAME = "apply_lambdas"
several_heads, several_positions = longer(1), longer(-1)


def square(q: Array, lambdas: Array) -> bool:
    return q.shape[2] == lambdas.shape[1] > 1


def averaged(lambdas: Array) -> Array:
    """Average over all positions, each of which then has the same."""
    return np.zeros_like(lambdas) + lambdas.mean(axis=-1, keepdims=True)


def of_head_0(q: Array, lambdas: Array) -> Array:
    return np.concatenate([q[:, :1]] * q.shape[1], axis=1)


def one_on(q: Array, lambdas: Array) -> Array:
    return np.roll(lambdas, 1, axis=-1)


def channels_first(y: Array, q: Array, lambdas: Array) -> Array:
    """Lay channels out before heads."""
    return y.swapaxes(1, 2).reshape(y.shape)


def scaled(q: Array, lambdas: Array) -> Array:
    return q * q.shape[2] ** -0.5


def of_last_head(g: Array, dy: Array, q: Array, lambdas: Array) -> Array:
    return dy[:, -1, :, None] * q[:, -1, None]


ADDED = [
    argument(NAME, 1, "lambdas transposed", lambda q, lambdas: lambdas.swapaxes(1, 2), square),
    argument(NAME, 1, "one lambda for all positions", lambda q, lambdas: averaged(lambdas), several_positions),
    argument(NAME, 1, "lambda of the position before", one_on, several_positions),
    argument(NAME, 0, "queries scaled by 1/√K", scaled, longer(2)),
    argument(NAME, 0, "queries of the first head for all", of_head_0, several_heads),
    value(NAME, "channels before heads", channels_first, lambda q, lambdas: min(q.shape[1], lambdas.shape[1]) > 1),
    value(NAME, "last tile ignored", lambda y, *_: ROW_TAIL.change(y), longer(-1, TILE)),
    IMAGE_0_FOR_ALL.in_argument(NAME, 1, "lambdas of image 0 for all"),
    gradient(NAME, 0, "dq dropped", dropped),
    gradient(NAME, 1, "dλ dropped", dropped),
    gradient(NAME, 1, "dλ of the last head alone", of_last_head, several_heads),
]
