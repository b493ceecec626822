"""Windows of a map: cutting them out, and laying them back over each other."""

from __future__ import annotations

import numpy as np

__all__ = ["fold_windows", "unfold_windows", "window_starts"]


def window_starts(length, window, stride):
    """List where windows begin along an axis; the last is moved inward, so that they cover the axis and stay on it.

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


def unfold_windows(x, window, stride):
    """Cut a map into windows that may overlap.

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


def fold_windows(windows, size, window, stride):
    """Lay windows back over each other and add where they overlap: the adjoint of `unfold_windows`.

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
