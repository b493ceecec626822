"""Convolutions, which here as in the field are cross-correlations: the kernel is not flipped."""

from __future__ import annotations

import itertools

import numpy as np

from npattn.ops.adding import accumulate
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["conv1d", "conv2d", "project"]


@primitive
def conv1d(x: Array, weight: Array) -> tuple[Array, Backward]:
    """Slide one kernel along every row, with zeros beyond the ends: z_bc = Σ_j w_j x_{b, c + j - (k-1)/2}.

    Parameters
    ----------
    x : array, (B, L)
    weight : array, (1, 1, k)
        One input and one output channel; k is odd: backward's mirror image of the kernel keeps its middle.

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
    neighbours = neighbourhoods(x, k)
    z = product(neighbours, kernel[:, None])[..., 0]

    def backward(dz):
        # x_c is read by its neighbours through the kernel's mirror image.
        dx = product(neighbourhoods(dz, k), kernel[::-1, None])[..., 0]
        dkernel = product(dz.reshape(1, -1), neighbours.reshape(-1, k))[0]
        return dx, dkernel.reshape(weight.shape)

    return z, backward


@primitive
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> tuple[Array, Backward]:
    """Slide kernels over a map, with zeros beyond its edges.

    y_bohw = Σ_cij w_ocij x_{b, c, s h + d i - p, s w + d j - p} + b_o, with stride s, dilation d and padding p; the
    sum over c runs over the channels of o's group.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight : array, (O, C / groups, kh, kw)
    bias : array, (O,), optional
    stride, padding, dilation : int or pair of int, default 1, 0, 1
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
    ``derivations/depth_wise_convolution.md`` derives the gradient, for any number of groups.

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
    batch, (out, _, *kernel) = len(x), weight.shape
    geometry = tuple(kernel), pair(stride), pair(padding), pair(dilation)
    columns, back_columns = im2col(x, *geometry)
    size = columns.shape[-2:]
    matrix = weight.reshape(groups, out // groups, -1)
    columns = columns.reshape(batch, groups, matrix.shape[2], size[0] * size[1])
    y = product(matrix, columns).reshape(batch, out, *size)
    shape = columns.shape
    del columns  # kh kw times as large as x: backward lays them out anew
    if bias is not None:
        y = y + bias[:, None, None]

    def backward(dy):
        dz = dy.reshape(batch, groups, out // groups, size[0] * size[1])
        dx = back_columns(product(matrix.swapaxes(1, 2), dz).reshape(batch, x.shape[1], kernel[0] * kernel[1], *size))
        columns = im2col(x, *geometry)[0].reshape(shape)
        dweight = product(dz, columns.swapaxes(2, 3)).sum(axis=0).reshape(weight.shape)
        return dx, dweight, None if bias is None else dy.sum(axis=(0, 2, 3))

    return y, backward


def im2col(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Array, Backward]:
    """Lay the taps that every output reads beside each other: (B, C, H, W) to (B, C, kh kw, H', W').

    Its adjoint, col2im, adds every tap back to where it was read.
    """
    (batch, channels, height, width), (top, left) = x.shape, padding
    shape = batch, channels, height + 2 * top, width + 2 * left
    padded = np.zeros_like(x, shape=shape)
    padded[:, :, top : top + height, left : left + width] = x
    taps = list(itertools.product(*map(reads, shape[2:], kernel, stride, dilation)))
    columns = np.stack([padded[:, :, rows, across] for rows, across in taps], axis=2)

    def col2im(dcolumns):
        dpadded = np.zeros_like(dcolumns, shape=shape)
        for t, (rows, across) in enumerate(taps):
            dpadded[:, :, rows, across] += dcolumns[:, :, t]
        return dpadded[:, :, top : top + height, left : left + width]

    return columns, col2im


def reads(length: int, k: int, stride: int, dilation: int) -> list[slice]:
    """List, for each tap of a kernel along an axis, what all outputs read with it."""
    last = (length - dilation * (k - 1) - 1) // stride * stride  # where the last output begins
    return [slice(tap * dilation, tap * dilation + last + 1, stride) for tap in range(k)]


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Return a pair of ints as it is, one int twice."""
    return value if isinstance(value, tuple) else (value, value)


def neighbourhoods(x: Array, k: int) -> Array:
    """Lay out the k neighbours of every element of a row, zeros beyond the ends: (B, L) to (B, L, k)."""
    batch, length = x.shape
    padded = np.zeros_like(x, shape=(batch, length + k - 1))
    padded[:, k // 2 : k // 2 + length] = x
    return np.stack([padded[:, j : j + length] for j in range(k)], axis=-1)


@primitive
def project(x: Array, *parameters: Array) -> tuple[tuple[Array, ...], Backward]:
    """Map the channels of every position by several layers: y_i = W_i x + b_i.

    Parameters
    ----------
    x : array, (B, C, H, W)
    *parameters : array
        Each layer's W_i, (O_i, C, 1, 1), and b_i, (O_i,), in turn.

    Returns
    -------
    ys : tuple of array, (B, O_i, H, W)
    backward : callable
        ``backward(dys, accumulate_into=None)`` returns ``(dx, dW_1, db_1, dW_2, ...)``; `accumulate_into`, which is not
        written to, is added to dx.

    Examples
    --------
    >>> w, b = np.full((1, 1, 1, 1), 3.0), np.ones(1)
    >>> (y, z), backward = project(np.full((1, 1, 1, 1), 2.0), w, b, 10 * w, b)
    >>> y.item(), z.item()
    (7.0, 61.0)
    >>> [gradient.item() for gradient in backward((y, z))]
    [1851.0, 14.0, 7.0, 122.0, 61.0]
    """
    layers = [conv2d(x, weight, bias) for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)]
    ys, backs = zip(*layers, strict=True)

    def backward(dys, accumulate_into=None):
        dx = accumulate_into
        gradients: list[Array] = []
        for back, dy in zip(backs[::-1], dys[::-1], strict=True):
            share, *of_layer = back(dy)
            dx = share if dx is None else accumulate(share, dx)
            gradients = [*of_layer, *gradients]
        return dx, *gradients

    return ys, backward
