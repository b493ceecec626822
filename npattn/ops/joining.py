"""Joining arrays end to end, and cutting one into parts, each the other's adjoint; repeating parts of one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["concatenate", "repeat", "split"]


@primitive
def concatenate(arrays: Sequence[Array], axis: int) -> tuple[Array, Backward]:
    """Lay arrays end to end along an axis.

    Parameters
    ----------
    arrays : sequence of array
        Alike but for their lengths along `axis`.
    axis : int

    Returns
    -------
    y : array
    backward : callable
        ``backward(dy)`` returns a tuple of the gradient of each array: its own part of dy, as a view.

    Examples
    --------
    >>> y, backward = concatenate((np.array([1.0, 2.0]), np.array([3.0])), axis=0)
    >>> y
    array([1., 2., 3.])
    >>> backward(np.array([10.0, 20.0, 30.0]))
    (array([10., 20.]), array([30.]))
    """
    sizes = [array.shape[axis] for array in arrays]

    def backward(dy):
        return split(dy, sizes, axis)[0]

    return np.concatenate(arrays, axis=axis), backward


@primitive
def split(x: Array, sizes: Sequence[int], axis: int) -> tuple[tuple[Array, ...], Backward]:
    """Cut an array into parts along an axis.

    Parameters
    ----------
    x : array
    sizes : sequence of int
        Lengths of the parts; they add up to the length of `x` along `axis`.
    axis : int

    Returns
    -------
    parts : tuple of array
        Views of `x`.
    backward : callable
        ``backward(dparts)`` returns ``dx``: the parts' gradients laid end to end.

    Examples
    --------
    >>> parts, backward = split(np.array([1.0, 2.0, 3.0]), (2, 1), axis=0)
    >>> parts
    (array([1., 2.]), array([3.]))
    >>> backward((np.array([10.0, 20.0]), np.array([30.0])))
    array([10., 20., 30.])
    """
    *ends, _ = accumulate(sizes)

    def backward(dparts):
        return np.concatenate(dparts, axis=axis)

    return tuple(np.split(x, ends, axis=axis)), backward


@primitive
def repeat(x: Array, times: int, axis: int) -> tuple[Array, Backward]:
    """Repeat each part of an array along an axis: heads of keys, for instance, that several heads of queries share.

    Parameters
    ----------
    x : array
    times : int
        The part with index i stands at i · times and the places behind.
    axis : int
        At least 0.

    Returns
    -------
    y : array
    backward : callable
        ``backward(dy)`` returns ``dx``: the sum of what all repetitions get.

    Examples
    --------
    >>> y, backward = repeat(np.array([1.0, 2.0]), 2, axis=0)
    >>> y
    array([1., 1., 2., 2.])
    >>> backward(np.array([10.0, 20.0, 30.0, 40.0]))
    array([30., 70.])
    """

    def backward(dy):
        return dy.reshape(*x.shape[: axis + 1], times, *x.shape[axis + 1 :]).sum(axis=axis + 1)

    return np.repeat(x, times, axis=axis), backward
