"""Joining arrays end to end, and cutting one into parts, each the other's adjoint; repeating and shuffling parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["channel_shuffle", "concatenate", "concatenate_and_shuffle", "repeat", "split"]


@primitive
def concatenate(arrays: Sequence[Array], axis: int) -> tuple[Array, Backward]:
    """Lay arrays end to end along an axis: y_{s + i} = x_i with x one of them, which begins at s.

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
    """Cut an array into parts along an axis: y_i = x_{s + i} in a part that begins at s.

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
    *ends, _ = itertools.accumulate(sizes)

    def backward(dparts):
        return np.concatenate(dparts, axis=axis)

    return tuple(np.split(x, ends, axis=axis)), backward


@primitive
def repeat(x: Array, times: int, axis: int) -> tuple[Array, Backward]:
    """Repeat each part of an array along an axis: y_j = x_⌊j / times⌋.

    Heads of keys, for instance, that several heads of queries share.

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


@primitive
def channel_shuffle(x: Array, groups: int) -> tuple[Array, Backward]:
    """Deal the channels of groups out in turn: y_{b, c G + g} = x_{b, g C/G + c}.

    Parameters
    ----------
    x : array, (B, C, ...)
    groups : int
        G, which divides C.

    Returns
    -------
    y : array, shape of `x`
    backward : callable
        ``backward(dy)`` returns ``dx``: what each channel gets where it has gone to.

    Notes
    -----
    Zhang et al.: ShuffleNet, CVPR 2018, section 3.1. Dealing out C/G groups undoes it.
    ``derivations/channel_shuffle.md`` derives the gradient.

    Examples
    --------
    >>> y, backward = channel_shuffle(np.array([[1, 2, 3, 10, 20, 30]]), 2)
    >>> y
    array([[ 1, 10,  2, 20,  3, 30]])
    >>> backward(y)
    array([[ 1,  2,  3, 10, 20, 30]])
    """
    batch, channels, *size = x.shape
    y = x.reshape(batch, groups, channels // groups, *size).swapaxes(1, 2).reshape(x.shape)

    def backward(dy):
        return dy.reshape(batch, channels // groups, groups, *size).swapaxes(1, 2).reshape(dy.shape)

    return y, backward


@primitive
def concatenate_and_shuffle(parts: Sequence[Array], count: int, groups: int) -> tuple[Array, Backward]:
    """Lay the parts of every group of channels end to end, and deal the channels of all groups out: `channel_shuffle`.

    y_{b, c G + g} = w_{b, g C/G + c} with the parts of group k of an image b, the row b K + k of each, end to end in w.

    Parameters
    ----------
    parts : sequence of array, (B K, C_i, ...)
        Of each group of every image.
    count : int
        K, the number of groups that an image has.
    groups : int
        G, of how many groups the channels are dealt out; it divides C = K (C_1 + C_2 + ...).

    Returns
    -------
    y : array, (B, C, ...)
    backward : callable
        ``backward(dy)`` returns a tuple of the gradient of each part.

    Examples
    --------
    >>> y, backward = concatenate_and_shuffle((np.array([[1], [10]]), np.array([[2], [20]])), 2, 2)
    >>> y
    array([[ 1, 10,  2, 20]])
    >>> [dpart.ravel() for dpart in backward(y)]
    [array([ 1, 10]), array([ 2, 20])]
    """
    w, back_join = concatenate(parts, axis=1)
    y, back_shuffle = channel_shuffle(w.reshape(len(w) // count, count * w.shape[1], *w.shape[2:]), groups)

    def backward(dy):
        return back_join(back_shuffle(dy).reshape(w.shape))

    return y, backward
