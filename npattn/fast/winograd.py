"""3×3 convolutions with fewer multiplications: Winograd's minimal filtering, for large maps of plain numbers."""

from __future__ import annotations

import itertools

import numpy as np

from npattn.fast.blas import add_product, multiply
from npattn.fast.blocks import MAX_PRODUCT_BLOCKS, NUM_BLOCKS, cut_axis
from npattn.fast.threads import parallel_for
from npattn.typing import Array, Backward

__all__ = ["conv3x3"]

CACHED = 2**18
"""Numbers of a map that are transformed and multiplied at a time, about: few enough to stay in a core's cache."""
KERNEL = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2
"""G: four numbers of a kernel's three."""
MIRRORED = [3, 1, 2, 0]
"""Where G has the four numbers of the mirrored kernel."""
INPUT = (np.subtract, 0, 2), (np.add, 1, 2), (np.subtract, 2, 1), (np.subtract, 1, 3)
"""Bᵀ: four numbers of four inputs, each from two of them."""
OUTPUT = (None, None), (np.add, None), (np.add, np.subtract), (None, np.subtract)
"""Aᵀ, column by column: how each of four products goes into two outputs, of which the first two are the beginning."""


def conv3x3(x: Array, weight: Array, padding: tuple[int, int]) -> tuple[Array, Backward]:
    """Slide 3×3 kernels over a map, 2×2 outputs at a time: y = Aᵀ [Σ_c (G w_c Gᵀ) ⊙ (Bᵀ x_c B)] A.

    A tile of 4×4 inputs makes 2×2 outputs, by 16 multiplications for each channel instead of 36: kernel and tile are
    transformed by sums, multiplied element by element, and transformed back. Over all channels and tiles, each of the
    16 is a product of matrices.

    Parameters
    ----------
    x : array, (B, C, H, W)
    weight : array, (O, C, 3, 3)
    padding : pair of int
        At most 2: beyond that, outputs see nothing of the map.

    Returns
    -------
    y : array, (B, O, H + 2p - 2, W + 2p - 2)
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
    result = [n + 2 * p - 2 for n, p in zip(size, padding, strict=True)]
    transform = np.kron(KERNEL, KERNEL).astype(weight.dtype)  # of a kernel as a row of nine
    kernels = np.empty_like(weight, shape=(4, 4, out, channels), order="C")
    rows, columns = weight.reshape(-1, 9), kernels.reshape(16, -1)
    parts = cut_axis(len(rows), NUM_BLOCKS)
    parallel_for(lambda part: multiply(transform, rows[part].T, out=columns[:, part]), parts, products=True)
    images = images_together(batch, max(channels, out), result)
    planes = deal(x, padding, result, out, images)
    y = slide(planes, kernels, result, images)

    def backward(dy):
        # An input is read by the outputs around it through the kernel's mirror image.
        mirrored = [[kernels[i, j].T for j in MIRRORED] for i in MIRRORED]
        together = images_together(batch, max(channels, out), size)
        dx = slide(deal(dy, [2 - p for p in padding], size, channels, together), mirrored, size, together)
        dkernels, drows = correlate(planes, dy, images, -(-MAX_PRODUCT_BLOCKS // 4)), np.empty_like(rows, order="C")
        dcolumns = dkernels.reshape(16, -1)
        parallel_for(lambda part: multiply(dcolumns[:, part].T, transform, out=drows[part]), parts, products=True)
        return dx, drows.reshape(weight.shape)

    return y, backward


def images_together(batch, channels, result):
    """Say how many small maps of so many channels are taken at a time: the more, the longer are sums and products."""
    height, across = (n // 2 + n % 2 for n in result)
    numbers = channels * (height + 1) * (across + 1)
    fitting = [n for n in range(1, batch + 1) if batch % n == 0 and n * numbers <= CACHED]
    return max((n for n in fitting if batch >= n * MAX_PRODUCT_BLOCKS), default=1)


def deal(x, padding, result, channels=0, images=1):
    """Deal the padded map out by even and odd rows and columns: (B, C, H, W) to (2, 2, S B, C, (h + 1)(w + 1)).

    A map of h × w tiles is cut into S strips of rows of tiles, few enough that a strip of so many channels stays in a
    core's cache. Neighbours of a plane are two apart in the map, as tiles are; so what all tiles of a strip read with
    one of their 4×4 inputs lies in a row, from t = r (w + 1) + c on for the tile in row r and column c. Tiles in column
    w are none, nor those in row h: what comes of them is left out. Where several images make one strip, their rows of
    tiles follow each other.
    """
    batch, own, *size = x.shape
    height, across = (n // 2 + n % 2 for n in result)
    parts = cut(height, max(own, channels) * height * (across + 1)) if images == 1 else [slice(0, height)]
    tall, strips = parts[0].stop + 1, batch // images
    planes = np.empty_like(x, shape=(2, 2, len(parts), strips, own, images, tall, across + 1), order="C")
    maps = x.reshape(strips, images, own, *size).swapaxes(1, 2)
    columns = list(lines(size[1], padding[1], 0, across + 1))

    def fill(block):
        part, strip = block
        planes[:, :, part, strip] = 0
        first = parts[part].start
        rows = lines(size[0], padding[0], first, first + tall)
        for (i, (to, read)), (j, (beside, along)) in itertools.product(enumerate(rows), enumerate(columns)):
            planes[i, j, part, strip][..., to, beside] = maps[strip][..., read, along]

    parallel_for(fill, list(np.ndindex(len(parts), strips)))
    return planes.reshape(2, 2, len(parts) * strips, own, images * tall * (across + 1))


def lines(size, padding, first, end):
    """Name, for even and for odd lines of a padded map, those from one to another that lie on the map: which, where."""
    for parity in range(2):
        shift = parity - padding
        start = max(first, -(shift // 2))
        stop = max(start, min(end, (size - shift + 1) // 2))
        yield slice(start - first, stop - first), slice(2 * start + shift, 2 * stop + shift, 2)


def slide(planes, kernels, result, images=1):
    """Make the outputs of all tiles: transform tiles, multiply, transform back."""
    (_, _, strips, channels, length), out = planes.shape, len(kernels[0][0])
    across = -(-result[1] // 2) + 1
    height, count = length // across // images - 1, length - across
    y = np.empty_like(planes, shape=(images * strips // -(-result[0] // (2 * height)), out, *result), order="C")

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
        for image, i, j in np.ndindex(images, 2, 2):
            every_second = outputs(y, strip, height, images)[image, :, i::2, j::2]
            every_second[:] = tiles_of(quarters[i, j], image, height, across, every_second.shape)

    parallel_for(compute, range(strips), products=True)
    return y


def correlate(planes, dy, images=1, parts=1):
    """Make the gradients of the transformed kernels: (4, 4, O, C).

    A row of the sixteen, or a part of one, is made at a time, strip by strip: what its products take stays in a core's
    cache.
    """
    (_, _, strips, channels, length), out = planes.shape, dy.shape[1]
    across = -(-dy.shape[3] // 2) + 1
    quarters = deal_outputs(dy, strips, length // across // images - 1, images)
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


def deal_outputs(dy, strips, height, images):
    """Deal the gradients of outputs out by even and odd rows and columns, as `deal`: (2, 2, S B, O, h (w + 1))."""
    out, across = dy.shape[1], -(-dy.shape[3] // 2) + 1
    count = (images * (height + 1) - 1) * across
    quarters = np.empty_like(dy, shape=(2, 2, strips, out, count), order="C")

    def fill(strip):
        quarters[:, :, strip] = 0
        for image, i, j in np.ndindex(images, 2, 2):
            every_second = outputs(dy, strip, height, images)[image, :, i::2, j::2]
            tiles_of(quarters[i, j, strip], image, height, across, every_second.shape)[...] = every_second

    parallel_for(fill, range(strips))
    return quarters


def outputs(y, strip, height, images):
    """Take what the tiles of a strip make of maps: of a part of one, or of several."""
    part, first = divmod(strip, len(y) // images)
    return y[first * images : (first + 1) * images, :, 2 * height * part : 2 * height * (part + 1)]


def tiles_of(numbers, image, height, across, shape):
    """Find those of a strip's numbers that belong to the tiles of one image that are any, as rows and columns."""
    first = image * (height + 1) * across
    rows = numbers[:, first : first + height * across].reshape(len(numbers), height, across)  # a view
    return rows[:, : shape[1], : shape[2]]


def combine(pair, number, apart, out):
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


def add(product, number, pair):
    """Add one of four products to the two outputs along an axis, as Aᵀ says."""
    for output, ufunc in zip(pair, OUTPUT[number], strict=True):
        if ufunc:
            ufunc(output, product, out=output)


def distribute(pair, number, out):
    """Make the gradient of one of four products from those of two outputs: the adjoint of `add`."""
    if number == 0:
        out[...] = pair[0]
    elif number == 3:
        np.negative(pair[1], out=out)
    else:
        (np.add if number == 1 else np.subtract)(*pair, out=out)


def cut(length, numbers):
    """Cut an axis of a map of so many numbers into an even number of parts that stay in a core's cache."""
    return cut_axis(length, 2 * -(-numbers // (2 * CACHED)))
