"""3×3 convolutions with fewer multiplications: Winograd's minimal filtering, for large maps of plain numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from npattn.fast.blas import add_product, multiply
from npattn.fast.blocks import MAX_PRODUCT_BLOCKS, NUM_BLOCKS, cut_axis
from npattn.fast.threads import parallel_for
from npattn.typing import Array, Backward

__all__ = ["conv3x3", "laid_length"]

MAX_CACHED_SIZE = 2**18
"""Numbers of a map that are transformed and multiplied at a time, about: few enough to stay in a core's cache."""
KERNEL = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
"""G: four numbers of a kernel's three."""
MIRRORED = [3, 1, 2, 0]
"""Where G has the four numbers of the mirrored kernel."""
INPUT: tuple[tuple[Any, ...], ...] = (np.subtract, 0, 2), (np.add, 1, 2), (np.subtract, 2, 1), (np.subtract, 1, 3)
"""Bᵀ: four numbers of four inputs, each from two of them."""
OUTPUT: tuple[tuple[Any, ...], ...] = (None, None), (np.add, None), (np.add, np.subtract), (None, np.subtract)
"""Aᵀ, column by column: how each of four products goes into two outputs, of which the first two are the beginning."""


def conv3x3(
    x: Array, weight: Array, padding: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[Array, Backward]:
    """Slide 3×3 kernels over a map, 2×2 outputs at a time: y = Aᵀ [Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B)] A.

    A tile of 4×4 inputs makes 2×2 outputs, by 16 multiplications for each channel instead of 36: kernel and tile are
    transformed by sums, multiplied element by element, and transformed back. Over all channels and tiles, each of the
    16 is a product of matrices.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight : array, (O, C, 3, 3)
    padding : pair of int
        At most 2: beyond that, outputs see nothing of the map. With a dilation, the dilation.
    dilation : pair of int

    Returns
    -------
    y : array, (B, O, H + 2p - 2d, W + 2p - 2d)
    backward : callable
        ``backward(dy)`` returns ``(dx, dweight)``.

    Notes
    -----
    Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4.1, F(2×2, 3×3). Rounding errors
    grow with the largest input and the largest weight that an output sees, not with each product: where inputs differ
    widely, small outputs have fewer digits. Where an output sees an infinity it may be NaN. ``derivations/winograd.md``
    derives all steps.

    Examples
    --------
    >>> y, backward = conv3x3(np.arange(16.0).reshape(1, 1, 4, 4), np.ones((1, 1, 3, 3)), (0, 0))
    >>> y
    array([[[[45., 54.],
             [81., 90.]]]])
    >>> dx, dweight = backward(np.ones((1, 1, 2, 2)))
    >>> dweight
    array([[[[10., 14., 18.],
             [26., 30., 34.],
             [42., 46., 50.]]]])
    """
    (batch, channels, *size), out = x.shape, len(weight)
    result = [n + 2 * p - 2 * d for n, p, d in zip(size, padding, dilation, strict=True)]
    border = [p // d for p, d in zip(padding, dilation, strict=True)]  # zeros in a map of every d-th line
    transform = np.kron(KERNEL, KERNEL).astype(weight.dtype)  # of a kernel as a row of nine
    kernels = np.empty_like(weight, shape=(4, 4, out, channels), order="C")
    rows, columns = weight.reshape(-1, 9), kernels.reshape(16, -1)
    cut = cut_axis(len(rows), NUM_BLOCKS)
    parallel_for(lambda block: multiply(transform, rows[block].T, out=columns[:, block]), cut, products=True)
    images = images_together(batch, max(channels, out), result, dilation)
    planes = gather_planes(x, border, result, dilation, channels=out, images=images)
    y = convolve_planes(planes, kernels, result, dilation, images)

    def backward(dy):
        # An input is read by the outputs around it through the kernel's mirror image.
        mirrored = [[kernels[i, j].T for j in MIRRORED] for i in MIRRORED]
        together = images_together(batch, max(channels, out), size, dilation)
        rest = [2 - p for p in border]
        dplanes = gather_planes(dy, rest, size, dilation, channels=channels, images=together)
        dx = convolve_planes(dplanes, mirrored, size, dilation, together)
        dkernels = correlate(planes, dy, dilation, images, -(-MAX_PRODUCT_BLOCKS // 4))
        drows = np.empty_like(rows, order="C")
        dcolumns = dkernels.reshape(16, -1)
        parallel_for(lambda block: multiply(dcolumns[:, block].T, transform, out=drows[block]), cut, products=True)
        return dx, drows.reshape(weight.shape)

    return y, backward


def images_together(batch: int, channels: int, result: Sequence[int], dilation: tuple[int, int] = (1, 1)) -> int:
    """Say how many small maps of so many channels are taken at a time: the more, the longer are sums and products."""
    height, across = map(count_tiles, result, dilation)
    numbers = channels * (height + 1) * (across + 1)
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and n * numbers <= MAX_CACHED_SIZE]
    return max((n for n in fitting if batch >= n * MAX_PRODUCT_BLOCKS), default=1)


def laid_length(length: int, dilation: int) -> int:
    """Count the lines of d maps that have every d-th line each, beside each other with a line of zeros in between."""
    return dilation * (-(-length // dilation) + 1) - 1


def count_tiles(length: int, dilation: int) -> int:
    """Count the tiles along an axis that make so many outputs."""
    return -(-laid_length(length, dilation) // 2)


def gather_planes(
    x: Array,
    padding: Sequence[int],
    result: Sequence[int],
    dilation: tuple[int, int] = (1, 1),
    *,
    channels: int = 0,
    images: int = 1,
) -> Array:
    """Gather the padded map by even and odd rows and columns: (B, C, H, W) to (2, 2, S B, C, (h + 1)(w + 1)).

    A map of h × w tiles is cut into S strips of rows of tiles, few enough that a strip of so many channels stays in a
    core's cache. Neighbours of a plane are two apart in the map, as tiles are; so what all tiles of a strip read with
    one of their 4×4 inputs lies in a row, from t = r (w + 1) + c on for the tile in row r and column c. Tiles in column
    w are none, nor those in row h: what comes of them is left out. Where several images make one strip, their rows of
    tiles follow each other.

    Kernels with taps d apart see every d-th row and column: d² maps that do not see each other. They are gathered as if
    they lay beside each other, with a line of zeros in between, as one map.
    """
    batch, own, *size = x.shape
    height, across = map(count_tiles, result, dilation)
    parts = cut_strips(height, max(own, channels) * height * (across + 1)) if images == 1 else [slice(0, height)]
    tall, strips = parts[0].stop + 1, batch // images
    planes = np.empty_like(x, shape=(2, 2, len(parts), strips, own, images, tall, across + 1), order="C")
    maps = x.reshape(strips, images, own, *size).swapaxes(1, 2)
    columns = list_lines(size[1], dilation[1], padding[1], 0, across + 1)

    def fill(block):
        part, strip = block
        planes[:, :, part, strip] = 0
        rows = list_lines(size[0], dilation[0], padding[0], parts[part].start, parts[part].start + tall)
        for i, j in np.ndindex(2, 2):
            for (to, read), (beside, along) in itertools.product(rows[i], columns[j]):
                planes[i, j, part, strip][..., to, beside] = maps[strip][..., read, along]

    parallel_for(fill, list(np.ndindex(len(parts), strips)))
    return planes.reshape(2, 2, len(parts) * strips, own, images * tall * (across + 1))


def list_lines(size: int, dilation: int, padding: int, first: int, end: int) -> list[list[tuple[slice, slice]]]:
    """List, for even and for odd lines of a padded map, those from one to another that lie on the map: which, where.

    With a dilation they are those of d maps beside each other, each of which has every d-th line.

    Examples
    --------
    >>> list_lines(5, 1, 1, 0, 3)  # the even lines are the padding, 1 and 3, the odd ones 0, 2 and 4
    [[(slice(1, 3, None), slice(1, 5, 2))], [(slice(0, 3, None), slice(0, 6, 2))]]
    """
    step = -(-size // dilation) + 1
    found: list[list[tuple[slice, slice]]] = [[], []]
    for parity, begin in itertools.product(range(2), range(dilation)):
        shift, count = parity - padding - begin * step, len(range(begin, size, dilation))
        start, stop = max(first, -(shift // 2)), min(end, (count - shift + 1) // 2)
        if start < stop:
            read = slice(begin + dilation * (2 * start + shift), begin + dilation * (2 * stop + shift), 2 * dilation)
            found[parity].append((slice(start - first, stop - first), read))
    return found


def convolve_planes(
    planes: Array,
    kernels: Sequence[Any] | Array,
    result: Sequence[int],
    dilation: tuple[int, int] = (1, 1),
    images: int = 1,
) -> Array:
    """Make the outputs of all tiles: transform tiles, multiply, transform back."""
    (_, _, strips, channels, length), out = planes.shape, len(kernels[0][0])
    tiles_down, across = count_tiles(result[0], dilation[0]), count_tiles(result[1], dilation[1]) + 1
    height, count = length // across // images - 1, length - across
    y = np.empty_like(planes, shape=(images * strips // -(-tiles_down // height), out, *result), order="C")

    def compute(strip):
        rows, tiles, other_products, other_halves, quarters = (
            np.empty_like(planes, shape=shape, order="C")
            for shape in (
                (2, channels, length),
                (channels, length),
                (out, count),
                (2, out, count),
                (2, 2, out, count),
            )
        )
        for i, halves in enumerate([*quarters, other_halves, other_halves]):
            combine(planes[:, :, strip], i, across, rows)
            for j, products in enumerate([*halves, other_products, other_products]):
                combine(rows, j, 1, tiles)
                multiply(kernels[i][j], tiles[:, :count], out=products)
                add(products, j, halves)
            add(halves, i, quarters)
        for outputs, made in outputs_of_tiles(y, quarters, strip, height, dilation=dilation, images=images):
            outputs[...] = made

    parallel_for(compute, range(strips), products=True)
    return y


def correlate(planes: Array, dy: Array, dilation: tuple[int, int] = (1, 1), images: int = 1, parts: int = 1) -> Array:
    """Make the gradients of the transformed kernels: (4, 4, O, C).

    A row of the sixteen, or a part of one, is made at a time, strip by strip: what its products take stays in a core's
    cache.
    """
    (_, _, strips, channels, length), out = planes.shape, dy.shape[1]
    across = count_tiles(dy.shape[3], dilation[1]) + 1
    quarters = gather_outputs(dy, strips, length // across // images - 1, dilation, images)
    count = length - across
    dkernels = np.zeros_like(planes, shape=(4, 4, out, channels), order="C")

    def compute(block):
        i, some = block
        rows, tiles, halves, dproducts = (
            np.empty_like(planes, shape=(*lead, numbers), order="C")
            for lead, numbers in (((2, channels), length), ((channels,), length), ((2, out), count), ((out,), count))
        )
        for strip in range(strips):
            distribute(quarters[:, :, strip], i, halves)
            combine(planes[:, :, strip], i, across, rows)
            for j in range(4)[some]:
                distribute(halves, j, dproducts)
                combine(rows, j, 1, tiles)
                add_product(dproducts, tiles[:, :count].T, out=dkernels[i, j])

    parallel_for(compute, list(itertools.product(range(4), cut_axis(4, parts))), products=True)
    return dkernels


def gather_outputs(dy: Array, strips: int, height: int, dilation: tuple[int, int], images: int) -> Array:
    """Gather the gradients of outputs by even and odd rows and columns: (2, 2, S B, O, h (w + 1))."""
    out, across = dy.shape[1], count_tiles(dy.shape[3], dilation[1]) + 1
    count = (images * (height + 1) - 1) * across
    quarters = np.empty_like(dy, shape=(2, 2, strips, out, count), order="C")

    def fill(strip):
        quarters[:, :, strip] = 0
        for outputs, made in outputs_of_tiles(
            dy, quarters[:, :, strip], strip, height, dilation=dilation, images=images
        ):
            made[...] = outputs

    parallel_for(fill, range(strips))
    return quarters


def outputs_of_tiles(
    y: Array, quarters: Array, strip: int, height: int, *, dilation: tuple[int, int], images: int
) -> Iterator[tuple[Array, Array]]:
    """Pair outputs, where they stand in maps, with what the tiles of a strip, (2, 2, O, h (w + 1)), make: views."""
    part, group = divmod(strip, len(y) // images)
    across = count_tiles(y.shape[3], dilation[1]) + 1
    rows = list_lines(y.shape[2], dilation[0], 0, height * part, height * (part + 1))
    columns = list_lines(y.shape[3], dilation[1], 0, 0, across)
    for image, i, j in np.ndindex(images, 2, 2):
        start = image * (height + 1) * across
        tiles = quarters[i, j][:, start : start + height * across].reshape(-1, height, across)
        for (to, read), (beside, along) in itertools.product(rows[i], columns[j]):
            yield y[group * images + image, :, read, along], tiles[:, to, beside]


def combine(pair: Array, number: int, apart: int, out: Array) -> None:
    """Make one of the four numbers of all tiles along an axis, from even and odd lines: two rows of Bᵀ x.

    Channels lie one behind the other, so that it is one long sum. What lies behind the last, of tiles that are none, is
    set to 0.
    """
    ufunc, *inputs = INPUT[number]
    pair, out = pair.reshape(*pair.shape[:-2], -1), out.reshape(*out.shape[:-2], -1)
    starts, count = [k // 2 * apart for k in inputs], out.shape[-1] - apart
    one, other = (pair[k % 2][..., start : start + count] for k, start in zip(inputs, starts, strict=True))
    ufunc(one, other, out=out[..., :count])
    out[..., count:] = 0


def add(product: Array, number: int, pair: Array) -> None:
    """Add one of four products to the two outputs along an axis, as Aᵀ says."""
    for output, ufunc in zip(pair, OUTPUT[number], strict=True):
        if ufunc:
            ufunc(output, product, out=output)


def distribute(pair: Array, number: int, out: Array) -> None:
    """Make the gradient of one of four products from those of two outputs: the adjoint of `add`."""
    if number == 0:
        out[...] = pair[0]
    elif number == 3:
        np.negative(pair[1], out=out)
    else:
        (np.add if number == 1 else np.subtract)(pair[0], pair[1], out=out)


def cut_strips(length: int, numbers: int) -> list[slice]:
    """Cut an axis of a map of so many numbers into an even number of parts that stay in a core's cache."""
    return cut_axis(length, 2 * -(-numbers // (2 * MAX_CACHED_SIZE)))
