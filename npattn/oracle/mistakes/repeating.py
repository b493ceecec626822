"""Mistakes in heads of keys and values that several heads of queries share."""

from typing import Any

import numpy as np

from npattn.oracle.mistakes.mistake import Apply, gradient, instead, value
from npattn.typing import Array, Backward

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NAME = "repeat"


def last_of_group(dx: Array, dy: Array, x: Array, times: int, axis: int) -> Array:
    return dy.reshape(*x.shape[: axis + 1], times, *x.shape[axis + 1 :])[(slice(None),) * (axis + 1) + (-1,)].copy()


def in_turn(original: Apply, x: Array, times: int, axis: int) -> tuple[Any, Backward]:
    """Read head h modulo the number of heads of keys."""
    return np.concatenate([x] * times, axis), original(x, times, axis)[1]


def added_in_turn(dx: Array, dy: Array, x: Array, times: int, axis: int) -> Array:
    """Add up over the heads that stand as many apart as there are heads of keys."""
    return dy.reshape(*x.shape[:axis], times, *x.shape[axis:]).sum(axis=axis)


def shared(x: Array, times: int, axis: int) -> bool:
    return times > 1 and x.shape[axis] > 1


def first_of_group(dx: Array, dy: Array, x: Array, times: int, axis: int) -> Array:
    return dy.reshape(*x.shape[: axis + 1], times, *x.shape[axis + 1 :])[(slice(None),) * (axis + 1) + (0,)].copy()


def of_head_0(y: Array, x: Array, times: int, axis: int) -> Array:
    return np.concatenate([x[:, :1]] * y.shape[axis], axis)


def in_groups(x: Array, times: int, axis: int) -> bool:
    return times > 1


TUNED_ON = [gradient(NAME, 0, "last head of a group alone", last_of_group, in_groups)]
HELD_OUT = [instead(NAME, "heads in turn", in_turn, shared)]
ADDED = [
    value(NAME, "first head for all", of_head_0, shared),
    gradient(NAME, 0, "first head of a group alone", first_of_group, in_groups),
    gradient(NAME, 0, "added up over heads in turn, not over groups", added_in_turn, shared),
    gradient(NAME, 0, "averaged over a group", lambda g, dy, x, times, axis: g / times, in_groups),
]
