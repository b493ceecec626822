"""Convolutions of large maps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.fast.blocks import MAX_PRODUCT_BLOCKS, MIN_PARALLEL_SIZE, are_machine_floats, blocks, cut_axis, is_large
from npattn.fast.elementwise import are_finite
from npattn.fast.im2col import conv_by_columns, conv_by_images, conv_by_rows, taps_that_reach
from npattn.fast.joining import copy_in_blocks
from npattn.fast.pooling import MAX_ROW_LENGTH
from npattn.fast.products import product_and_sum
from npattn.fast.threads import parallel_for
from npattn.fast.winograd import conv3x3, laid_length
from npattn.ops.adding import accumulate
from npattn.ops.context import CONTEXT
from npattn.ops.convolution import conv2d, pair, project
from npattn.ops.joining import split
from npattn.ops.products import product
from npattn.typing import Array, Backward

MIN_CHANNELS = 4
"""Channels of x below which a matrix product for each row of a kernel sums over too little to be quick."""
MAX_NEAR_TAPS = 6
"""Taps of a row are far apart where this times their distance is more than the width of the map."""
MIN_TILED_CHANNELS, MIN_TILED_POSITIONS = 128, 2**9
"""Channels of x and of y, and positions, from which the fewer multiplications of tiles outweigh the sums they take."""
MIN_IMAGES = MAX_PRODUCT_BLOCKS
"""Images from which each core has some of its own."""
MAX_LAID_SIZE = 2**20
"""Numbers of an image that is laid out, up to which it stays in a core's cache."""
MAX_LAID_RATIO = 1.25
"""Positions of d² maps beside each other, to those of the map of which they are, up to which tiles still gain."""


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
    if weight.shape[2:] != (1, 1):
        return False
    return pair(stride) == (1, 1) and pair(padding) == (0, 0) and groups == 1 and are_machine_floats(x, weight)


