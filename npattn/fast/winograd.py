"""3×3 convolutions with fewer multiplications: Winograd's minimal filtering, for large maps of plain numbers."""

from __future__ import annotations

import itertools

import numpy as np

from npattn.fast.blas import multiply, serial_product
from npattn.fast.blocks import cut_axis
from npattn.fast.threads import parallel_for
from npattn.ops.products import product
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
OUTPUT = (np.add, None), (np.add, np.add), (np.add, np.subtract), (None, np.subtract)
"""Aᵀ, column by column: how each of four products goes into two outputs."""


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
    (_, channels, *size), out = x.shape, len(weight)
    result = [n + 2 * p - 2 for n, p in zip(size, padding, strict=True)]
    transform = np.kron(KERNEL, KERNEL).astype(weight.dtype)  # of a kernel as a row of nine
    kernels = product(transform, weight.reshape(-1, 9).T).reshape(4, 4, out, channels)
    planes = deal(x, padding, result)
    y = slide(planes, kernels, result)

    def backward(dy):
        # An input is read by the outputs around it through the kernel's mirror image.
        mirrored = [[kernels[i, j].T for j in MIRRORED] for i in MIRRORED]
        dx = slide(deal(dy, [2 - p for p in padding], size), mirrored, size)
        dkernels = correlate(planes, dy).reshape(16, -1)
        return dx, product(transform.T, dkernels).T.reshape(weight.shape)

    return y, backward


def deal(x, padding, result):
    """Deal the padded map out by even and odd rows and columns: (B, C, H, W) to (2, 2, B, C, (h + 1)(w + 1) + 1).

    There are h × w tiles. Neighbours of a plane are two apart in the map, as tiles are; so what all tiles read with
    one of their 4×4 inputs lies in a row, from t = r (w + 1) + c on for the tile in row r and column c. Tiles in column
    w are none: what comes of them is left out, and the last number is there for them to read.
    """
    height, width = (n // 2 + n % 2 + 1 for n in result)
    planes = np.zeros_like(x, shape=(2, 2, *x.shape[:2], height * width + 1), order="C")
    maps = planes[..., :-1].reshape(*planes.shape[:-1], height, width)
    rows, columns = (list(lines(n, p)) for n, p in zip(x.shape[2:], padding, strict=True))
    # One core is as quick at strided copies as two.
    for (i, (to, own)), (j, (beside, read)) in itertools.product(enumerate(rows), enumerate(columns)):
        maps[i, j][..., to, beside] = x[..., own, read]
    return planes


def lines(size, padding):
    """Name, for even and for odd lines of a padded map, those that lie on the map: where in the plane, where in x."""
    for parity in range(2):
        first = (parity - padding) % 2
        start = (first + padding) // 2
        yield slice(start, start + len(range(first, size, 2))), slice(first, size, 2)


def slide(planes, kernels, result):
    """Make the outputs of all tiles: transform tiles, multiply, transform back."""
    (_, _, batch, channels, _), out = planes.shape, len(kernels[0][0])
    height, across = -(-result[0] // 2), -(-result[1] // 2) + 1
    y = np.empty_like(planes, shape=(batch, out, *result), order="C")

    def compute(block):
        image, some = block
        first, count = some.start * across, (some.stop - some.start) * across
        rows, tiles, products, halves, quarters = (
            np.empty_like(planes, shape=shape, order="C")
            for shape in (
                (2, channels, count + 1),
                (channels, count),
                (out, count),
                (2, out, count),
                (2, 2, out, count),
            )
        )
        quarters[:] = 0
        for i in range(4):
            combine(planes[:, :, image], i, across, first, rows)
            halves[:] = 0
            for j in range(4):
                combine(rows, j, 1, 0, tiles)
                multiply(kernels[i][j], tiles, out=products)
                add(products, j, halves)
            add(halves, i, quarters)
        quarters = quarters.reshape(2, 2, out, -1, across)
        for i, j in np.ndindex(2, 2):
            every_second = y[image, :, 2 * some.start + i : 2 * some.stop : 2, j::2]
            every_second[:] = quarters[i, j][:, : every_second.shape[1], : every_second.shape[2]]

    parts = cut(height, max(out, channels) * height * across)
    parallel_for(compute, list(itertools.product(range(batch), parts)), products=True)
    return y


def correlate(planes, dy):
    """Make the gradients of the transformed kernels: (4, 4, O, C)."""
    (_, _, batch, channels, _), (_, out, *size) = planes.shape, dy.shape
    height, across = -(-size[0] // 2), -(-size[1] // 2) + 1
    dproducts = np.empty_like(planes, shape=(4, 4, batch, out, height * across), order="C")
    dkernels = np.zeros_like(planes, shape=(4, 4, channels, out), order="C")

    quarters = np.zeros_like(planes, shape=(2, 2, batch, out, height, across), order="C")
    for i, j in np.ndindex(2, 2):
        every_second = dy[..., i::2, j::2]
        quarters[i, j, ..., : every_second.shape[2], : every_second.shape[3]] = every_second
    halves = np.empty_like(planes, shape=(4, 2, *dproducts.shape[2:]), order="C")
    distribute(quarters.reshape(halves[:2].shape), halves)
    for half, dproduct in zip(halves, dproducts, strict=True):
        distribute(half, dproduct)

    def compute(some):
        rows = np.empty_like(planes, shape=(2, some.stop - some.start, height * across + 1), order="C")
        tiles = np.empty_like(rows[0, :, 1:], order="C")
        for image in range(batch):
            for i in range(4):
                combine(planes[:, :, image, some], i, across, 0, rows)
                for j in range(4):
                    combine(rows, j, 1, 0, tiles)
                    dkernels[i, j, some] += serial_product(tiles, dproducts[i, j, image].T)

    parallel_for(compute, cut(channels, channels * height * across), products=True)
    return dkernels.swapaxes(2, 3)


def combine(pair, number, apart, first, out):
    """Make one of the four numbers of all tiles along an axis, from even and odd lines: two rows of Bᵀ x."""
    ufunc, *inputs = INPUT[number]
    starts = [first + k // 2 * apart for k in inputs]
    one, other = (pair[k % 2][..., start : start + out.shape[-1]] for k, start in zip(inputs, starts, strict=True))
    ufunc(one, other, out=out)


def add(product, number, pair):
    """Add one of four products to the two outputs along an axis, as Aᵀ says."""
    for output, ufunc in zip(pair, OUTPUT[number], strict=True):
        if ufunc:
            ufunc(output, product, out=output)


def distribute(pair, out):
    """Make the gradients of four products from those of two outputs: the adjoint of `add`."""
    out[0] = pair[0]
    np.add(pair[0], pair[1], out=out[1])
    np.subtract(pair[0], pair[1], out=out[2])
    np.negative(pair[1], out=out[3])


def cut(length, numbers):
    """Cut an axis of a map of so many numbers into an even number of parts that stay in a core's cache."""
    return cut_axis(length, 2 * -(-numbers // (2 * CACHED)))
