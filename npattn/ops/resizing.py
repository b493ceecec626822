"""Maps brought to another size."""

from __future__ import annotations

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["resize_bilinear", "resize_nearest"]


@primitive
def resize_bilinear(x: Array, size: tuple[int, int], align_corners: bool = False) -> tuple[Array, Backward]:
    """Read a map at the positions of a grid of another size, each from its four neighbours.

    Along an axis of length n, position k of m is read at s_k = i + t, between i = ⌊s_k⌋ and i + 1, each weighted by one
    minus its distance: y_k = (1 - t) x_i + t x_{i+1}. The two axes are read one after the other.

    Parameters
    ----------
    x : array, (B, C, H, W)
    size : pair of int
        New height and width.
    align_corners : bool, default False
        If true, the centres of the corner pixels stay where they are: s_k = k (n - 1) / (m - 1), and 0 where m = 1.
        If false, the outer edges of the map do: s_k = (k + 1/2) n / m - 1/2, moved inward to [0, n - 1].

    Returns
    -------
    y : array, (B, C, *size)
    backward : callable
        ``backward(dy)`` returns ``dx``, the exact adjoint: Rᵀ dy K for y = R x Kᵀ.

    Notes
    -----
    Nothing is averaged when the map shrinks: what no position reads has no effect and no gradient, as in PyTorch's
    ``interpolate`` without ``antialias``. ``derivations/bilinear_upsampling.md`` derives the gradient.

    Examples
    --------
    >>> x = np.array([[[[0.0, 4.0]]]])
    >>> resize_bilinear(x, (1, 4))[0]
    array([[[[0., 1., 3., 4.]]]])
    >>> y, backward = resize_bilinear(x, (1, 5), align_corners=True)
    >>> y
    array([[[[0., 1., 2., 3., 4.]]]])
    >>> backward(np.ones_like(y))
    array([[[[2.5, 2.5]]]])
    """
    height, width = x.shape[2:]
    y = interpolate(interpolate(x, 3, size[1], align_corners), 2, size[0], align_corners)

    def backward(dy):
        rows, columns = (
            interpolate(identity_matrix(dy, n), 0, m, align_corners) for n, m in zip((height, width), size, strict=True)
        )
        return product(product(rows.T, dy), columns)

    return y, backward


@primitive
def resize_nearest(x: Array, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Read a map at the positions of a grid of another size, each where it falls: y_kl = x_{⌊k H / H'⌋, ⌊l W / W'⌋}.

    Parameters
    ----------
    x : array, (B, C, H, W)
    size : pair of int
        New height and width.

    Returns
    -------
    y : array, (B, C, *size)
    backward : callable
        ``backward(dy)`` returns ``dx``: the sums of what is read from each position.

    Notes
    -----
    PyTorch's ``interpolate(mode="nearest")`` multiplies by a quotient that it has rounded to single precision, and
    reads one position earlier here and there: of sizes up to 64 that grow to at most 128, in 71 pairs, as 26 to 44.
    ``derivations/nearest_upsampling.md`` derives the gradient.

    Examples
    --------
    >>> y, backward = resize_nearest(np.array([[[[1.0, 2.0]]]]), (1, 5))
    >>> y
    array([[[[1., 1., 1., 2., 2.]]]])
    >>> backward(y)
    array([[[[3., 4.]]]])
    """
    rows, columns = ([k * n // m for k in range(m)] for n, m in zip(x.shape[2:], size, strict=True))

    def backward(dy):
        sums, dx = np.zeros_like(dy, shape=(*x.shape[:3], size[1])), np.zeros_like(dy, shape=x.shape)
        for k, row in enumerate(rows):
            sums[:, :, row] += dy[:, :, k]
        for k, column in enumerate(columns):
            dx[..., column] += sums[..., k]
        return dx

    return x[:, :, rows][..., columns], backward


def interpolate(x: Array, axis: int, length: int, align_corners: bool) -> Array:
    """Read an axis at `length` positions."""
    below, above, (numerators, denominator) = neighbours(x.shape[axis], length, align_corners)
    weight = np.array(numerators, dtype=x.real.dtype, like=x) / denominator
    weight = weight.reshape(length, *(1,) * (x.ndim - axis % x.ndim - 1))
    return np.take(x, above, axis) * weight + np.take(x, below, axis) * (1 - weight)


def neighbours(n: int, m: int, align_corners: bool) -> tuple[list[int], list[int], tuple[list[int], int]]:
    """List the neighbours of m positions on an axis of length n, and the upper one's weight as a fraction.

    All in integers, so that the weight is exact in any number format until it's divided.
    """
    if align_corners:
        denominator = max(m - 1, 1)
        numerators = [k * (n - 1) for k in range(m)]
    else:
        denominator = 2 * m
        numerators = [min(max((2 * k + 1) * n - m, 0), denominator * (n - 1)) for k in range(m)]
    below = [numerator // denominator for numerator in numerators]
    above = [min(i + 1, n - 1) for i in below]
    return below, above, ([numerator % denominator for numerator in numerators], denominator)


def identity_matrix(like: Array, n: int) -> Array:
    """Make the identity matrix; what `interpolate` makes of its rows is the matrix of `interpolate`."""
    matrix = np.zeros_like(like, shape=(n, n))
    matrix.reshape(n * n)[:: n + 1] = 1
    return matrix
