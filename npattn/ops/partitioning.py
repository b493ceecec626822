"""Maps cut into windows that do not overlap, turned round their edges, and what positions of a window are apart."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["cyclic_shift", "gather_relative", "window_partition", "window_reverse"]


@primitive
def cyclic_shift(x: Array, shift: tuple[int, int]) -> tuple[Array, Backward]:
    """Move a map up and to the left; what leaves it on one side comes back on the other.

    y_ij = x_{(i + s) mod H, (j + t) mod W}, if it moves by s rows and t columns.

    Parameters
    ----------
    x : array, (B, C, H, W)
    shift : pair of int
        Rows and columns; negative ones move down and to the right.

    Returns
    -------
    y : array, (B, C, H, W)
    backward : callable
        ``backward(dy)`` returns ``dx``: dy, moved back.

    Notes
    -----
    Liu et al.: Swin Transformer, ICCV 2021. ``derivations/window_partition.md`` derives the gradient.

    Examples
    --------
    >>> y, backward = cyclic_shift(np.array([[[[1.0, 2.0, 3.0]]]]), (0, 1))
    >>> y
    array([[[[2., 3., 1.]]]])
    >>> backward(y)
    array([[[[1., 2., 3.]]]])
    """
    rows, columns = shift
    y = np.roll(x, (-rows, -columns), axis=(2, 3))

    def backward(dy):
        return np.roll(dy, (rows, columns), axis=(2, 3))

    return y, backward


@primitive
def window_partition(x: Array, window: tuple[int, int]) -> tuple[Array, Backward]:
    """Cut a map into windows that lie side by side; beyond its lower and right edge there are zeros.

    y_{rs, ij} = x_{r h + i, s w + j}: position (i, j) of the window in row r and column s.

    Parameters
    ----------
    x : array, (B, C, H, W)
    window : pair of int
        h and w.

    Returns
    -------
    windows : array, (B, C, R, h w)
        R = ⌈H / h⌉ ⌈W / w⌉ windows, and the positions of each, both row by row.
    backward : callable
        ``backward(dwindows)`` returns ``dx``: the windows laid side by side again.

    Notes
    -----
    Liu et al.: Swin Transformer, ICCV 2021. ``derivations/window_partition.md`` derives the gradient.

    Examples
    --------
    >>> windows, backward = window_partition(np.arange(1.0, 7.0).reshape(1, 1, 2, 3), (2, 2))
    >>> windows[0, 0]
    array([[1., 2., 4., 5.],
           [3., 0., 6., 0.]])
    >>> backward(windows)[0, 0]
    array([[1., 2., 3.],
           [4., 5., 6.]])
    """
    (batch, channels, height, width), (h, w) = x.shape, window
    rows, columns = -(-height // h), -(-width // w)
    padded = np.zeros_like(x, shape=(batch, channels, rows * h, columns * w))
    padded[:, :, :height, :width] = x
    windows = padded.reshape(batch, channels, rows, h, columns, w).swapaxes(3, 4)

    def backward(dwindows):
        return window_reverse(dwindows, window, (height, width))[0]

    return windows.reshape(batch, channels, rows * columns, h * w), backward


@primitive
def window_reverse(windows: Array, window: tuple[int, int], size: tuple[int, int]) -> tuple[Array, Backward]:
    """Lay windows side by side again; what lies beyond the map is left out: the inverse of `window_partition`.

    x_{r h + i, s w + j} = y_{rs, ij}: position (i, j) of the window in row r and column s.

    Parameters
    ----------
    windows : array, (B, C, R, h w)
    window, size : pair of int
        h and w, H and W.

    Returns
    -------
    x : array, (B, C, H, W)
    backward : callable
        ``backward(dx)`` returns ``dwindows``.

    Notes
    -----
    ``derivations/window_partition.md`` derives the gradient.

    Examples
    --------
    >>> x, backward = window_reverse(np.array([[[[1.0, 2.0], [3.0, 4.0]]]]), (1, 2), (1, 3))
    >>> x
    array([[[[1., 2., 3.]]]])
    >>> backward(x)
    array([[[[1., 2.],
             [3., 0.]]]])
    """
    (batch, channels), (h, w), (height, width) = windows.shape[:2], window, size
    rows, columns = -(-height // h), -(-width // w)
    padded = windows.reshape(batch, channels, rows, columns, h, w).swapaxes(3, 4)
    x = padded.reshape(batch, channels, rows * h, columns * w)[:, :, :height, :width]

    def backward(dx):
        return window_partition(dx, window)[0]

    return x, backward


@primitive
def gather_relative(table: Array, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Look up for each pair of positions what a table has for the offset of one from the other.

    g_knm = table[p_n - p_m, k], in which p_n - p_m, rows and columns, runs from -(h - 1, w - 1) to (h - 1, w - 1).

    Parameters
    ----------
    table : array, (2h - 1, 2w - 1, K) or ((2h - 1)(2w - 1), K)
    size : pair of int
        h and w; N = h w positions are counted row by row.

    Returns
    -------
    g : array, (K, N, N)
    backward : callable
        ``backward(dg)`` returns ``dtable``: the sum over all pairs that are so far apart.

    Notes
    -----
    Shaw et al.: Self-Attention with Relative Position Representations, NAACL 2018, for positions in a row; of maps as
    in Swin. ``derivations/window_partition.md`` derives the gradient.

    Examples
    --------
    Of three distances, -1, 0 and 1:

    >>> g, backward = gather_relative(np.array([[10.0], [20.0], [30.0]]), (1, 2))
    >>> g[0]
    array([[20., 10.],
           [30., 20.]])
    >>> backward(np.ones_like(g)).ravel()
    array([1., 2., 1.])
    """
    (h, w), count = size, table.shape[-1]
    rows, columns = (np.arange(n, like=table)[:, None] - np.arange(n, like=table) + n - 1 for n in size)
    laid_out = table.reshape(2 * h - 1, 2 * w - 1, count)
    g = np.moveaxis(laid_out[rows[:, None, :, None], columns[None, :, None, :]], -1, 0)

    def backward(dg):
        pairs = dg.reshape(count, h, w, h, w).swapaxes(2, 3)  # rows beside rows, columns beside columns
        across = diagonals(pairs)  # what is as many columns apart, in one column
        both = diagonals(across.transpose(0, 3, 4, 1, 2))  # and rows likewise
        return both.sum(axis=(1, 3)).transpose(2, 1, 0).reshape(table.shape)

    return g.reshape(count, h * w, h * w), backward


def diagonals(a: Array) -> Array:
    """Reverse and move rows of square matrices, so that diagonals become columns: (..., n, n) to (..., n, 2n - 1).

    Examples
    --------
    >>> diagonals(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[2., 1., 0.],
           [0., 4., 3.]])
    """
    n = a.shape[-1]
    doubled = np.concatenate([a[..., ::-1], np.zeros_like(a)], axis=-1)  # 2n a row: read as 2n - 1, each moves by one
    return doubled.reshape(*a.shape[:-2], 2 * n * n)[..., : n * (2 * n - 1)].reshape(*a.shape[:-1], 2 * n - 1)
