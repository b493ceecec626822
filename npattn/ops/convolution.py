"""Convolutions, which here as in the field are cross-correlations: the kernel is not flipped."""

from __future__ import annotations

import numpy as np

from npattn.ops.kernel_rows import by_columns, by_rows
from npattn.ops.primitive import primitive
from npattn.ops.products import multiply
from npattn.ops.sweeping import worth_parting
from npattn.ops.winograd import conv3x3

__all__ = ["conv1d", "conv2d"]

FEW = 4
"""Channels of x below which a matrix product for each row of a kernel sums over too little to be quick."""
FAR = 6
"""Taps of a row are far apart where this times their distance is more than the width of the map."""
WIDE, LARGE = 128, 2**11
"""Channels of x and of y, and positions, from which the fewer multiplications of tiles outweigh the sums they take."""


@primitive
def conv1d(x, weight):
    """Slide one kernel along every row, with zeros beyond the ends: z_bc = Σ_j w_j x_{b, c + j - (k-1)/2}.

    Parameters
    ----------
    x : array, (B, L)
    weight : array, (1, 1, k)
        One input and one output channel; k is odd, so that z is as long as x.

    Returns
    -------
    z : array, (B, L)
    backward : callable
        ``backward(dz)`` returns ``(dx, dweight)``.

    Examples
    --------
    >>> z, backward = conv1d(np.array([[1.0, 2.0, 3.0]]), np.array([[[10.0, 1.0, 0.0]]]))
    >>> z
    array([[ 1., 12., 23.]])
    >>> dx, dweight = backward(np.array([[1.0, 0.0, 0.0]]))
    >>> dx, dweight
    (array([[1., 0., 0.]]), array([[[0., 1., 2.]]]))
    """
    k = weight.shape[-1]
    kernel = weight.reshape(k)
    neighbours = windows(x, k)
    z = neighbours @ kernel

    def backward(dz):
        # x_c is read by its neighbours through the kernel's mirror image.
        dx = windows(dz, k) @ kernel[::-1]
        dkernel = dz.reshape(-1) @ neighbours.reshape(-1, k)
        return dx, dkernel.reshape(weight.shape)

    return z, backward


@primitive
def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Slide kernels over a map, with zeros beyond its edges.

    y_bohw = Σ_cij w_ocij x_{b, c, s h + d i - p, s w + d j - p} + b_o, with stride s, dilation d and padding p; the
    sum over c runs over the channels of o's group.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight : array, (O, C / groups, kh, kw)
    bias : array, (O,), optional
    stride, padding, dilation : int or pair of int
        Step between outputs, zeros added on every side, step between the kernel's taps; along H and W.
    groups : int, default 1
        Channels are cut into this many groups that do not see each other.

    Returns
    -------
    y : array, (B, O, H', W'), with H' = (H + 2p - d (kh - 1) - 1) // s + 1
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight, dbias)``, shaped as the arguments; ``dbias`` is None without a bias.

    Notes
    -----
    Large 3×3 convolutions in float32 are computed in tiles of 2×2 outputs (`winograd.conv3x3`). Their rounding errors
    are those of the largest input times the largest weight that an output sees.

    Examples
    --------
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> y, backward = conv2d(x, np.ones((1, 1, 2, 2)))
    >>> y
    array([[[[ 8., 12.],
             [20., 24.]]]])
    >>> dx, dweight, dbias = backward(np.ones((1, 1, 2, 2)))
    >>> dx
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    geometry = stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    out, channels, *kernel = weight.shape
    by_parts = stride == (1, 1) and groups == 1 and kernel != [1, 1] and channels >= min(FEW, out + 1)
    if not by_parts:
        y, back = at_once(x, weight, geometry, groups)
    elif suits_tiles(x, weight, padding, dilation):
        y, back = in_tiles(x, weight, padding)
    elif kernel[1] > 1 and FAR * dilation[1] > x.shape[3]:
        y, back = by_columns(x, weight, padding, dilation)
    else:
        y, back = by_rows(x, weight, padding, dilation)
    if bias is not None:
        y += bias[:, None, None]

    def backward(dy):
        return *back(dy), None if bias is None else dy.sum(axis=(0, 2, 3))

    return y, backward


