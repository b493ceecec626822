"""Windows of a map: cutting them out, and laying them back over each other."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = [
    "add_windows",
    "fold_windows",
    "overlap_average",
    "pad",
    "unfold_windows",
    "window_average",
    "window_starts",
    "window_sums",
]


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """List where windows begin along an axis; the last is moved inward, so that they stay on the axis.

    They cover it where the stride is no longer than a window.

    Parameters
    ----------
    length, window, stride : int
        A window longer than the axis is the whole axis.

    Returns
    -------
    list of int

    Examples
    --------
    >>> window_starts(10, 4, 3)
    [0, 3, 6]
    >>> window_starts(9, 4, 3)
    [0, 3, 5]
    >>> window_starts(3, 4, 3)
    [0]
    """
    last = max(length - window, 0)
    return [*range(0, last, stride), last]


@primitive
def pad(x: Array, margin: int) -> tuple[Array, Backward]:
    """Lay zeros round a map: y_{i + m, j + m} = x_ij with the margin m, else 0.

    Parameters
    ----------
    x : array, (B, C, H, W)
    margin : int
        Rows and columns of zeros on every side.

    Returns
    -------
    y : array, (B, C, H + 2 margin, W + 2 margin)
    backward : callable
        ``backward(dy)`` returns ``dx``: what comes to the zeros is dropped.

    Examples
    --------
    >>> y, backward = pad(np.array([[[[5.0, 7.0]]]]), margin=1)
    >>> y[0, 0]
    array([[0., 0., 0., 0.],
           [0., 5., 7., 0.],
           [0., 0., 0., 0.]])
    >>> backward(y)
    array([[[[5., 7.]]]])
    """
    *lead, height, width = x.shape
    y = np.zeros_like(x, shape=(*lead, height + 2 * margin, width + 2 * margin))
    y[..., margin : margin + height, margin : margin + width] = x

    def backward(dy):
        return dy[..., margin : margin + height, margin : margin + width]

    return y, backward


@primitive
def unfold_windows(x: Array, window: int, stride: int) -> tuple[Array, Backward]:
    """Cut a map into windows that may overlap: u_{rs, ij} = x_{p_r + i, q_s + j}.

    The window in row r and column s begins at p_r, q_s.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window, stride : int
        Both along H and along W; see `window_starts`.

    Returns
    -------
    windows : array, (B, C, R, S, h, w)
        R × S windows of h × w = min(window, H) × min(window, W) positions.
    backward : callable
        ``backward(dwindows)`` returns ``dx``: each position receives the sum over the windows that hold it.

    Examples
    --------
    >>> windows, backward = unfold_windows(np.arange(3.0).reshape(1, 1, 1, 3), window=2, stride=1)
    >>> windows[0, 0, 0, :, 0]
    array([[0., 1.],
           [1., 2.]])
    >>> backward(np.ones_like(windows))
    array([[[[1., 2., 1.]]]])
    """
    *_, height, width = x.shape
    h, w = min(window, height), min(window, width)
    rows, columns = window_starts(height, window, stride), window_starts(width, window, stride)
    bands = np.stack([x[:, :, i : i + h] for i in rows], axis=2)
    windows = np.stack([bands[..., j : j + w] for j in columns], axis=3)

    def backward(dwindows):
        return fold_windows(dwindows, (height, width), window, stride)[0]

    return windows, backward


@primitive
def fold_windows(windows: Array, size: tuple[int, int], window: int, stride: int) -> tuple[Array, Backward]:
    """Lay windows back over each other and add where they overlap: the adjoint of `unfold_windows`.

    x_kl = Σ u_{rs, ij} over all windows that begin at p_r = k - i, q_s = l - j.

    Parameters
    ----------
    windows : array, (B, C, R, S, h, w)
    size : pair of int
        H and W of the map.
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    x : array, (B, C, H, W)
    backward : callable
        ``backward(dx)`` returns ``dwindows``.

    Examples
    --------
    >>> x, backward = fold_windows(np.ones((1, 1, 1, 2, 1, 2)), (1, 3), window=2, stride=1)
    >>> x
    array([[[[1., 2., 1.]]]])
    """
    (batch, channels, _, _, h, w), (height, width) = windows.shape, size
    bands = np.zeros_like(windows, shape=(batch, channels, windows.shape[2], h, width))
    for s, j in enumerate(window_starts(width, window, stride)):
        bands[..., j : j + w] += windows[:, :, :, s]
    x = np.zeros_like(windows, shape=(batch, channels, height, width))
    for r, i in enumerate(window_starts(height, window, stride)):
        x[:, :, i : i + h] += bands[:, :, r]

    def backward(dx):
        return unfold_windows(dx, window, stride)[0]

    return x, backward


@primitive
def window_average(x: Array, window: int, stride: int) -> tuple[Array, Backward]:
    """Average a map over each of its windows, which are never materialised: p_rs = (1/(h w)) Σ_ij x_{p_r + i, q_s + j}.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    p : array, (B, C, R, S)
    backward : callable
        ``backward(dp)`` returns ``dx``: each position receives dp / (h w), summed over the windows that hold it.

    Examples
    --------
    >>> p, backward = window_average(np.array([[[[2.0, 4.0, 6.0]]]]), window=2, stride=1)
    >>> p
    array([[[[3., 5.]]]])
    >>> backward(np.ones_like(p))
    array([[[[0.5, 1. , 0.5]]]])
    """
    size = x.shape[2:]
    positions = min(window, size[0]) * min(window, size[1])
    p = window_sums(x, window, stride) / positions

    def backward(dp):
        return add_windows(dp / positions, size, window, stride)

    return p, backward


@primitive
def overlap_average(z: Array, size: tuple[int, int], window: int, stride: int) -> tuple[Array, Backward]:
    """Give every position the average of the windows that hold it: y_kl = (1/κ_kl) Σ z_rs over these κ_kl windows.

    Parameters
    ----------
    z : array, (B, C, R, S)
        One number a window and channel.
    size : pair of int
        H and W of the map.
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    y : array, (B, C, H, W)
    backward : callable
        ``backward(dy)`` returns ``dz``: each window receives the sum of dy / κ over its positions, where κ counts the
        windows over a position.

    Examples
    --------
    >>> y, backward = overlap_average(np.array([[[[3.0, 5.0]]]]), (1, 3), window=2, stride=1)
    >>> y
    array([[[[3., 4., 5.]]]])
    >>> backward(np.ones_like(y))
    array([[[[1.5, 1.5]]]])
    """
    count = add_windows(np.ones_like(z.real, shape=(1, 1, *z.shape[2:])), size, window, stride)
    y = add_windows(z, size, window, stride) / count

    def backward(dy):
        return window_sums(dy / count, window, stride)

    return y, backward


@primitive
def window_sums(x: Array, window: int, stride: int) -> Array:
    """Add up the positions of every window, first along H, then along W: y_rs = Σ_ij x_{p_r + i, q_s + j}.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    array, (B, C, R, S)

    Examples
    --------
    >>> window_sums(np.array([[[[2.0, 4.0, 6.0]]]]), window=2, stride=1)
    array([[[[ 6., 10.]]]])
    """
    h, w = min(window, x.shape[2]), min(window, x.shape[3])
    rows, columns = (window_starts(length, window, stride) for length in x.shape[2:])
    bands = np.concatenate([x[:, :, i : i + h].sum(axis=2, keepdims=True) for i in rows], axis=2)
    return np.concatenate([bands[..., j : j + w].sum(axis=3, keepdims=True) for j in columns], axis=3)


@primitive
def add_windows(z: Array, size: tuple[int, int], window: int, stride: int) -> Array:
    """Add every window's number to all its positions, x_kl = Σ z_rs of those that hold it: `window_sums`'s adjoint.

    Parameters
    ----------
    z : array, (B, C, R, S)
    size : pair of int
        H and W of the map.
    window, stride : int
        As in `unfold_windows`.

    Returns
    -------
    array, (B, C, H, W)

    Examples
    --------
    >>> add_windows(np.array([[[[6.0, 10.0]]]]), (1, 3), window=2, stride=1)
    array([[[[ 6., 16., 10.]]]])
    """
    h, w = min(window, size[0]), min(window, size[1])
    bands = np.zeros_like(z, shape=(*z.shape[:3], size[1]))
    for s, j in enumerate(window_starts(size[1], window, stride)):
        bands[..., j : j + w] += z[..., s : s + 1]
    x = np.zeros_like(z, shape=(*z.shape[:2], *size))
    for r, i in enumerate(window_starts(size[0], window, stride)):
        x[:, :, i : i + h] += bands[:, :, r : r + 1]
    return x
