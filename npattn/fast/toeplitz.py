"""Convolution of maps with one channel and short rows, whose kernels are wide."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.fast.blas import multiply
from npattn.fast.blocks import BLOCK_SIZE, MIN_PARALLEL_SIZE, NUM_BLOCKS, are_machine_floats, cut_axis
from npattn.fast.convolution import by_convolution
from npattn.fast.threads import parallel_for, reusing_memory
from npattn.ops.convolution import conv2d, pair
from npattn.typing import Array, Backward

MAX_LENGTH = 3
"""Length of rows, in those of kernels, up to which the zeros in their matrices cost less than laying out every tap."""


def suits_rows_as_matrices(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> bool:
    """Tell whether several kernels slide one by one over one channel, whose rows are short, and read many numbers."""
    if weight.shape[1] != 1 or weight.shape[2] * weight.shape[3] * x.size < MIN_PARALLEL_SIZE:
        return False
    if not (pair(stride) == pair(dilation) == (1, 1) and groups == 1 and are_machine_floats(x, weight)):
        return False
    size, kernel, added = x.shape[2:], weight.shape[2:], pair(padding)
    fitting = all(n + 2 * p >= k > p for n, k, p in zip(size, kernel, added, strict=True))
    short = size[1] <= MAX_LENGTH * kernel[1]
    return len(weight) > 1 and fitting and short


@conv2d.faster(suits=suits_rows_as_matrices)
def conv_rows_as_matrices(*arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve by the matrices that a row of a kernel is to a row of the map: Toeplitz matrices, of all kernels.

    An output row is a product of as many rows of the map as a kernel has with these matrices, laid below each other. To
    lay out every tap instead, as `im2col` does, takes more time than the products, where kernels are wide: they are
    read once for each output, and BLAS is slow at few rows.
    """
    padding = pair(options.get("padding", 0))
    return by_convolution(lambda x, weight: conv_by_matrices(x, weight, padding), *arguments, **options)


def conv_by_matrices(x: Array, weight: Array, padding: tuple[int, int]) -> tuple[Array, Backward]:
    """Convolve maps of one channel, (B, 1, H, W), some at a time, in memory that stays in a core's cache."""
    (batch, _, *size), (out, _, *kernel) = x.shape, weight.shape
    height, width = (n + 2 * p - k + 1 for n, k, p in zip(size, kernel, padding, strict=True))
    rows, columns = map(list_taps, size, (height, width), kernel, padding)
    matrix = np.zeros_like(x, shape=(kernel[0], size[1], out, width), order="C")
    for j, (read, to) in enumerate(columns):
        matrix[:, positions(read), :, positions(to)] = weight[:, 0, :, j].T
    matrix = matrix.reshape(kernel[0] * size[1], out * width)
    y = np.empty_like(x, shape=(batch, out, height, width), order="C")
    maps = x[:, 0]
    cut = cut_axis(batch, max(NUM_BLOCKS, y.size // BLOCK_SIZE))

    def lay_rows(some, memory):
        laid = memory((some.stop - some.start, height, kernel[0], size[1]))
        for i, (read, to) in enumerate(rows):
            laid[:, to, i] = maps[some, read]
            laid[:, : to.start, i] = 0
            laid[:, to.stop :, i] = 0
        return laid.reshape(-1, len(matrix))

    def compute(some, laying, multiplying):
        laid = lay_rows(some, laying)
        product = multiply(laid, matrix, out=multiplying((len(laid), out * width)))
        y[some] = product.reshape(-1, height, out, width).swapaxes(1, 2)

    parallel_for(reusing_memory(compute, x, 2), cut, products=True)

    def backward(dy):
        dx = np.zeros_like(x, order="C")
        dmatrices = np.empty_like(x, shape=(len(cut), *matrix.shape), order="C")

        def differentiate(block, laying, gathering, multiplying):
            number, some = block
            laid = lay_rows(some, laying)
            gathered = gathering((some.stop - some.start, height, out, width))
            gathered[...] = dy[some].swapaxes(1, 2)
            gathered = gathered.reshape(len(laid), -1)
            multiply(laid.T, gathered, out=dmatrices[number])
            dlaid = multiply(gathered, matrix.T, out=multiplying(laid.shape))
            dlaid = dlaid.reshape(-1, height, kernel[0], size[1])
            for i, (read, to) in enumerate(rows):
                dx[some, 0, read] += dlaid[:, to, i]

        parallel_for(reusing_memory(differentiate, x, 3), enumerate(cut), products=True)
        dmatrix = dmatrices.sum(axis=0).reshape(kernel[0], size[1], out, width)
        dweight = np.empty_like(weight)
        for j, (read, to) in enumerate(columns):
            dweight[:, 0, :, j] = dmatrix[:, positions(read), :, positions(to)].sum(axis=0).T
        return dx, dweight

    return y, backward


def list_taps(length: int, result: int, kernel: int, padding: int) -> list[tuple[slice, slice]]:
    """Say for each tap of a kernel, along an axis, what it reads of the map, and for which outputs; none, maybe."""
    taps = []
    for shift in range(-padding, kernel - padding):
        start = max(0, -shift)
        stop = max(start, min(result, length - shift))
        taps.append((slice(start + shift, stop + shift), slice(start, stop)))
    return taps


def positions(line: slice) -> Array:
    """List the positions of a part of an axis."""
    return np.arange(line.start, line.stop)