def at_once(x, weight, geometry, groups):
    """Convolve by one matrix product a group: kernels (O/g, C/g kh kw) times all taps laid out (C/g kh kw, H' W')."""
    (batch, channels), (out, _, *kernel) = x.shape[:2], weight.shape
    columns, back_columns = patches(x, kernel, *geometry)
    size = columns.shape[-2:]
    matrix = weight.reshape(groups, out // groups, -1)
    positions = size[0] * size[1]
    columns = columns.reshape(batch, groups, matrix.shape[2], positions)
    y = multiply(matrix, columns).reshape(batch, out, *size)

    def backward(dy):
        dz = dy.reshape(batch, groups, out // groups, positions)
        adjoint = matrix.swapaxes(1, 2)
        # With one output channel a group, the matrix product sums over nothing: broadcasting is quicker.
        dcolumns = multiply(adjoint, dz) if out > groups else adjoint * dz
        dx = back_columns(dcolumns.reshape(batch, channels, kernel[0] * kernel[1], *size))
        dweight = multiply(dz, columns.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape)
        return dx, dweight

    return y, backward


def suits_tiles(x, weight, padding, dilation):
    """Tell whether tiles are quicker. They cost a bit of precision: float64, taken for its digits, goes without."""
    positions = (x.shape[2] + 2 * padding[0] - 2) * (x.shape[3] + 2 * padding[1] - 2)
    large = positions >= LARGE and min(weight.shape[:2]) >= WIDE and x.dtype == np.float32 and worth_parting(x, weight)
    return large and weight.shape[2:] == (3, 3) and dilation == (1, 1) and max(padding) <= 2


def in_tiles(x, weight, padding):
    """Convolve in tiles, or by rows if something is infinite: tiles may take infinities off each other."""

    def by_rows_instead():
        return by_rows(x, weight, padding, (1, 1))

    with np.errstate(over="ignore", invalid="ignore"):
        y, back = conv3x3(x, weight, padding)
        finite = np.isfinite(y.sum())
    if not finite:
        return by_rows_instead()

    def backward(dy):
        with np.errstate(over="ignore", invalid="ignore"):
            gradients = back(dy)
            finite = all(np.isfinite(gradient.sum()) for gradient in gradients)
        return gradients if finite else by_rows_instead()[1](dy)

    return y, backward


def patches(x, kernel, stride, padding, dilation):
    """Lay the taps that every output reads beside each other: (B, C, H, W) to (B, C, kh kw, H', W').

    Its adjoint adds every tap back to where it was read.
    """
    batch, channels, height, width = x.shape
    rows, columns = (
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip((height, width), kernel, stride, padding, dilation, strict=True)
    )
    taps = [
        (
            ...,
            slice(i * dilation[0], i * dilation[0] + stride[0] * (rows - 1) + 1, stride[0]),
            slice(j * dilation[1], j * dilation[1] + stride[1] * (columns - 1) + 1, stride[1]),
        )
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    inside = (..., slice(padding[0], padding[0] + height), slice(padding[1], padding[1] + width))
    shape = batch, channels, height + 2 * padding[0], width + 2 * padding[1]
    padded = x
    if any(padding):
        padded = np.zeros_like(x, shape=shape)
        padded[inside] = x
    # A 1×1 kernel reads the map as it is: a view will do.
    laid_out = np.stack([padded[tap] for tap in taps], axis=2) if len(taps) > 1 else padded[taps[0]][:, :, None]

    def backward(dlaid_out):
        if len(taps) == 1 and dlaid_out.shape[3:] == shape[2:] == (height, width):
            return dlaid_out[:, :, 0]
        dpadded = np.zeros_like(dlaid_out, shape=shape)
        for t, tap in enumerate(taps):
            dpadded[tap] += dlaid_out[:, :, t]
        return dpadded[inside]

    return laid_out, backward


def pair(value):
    """Return a pair of ints as it is, one int twice."""
    return value if isinstance(value, tuple) else (value, value)


def windows(x, k):
    """Lay out the k neighbours of every element of a row, zeros beyond the ends: (B, L) to (B, L, k)."""
    batch, length = x.shape
    padded = np.zeros_like(x, shape=(batch, length + k - 1))
    padded[:, k // 2 : k // 2 + length] = x
    return np.stack([padded[:, j : j + length] for j in range(k)], axis=-1)
