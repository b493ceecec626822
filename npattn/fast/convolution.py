"""Convolutions of large maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats
from npattn.fast.im2col import conv_by_columns, conv_by_rows
from npattn.fast.winograd import conv3x3
from npattn.ops.convolution import conv2d, pair
from npattn.ops.products import product
from npattn.typing import Array, Backward

MIN_CHANNELS = 4
"""Channels of x below which a matrix product for each row of a kernel sums over too little to be quick."""
FAR = 6
"""Taps of a row are far apart where this times their distance is more than the width of the map."""
MIN_WIDE, MIN_POSITIONS = 128, 2**11
"""Channels of x and of y, and positions, from which the fewer multiplications of tiles outweigh the sums they take."""


def is_pointwise(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> bool:
    """Tell whether a kernel reads the map as it is."""
    plain = pair(stride) == (1, 1) and pair(padding) == (0, 0) and groups == 1
    return weight.shape[2:] == (1, 1) and plain and are_machine_floats(x, weight)


@conv2d.faster(suits=is_pointwise)
def conv_pointwise(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> tuple[Array, Backward]:
    """Multiply each position's channels by the kernel, without laying anything out."""
    batch, channels, height, width = x.shape
    rows, matrix = x.reshape(batch, channels, height * width), weight.reshape(weight.shape[:2])
    y = product(matrix, rows).reshape(batch, len(weight), height, width)
    if bias is not None:
        y += bias[:, None, None]

    def backward(dy):
        dz = dy.reshape(batch, len(weight), height * width)
        dweight = product(dz, rows.swapaxes(1, 2)).sum(axis=0).reshape(weight.shape)
        return product(matrix.T, dz).reshape(x.shape), dweight, None if bias is None else dy.sum(axis=(0, 2, 3))

    return y, backward


def suits_rows(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> bool:
    """Tell whether kernels slide one by one over all channels, and read many numbers."""
    if not (pair(stride) == (1, 1) and groups == 1 and are_machine_floats(x, weight)):
        return False
    taps = math.prod(weight.shape[2:])
    return weight.shape[1] >= min(MIN_CHANNELS, len(weight) + 1) and taps * x.size >= MIN_PARALLEL_SIZE


def suits_tiles(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    **options: Any,
) -> bool:
    """Tell whether tiles are quicker. They cost a bit of precision: float64, taken for its digits, goes without."""
    above, beside = pair(padding)
    positions = (x.shape[2] + 2 * above - 2) * (x.shape[3] + 2 * beside - 2)
    large = positions >= MIN_POSITIONS and min(weight.shape[:2]) >= MIN_WIDE and max(above, beside) <= 2
    small_kernels = weight.shape[2:] == (3, 3) and pair(dilation) == (1, 1) and x.dtype == np.float32
    return large and small_kernels and suits_rows(x, weight, bias, padding=padding, dilation=dilation, **options)


@conv2d.faster(suits=suits_tiles)
def conv_in_tiles(*arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve 2×2 outputs at a time; errors are those of the largest input and weight that an output sees."""
    padding = pair(options.get("padding", 0))
    return by_convolution(lambda x, weight: conv3x3(x, weight, padding), *arguments, **options)


@conv2d.faster(suits=suits_rows)
def conv_row_by_row(*arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve by a product for each row of the kernel, or for each column where its taps lie far apart."""
    padding, dilation = pair(options.get("padding", 0)), pair(options.get("dilation", 1))

    def conv(x, weight):
        far = weight.shape[3] > 1 and FAR * dilation[1] > x.shape[3]
        return (conv_by_columns if far else conv_by_rows)(x, weight, padding, dilation)

    return by_convolution(conv, *arguments, **options)


def by_convolution(
    conv: Callable[..., tuple[Array, Backward]], *arguments: Any, **options: Any
) -> tuple[Array, Backward]:
    """Convolve without a bias, and add it; where anything is infinite, follow the definition.

    By definition infinity meets the zeros beyond the edges, which gives NaN; faster ways leave those products out, or
    take infinities off each other.
    """
    x, weight, bias = (*arguments, None)[:3]
    with np.errstate(over="ignore", invalid="ignore"):
        y, back = conv(x, weight) if are_finite(x, weight) else (None, None)
        finite = y is not None and are_finite(y)
    if not finite:
        return conv2d.definition(*arguments, **options)
    if bias is not None:
        y += bias[:, None, None]

    def backward(dy):
        with np.errstate(over="ignore", invalid="ignore"):
            gradients = back(dy) if are_finite(dy) else None
            finite = gradients is not None and are_finite(*gradients)
        if not finite:
            return conv2d.definition(*arguments, **options)[1](dy)
        return *gradients, None if bias is None else dy.sum(axis=(0, 2, 3))

    return y, backward


def are_finite(*arrays: Array) -> bool:
    """Tell whether no number is infinite or NaN; a sum that overflows counts as well, which does no harm."""
    return all(np.isfinite(a.sum()) for a in arrays)