@conv2d.faster(suits=is_pointwise)
def conv_pointwise(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> tuple[Array, Backward]:
    """Multiply each position's channels by the kernel, without laying anything out."""
    batch, channels, height, width = x.shape
    rows, matrix = x.reshape(batch, channels, height * width), weight.reshape(weight.shape[:2])
    y = product(matrix, rows).reshape(batch, len(weight), height, width)
    if bias is not None:
        add_bias(y, bias)

    def backward(dy):
        dz = dy.reshape(batch, len(weight), height * width)
        dx, dweight = product_and_sum(matrix.T, dz, dz, rows.swapaxes(1, 2))
        return dx.reshape(x.shape), dweight.reshape(weight.shape), None if bias is None else sum_by_channels(dy)

    return y, backward


def are_large_and_unwatched(x: Array, *parameters: Array) -> bool:
    """Tell whether a map is large, and nobody asks for single layers."""
    return is_large(x, *parameters) and len(parameters) > 2 and not CONTEXT.get().handlers


@project.faster(suits=are_large_and_unwatched)
def project_at_once(x: Array, *parameters: Array) -> tuple[tuple[Array, ...], Backward]:
    """Multiply by all matrices in one product, of more rows, and so by their gradients; x is read once."""
    weights, biases = parameters[::2], parameters[1::2]
    sizes = [len(weight) for weight in weights]
    y, back = conv_pointwise(x, np.concatenate(weights), np.concatenate(biases))
    ys, back_split = split(y, sizes, 1)

    def backward(dys, accumulate_into=None):
        dx, *gradients = back(back_split(dys))
        if accumulate_into is not None:
            dx = accumulate(dx, accumulate_into)
        by_layer = zip(*(split(gradient, sizes, 0)[0] for gradient in gradients), strict=True)
        return dx, *itertools.chain(*by_layer)

    return ys, backward


def add_bias(y: Array, bias: Array) -> None:
    """Add to every channel its bias, where it stands, on all cores."""

    def add(block):
        y[block] += bias[block[1], None, None]

    parallel_for(add, blocks(y, 1))


def sum_by_channels(dy: Array) -> Array:
    """Add up a gradient for every channel, on all cores where its rows are short enough to be added up in turn."""
    if not is_large(dy) or dy.shape[2] * dy.shape[3] > MAX_ROW_LENGTH:
        return dy.sum(axis=(0, 2, 3))
    sums = np.empty_like(dy, shape=dy.shape[:2])
    parallel_for(lambda block: np.einsum("bchw->bc", dy[block], out=sums[block]), blocks(dy, 1))
    return sums.sum(axis=0)


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
    if weight.shape[2] * weight.shape[3] * x.size < MIN_PARALLEL_SIZE:
        return False
    if not (pair(stride) == (1, 1) and groups == 1 and are_machine_floats(x, weight)):
        return False
    axes = zip(x.shape[2:], weight.shape[2:], pair(padding), pair(dilation), strict=True)
    return weight.shape[1] >= min(MIN_CHANNELS, len(weight) + 1) and all(itertools.starmap(all_see_some, axes))


def all_see_some(length: int, k: int, padding: int, dilation: int) -> bool:
    """Tell whether every output sees some of the map along an axis, none zeros beyond the edges alone.

    Examples
    --------
    >>> all_see_some(5, 3, 2, 1), all_see_some(5, 3, 3, 1), all_see_some(33, 3, 36, 36), all_see_some(3, 2, 4, 8)
    (True, False, True, False)
    """
    result, seen = length + 2 * padding - dilation * (k - 1), 0
    for _, outputs, _ in reversed(taps_that_reach(length, result, k, padding, dilation)):
        if outputs.start > seen:
            return False
        seen = max(seen, outputs.stop)
    return seen >= result


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
    if len(weight) < MIN_TILED_CHANNELS or weight.shape[1] < MIN_TILED_CHANNELS:
        return False
    above, beside = pair(padding)
    positions = (x.shape[2] + 2 * above - 2) * (x.shape[3] + 2 * beside - 2)
    near = pair(dilation) == (1, 1) and max(above, beside) <= 2
    if not near and pair(dilation) == (above, beside):
        positions = math.prod(x.shape[2:])
        near = math.prod(map(laid_length, x.shape[2:], pair(dilation))) <= MAX_LAID_RATIO * positions
    small_kernels = weight.shape[2:] == (3, 3) and near and x.dtype == np.float32
    large = small_kernels and positions >= MIN_TILED_POSITIONS
    return large and suits_rows(x, weight, bias, padding=padding, dilation=dilation, **options)


@conv2d.faster(suits=suits_tiles)
def conv_in_tiles(*arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve 2×2 outputs at a time; errors are those of the largest input and weight that an output sees."""
    taps = pair(options.get("padding", 0)), pair(options.get("dilation", 1))
    return by_convolution(lambda x, weight: conv3x3(x, weight, *taps), *arguments, **options)


def suits_groups(x: Array, weight: Array, bias: Array | None = None, *, groups: int = 1, **options: Any) -> bool:
    """Tell whether there are several groups, each large enough for ways of its own."""
    if groups == 1 or not are_machine_floats(x, weight):
        return False
    return suits_rows(x[:, : weight.shape[1]], weight[: len(weight) // groups], None, **options)


@conv2d.faster(suits=suits_groups)
def conv_group_by_group(
    x: Array, weight: Array, bias: Array | None = None, *, groups: int = 1, **options: Any
) -> tuple[Array, Backward]:
    """Convolve each group's channels as a map of their own: no columns are laid out."""
    cut = list(zip(cut_axis(x.shape[1], groups), cut_axis(len(weight), groups), strict=True))
    y, backs = None, []
    for some, to in cut:
        arguments = x[:, some], weight[to], None if bias is None else bias[to]
        part, back = (conv_in_tiles if suits_tiles(*arguments, **options) else conv_row_by_row)(*arguments, **options)
        y = np.empty_like(x, shape=(len(x), len(weight), *part.shape[2:]), order="C") if y is None else y
        copy_in_blocks((y[:, to], part))
        backs.append(back)

    def backward(dy):
        dx, dweight = np.empty_like(x, order="C"), np.empty_like(weight)
        for (some, to), back in zip(cut, backs, strict=True):
            dpart, dweight[to], _ = back(dy[:, to])
            copy_in_blocks((dx[:, some], dpart))
        return dx, dweight, None if bias is None else sum_by_channels(dy)

    return y, backward


@conv2d.faster(suits=suits_rows)
def conv_row_by_row(*arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve by a product for each row of the kernel, or for each column where its taps lie far apart."""
    (x, weight), *taps = arguments[:2], pair(options.get("padding", 0)), pair(options.get("dilation", 1))
    far_apart = weight.shape[3] > 1 and MAX_NEAR_TAPS * taps[1][1] > x.shape[3]
    if fits_cache(x, weight) and not far_apart:
        return if_finite(lambda *arrays: conv_by_images(*arrays, *taps), *arguments, **options)
    way = conv_by_columns if far_apart else conv_by_rows
    return by_convolution(lambda x, weight: way(x, weight, *taps), *arguments, **options)


def fits_cache(x: Array, weight: Array) -> bool:
    """Tell whether there is an image for every core that fits its cache laid out; kernels are no larger than images."""
    (batch, channels, height, width), (out, _, *kernel) = x.shape, weight.shape
    laid = kernel[1] * max(channels, out) * height * width
    return batch >= MIN_IMAGES and laid <= MAX_LAID_SIZE and math.prod(kernel) * out <= height * width


def by_convolution(
    conv: Callable[..., tuple[Array, Backward]], *arguments: Any, **options: Any
) -> tuple[Array, Backward]:
    """Convolve without a bias, and add it, in a pass of its own, as another one looks for infinities."""

    def conv_with_bias(x, weight, bias):
        y, back = conv(x, weight)
        finite = are_finite(y)
        if bias is not None:
            add_bias(y, bias)

        def backward(dy):
            gradients = back(dy)
            return are_finite(*gradients), (*gradients, None if bias is None else sum_by_channels(dy))

        return (finite, y), backward

    return if_finite(conv_with_bias, *arguments, **options)


def if_finite(conv: Callable[..., tuple[Any, Backward]], *arguments: Any, **options: Any) -> tuple[Array, Backward]:
    """Convolve; where anything is infinite, follow the definition.

    By definition infinity meets the zeros beyond the edges, which gives NaN; faster ways leave those products out, or
    take infinities off each other. As every output sees some of the map (`suits_rows`), what is infinite there, or in
    the gradient, shows in what is made of it: no other pass over them has to look for it. A kernel's tap may see zeros
    alone.

    Parameters
    ----------
    conv : callable
        ``conv(x, weight, bias)`` returns ``(finite, y), backward``, and ``backward(dy)`` returns ``finite, gradients``:
        whether all that was made is finite.
    """
    x, weight, bias = (*arguments, None)[:3]
    with np.errstate(over="ignore", invalid="ignore"):
        (finite, y), back = conv(x, weight, bias)
        finite = finite and are_finite(weight)
    if not finite:
        return conv2d.definition(*arguments, **options)

    def backward(dy):
        with np.errstate(over="ignore", invalid="ignore"):
            finite, gradients = back(dy)
        return gradients if finite else conv2d.definition(*arguments, **options)[1](dy)

    return y, backward
