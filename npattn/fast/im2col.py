"""Convolutions by matrix products of the kernels' rows with the map as it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npattn.fast.blas import add_product, multiply
from npattn.fast.blocks import MAX_PRODUCT_BLOCKS, are_machine_floats, blocks, blocks_of_each, cut_axis
from npattn.fast.products import MIN_MULTIPLICATIONS
from npattn.fast.threads import Memory, ReusedMemory, parallel_for, reusing_memory
from npattn.typing import Array, Backward

__all__ = ["conv_by_columns", "conv_by_images", "conv_by_rows", "taps_that_reach"]


def conv_by_columns(
    x: Array, weight: Array, padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Array, Backward]:
    """Convolve column by column of the kernel, each with the part of the map that it reads, by rows.

    Where the taps of a row lie far apart each reads only part of the map; by rows all of them would be multiplied with
    all columns, much of that zeros.
    """
    (*_, height, width), (out, _, *kernel) = x.shape, weight.shape
    rows, columns = (
        n + 2 * p - d * (k - 1) for n, k, p, d in zip((height, width), kernel, padding, dilation, strict=True)
    )
    y = np.zeros_like(x, shape=(len(x), out, rows, columns))
    backs = []
    for j, to, read in taps_that_reach(width, columns, kernel[1], padding[1], dilation[1]):
        some = x[..., read] if read == slice(0, width) else x[..., read].copy()  # as a product wants it
        part, back = conv_by_rows(some, weight[..., j : j + 1], (padding[0], 0), dilation)
        y[..., to] += part
        backs.append((j, to, read, back))

    def backward(dy):
        dx, dweight = np.zeros_like(x), np.zeros_like(weight)
        for j, to, read, back in backs:
            dsome, dweight[..., j : j + 1] = back(dy[..., to].copy())
            dx[..., read] += dsome
        return dx, dweight

    return y, backward


def conv_by_rows(
    x: Array, weight: Array, padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Array, Backward]:
    """Convolve by one matrix product for each row of the kernel, with stride 1 and without groups.

    What a row of the kernel reads is a run of rows of the map, which lies in memory as a product wants it. Only the
    taps along a row have to be laid out, on the side with fewer channels: those of x before the products, or else those
    of y, which the products make, and which are then added where they belong. So kw maps of the fewer channels are held
    and not kh kw maps of x, and what lies above and below the map is not multiplied.
    """
    (batch, _, *size), (out, channels, *kernel) = x.shape, weight.shape
    result = [n + 2 * p - d * (k - 1) for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)]
    rows, columns = map(taps_that_reach, size, result, kernel, padding, dilation)
    used = slice(columns[0][0], columns[-1][0] + 1) if columns else slice(0)
    lay_out_x = channels <= out
    # The products take maps of W' columns, or of W, to maps as wide: S to T channels, S = kw C or T = kw O.
    if lay_out_x:
        width, order, shape = result[1], (0, 2, 1), (out, len(columns) * channels)
        beside = [(outputs, inputs) for _, outputs, inputs in columns]
    else:
        width, order, shape = size[1], (2, 0, 1), (len(columns) * out, channels)
        beside = [(inputs, outputs) for _, outputs, inputs in columns]
    matrices = [np.ascontiguousarray(weight[:, :, i, used].transpose(order).reshape(shape)) for i, _, _ in rows]
    target_at = [slice(width * to.start, width * to.stop) for _, to, _ in rows]
    source_at = [slice(width * read.start, width * read.stop) for _, _, read in rows]

    source = (im2col_by_rows(x, beside, width) if lay_out_x else x).reshape(batch, shape[1], size[0] * width)
    target = add_products(matrices, source, source_at, target_at, (batch, shape[0], result[0] * width))
    y = target.reshape(batch, shape[0], result[0], width)
    if not lay_out_x:
        y = col2im_by_rows(y, beside, out, result[1])

    def backward(dy):
        dtarget = (dy if lay_out_x else im2col_by_rows(dy, beside, width)).reshape(target.shape)
        dsource = add_products([matrix.T for matrix in matrices], dtarget, target_at, source_at, source.shape)
        dx = dsource.reshape(batch, shape[1], size[0], width)
        if lay_out_x:
            dx = col2im_by_rows(dx, beside, channels, size[1])
        dmatrices = np.zeros_like(weight, shape=(len(rows), *shape))

        def multiply_rows(some, outputs):
            for dmatrix, to, read in zip(dmatrices[some], target_at[some], source_at[some], strict=True):
                for dt, s in zip(dtarget, source, strict=True):
                    add_product(dt[outputs, to], s[:, read].T, out=dmatrix[outputs])

        for_blocks(multiply_rows, len(rows), shape[0], [*matrices, source])
        dweight = np.zeros_like(weight)
        for (i, _, _), dmatrix in zip(rows, dmatrices, strict=True):
            laid = dweight[:, :, i, used].transpose(order)  # a view, with the axes as the matrix has them
            laid[:] = dmatrix.reshape(laid.shape)
        return dx, dweight

    return y, backward


def conv_by_images(
    x: Array, weight: Array, bias: Array | None, padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[tuple[bool, Array], Backward]:
    """Convolve as `conv_by_rows` does, one image after the other, in memory that stays in a core's cache.

    With few channels a product makes little of every number that is laid out; to write all of them to memory and to
    read them again takes as long as the products. Nothing that is laid out is held for the gradients: they need the
    gradient of y laid out, one time for those of x and of the kernels. What is done with an image besides, it takes no
    passes over memory for: its bias is added, its gradient added up, and looked whether all that was made is finite.

    Returns
    -------
    (finite, y) : bool and array
    backward : callable
        ``backward(dy)`` returns ``finite, (dx, dweight, dbias)``.
    """
    (batch, channels, *size), (out, _, *kernel) = x.shape, weight.shape
    result = [n + 2 * p - d * (k - 1) for n, k, p, d in zip(size, kernel, padding, dilation, strict=True)]
    rows, columns = map(taps_that_reach, size, result, kernel, padding, dilation)
    used = slice(columns[0][0], columns[-1][0] + 1) if columns else slice(0)
    kernels = [weight[:, :, i, used] for i, _, _ in rows]
    y = np.empty_like(x, shape=(batch, out, *result), order="C")
    flat_x, flat_y = (a.reshape(*a.shape[:2], -1) for a in (x, y))

    def columns_of(width, k):
        return [slice(width * lines[k].start, width * lines[k].stop) for _, *lines in rows]

    matrices = [np.ascontiguousarray(kernel.transpose(0, 2, 1)).reshape(out, -1) for kernel in kernels]
    forward_rows = longest_first(matrices, columns_of(result[1], 1), columns_of(result[1], 0))

    def compute(image, laying, adding):
        laid = im2col_of_image(x[image], [tap[1:] for tap in columns], result[1], laying)
        add_rows(forward_rows, laid, flat_y[image], slice(0, flat_y.shape[2]), adding)
        sums[image] = flat_y[image].sum()
        if bias is not None:
            flat_y[image] += bias[:, None]

    sums = np.empty_like(x, shape=batch)
    parallel_for(reusing_memory(compute, x, 2), range(batch), products=True)

    def backward(dy):
        dx, dsums = np.empty_like(x, order="C"), np.empty_like(x, shape=batch)
        dbiases = None if bias is None else np.empty_like(x, shape=(batch, out))
        flat_dx = dx.reshape(flat_x.shape)
        matrices = [np.ascontiguousarray(kernel.transpose(1, 2, 0)).reshape(channels, -1) for kernel in kernels]
        reads, makes = columns_of(size[1], 0), columns_of(size[1], 1)
        backward_rows = longest_first(matrices, reads, makes)
        dmatrices = np.empty_like(x, shape=(batch, len(rows), len(columns) * out, channels))

        def differentiate(image, laying, adding):
            laid = im2col_of_image(dy[image], [tap[:0:-1] for tap in columns], size[1], laying)
            add_rows(backward_rows, laid, flat_dx[image], slice(0, flat_dx.shape[2]), adding)
            dsums[image] = flat_dx[image].sum()
            if dbiases is not None:
                np.sum(dy[image], axis=(1, 2), out=dbiases[image])
            for dmatrix, to, read in zip(dmatrices[image], reads, makes, strict=True):
                multiply(laid[:, to], flat_x[image][:, read].T, out=dmatrix)

        parallel_for(reusing_memory(differentiate, x, 2), range(batch), products=True)
        dweight = np.zeros_like(weight)
        for (i, _, _), dmatrix in zip(rows, dmatrices.sum(axis=0), strict=True):
            dweight[:, :, i, used] = dmatrix.reshape(len(columns), out, channels).transpose(1, 2, 0)
        finite = bool(np.isfinite(dsums).all() and np.isfinite(dweight).all())
        return finite, (dx, dweight, None if dbiases is None else dbiases.sum(axis=0))

    return (bool(np.isfinite(sums).all()), y), backward


def im2col_of_image(image: Array, taps: Sequence[tuple[slice, slice]], width: int, memory: Memory) -> Array:
    """Lay the taps along a row beside each other, as `im2col_by_rows` does: (C, H, W) to (kw C, H width)."""
    channels, height, _ = image.shape
    laid = memory((len(taps), channels, height, width))
    for part, (to, read) in zip(laid, taps, strict=True):
        part[..., : to.start] = 0
        part[..., to.stop :] = 0
        part[..., to] = image[..., read]
    return laid.reshape(len(taps) * channels, height * width)


def taps_that_reach(size: int, result: int, k: int, padding: int, dilation: int) -> list[tuple[int, slice, slice]]:
    """List a kernel's taps along one axis that reach the map: index, the outputs that do so, what they read."""
    taps = []
    for tap in range(k):
        shift = tap * dilation - padding
        first, end = max(0, -shift), min(result, size - shift)
        if first < end:
            taps.append((tap, slice(first, end), slice(first + shift, end + shift)))
    return taps


def add_products(
    matrices: Sequence[Array],
    source: Array,
    source_at: Sequence[slice],
    target_at: Sequence[slice],
    shape: tuple[int, ...],
) -> Array:
    """Add up, each at its place, products of matrices with parts of the source: (B, S, N) to (B, T, N')."""
    target = np.empty_like(source, shape=shape)
    rows = longest_first(matrices, source_at, target_at)

    def add_up(images, some):
        memory = ReusedMemory(np.empty_like(source, shape=0))
        for image, total in zip(source[images], target[images], strict=True):
            add_rows(rows, image, total, some, memory)

    for_blocks(add_up, shape[0], shape[2], [*matrices, source])
    return target


def longest_first(
    matrices: Sequence[Array], source_at: Sequence[slice], target_at: Sequence[slice]
) -> list[tuple[Array, slice, slice]]:
    """List the rows of a kernel as `add_rows` takes them: where the first makes all numbers, none has to begin as 0."""
    return sorted(zip(matrices, source_at, target_at, strict=True), key=lambda row: row[2].start - row[2].stop)


def add_rows(
    rows: Sequence[tuple[Array, slice, slice]], source: Array, total: Array, some: slice, memory: Memory
) -> None:
    """Make some columns of an image's total: the sum of all rows' products with what they read of the source.

    `memory` gives room for a product that is too small to be added within BLAS.
    """
    whole = bool(rows) and rows[0][2].start <= some.start and some.stop <= rows[0][2].stop
    if not whole:
        total[:, some] = 0
    for number, (matrix, read, to) in enumerate(rows):
        start, stop = max(to.start, some.start), min(to.stop, some.stop)
        if start < stop:
            shift = read.start - to.start
            part, to_part = source[:, start + shift : stop + shift], total[:, start:stop]
            if whole and number == 0:
                multiply(matrix, part, out=to_part)
            else:
                add_product(matrix, part, to_part, memory)


def for_blocks(work: Callable[[slice, slice], None], count: int, length: int, factors: Sequence[Array]) -> None:
    """Call ``work(some, block)`` for some of `count` results, and for blocks of their length if factors are large."""
    if not are_machine_floats(*factors):
        work(slice(0, count), slice(0, length))
        return
    *matrices, maps = factors
    large = sum(matrix.size for matrix in matrices) * maps.size // max(1, maps.shape[-2]) >= MIN_MULTIPLICATIONS
    each = blocks_of_each(count, MAX_PRODUCT_BLOCKS) if large else 1
    several = 1 if large else max(1, count)
    cut = [(slice(i, i + several), block) for i in range(0, count, several) for block in cut_axis(length, each)]
    parallel_for(lambda both: work(*both), cut, products=True)


def im2col_by_rows(x: Array, taps: Sequence[tuple[slice, slice]], width: int) -> Array:
    """Lay the taps along a row beside each other, with zeros beyond the ends: (B, C, H, W) to (B, kw C, H, width).

    `taps` holds a pair of slices for every tap: columns of the result, columns of x.
    """
    batch, channels, height, _ = x.shape
    if taps == [(slice(0, width), slice(0, x.shape[3]))]:
        return x
    laid = np.zeros_like(x, shape=(batch, len(taps), channels, height, width))

    def lay(block):
        images, some = block
        for j, (to, read) in enumerate(taps):
            laid[images, j, some, :, to] = x[block][..., read]

    parallel_for(lay, blocks(x, 1))
    return laid.reshape(batch, len(taps) * channels, height, width)


def col2im_by_rows(laid: Array, taps: Sequence[tuple[slice, slice]], channels: int, width: int) -> Array:
    """Add every tap back to where it was read: the adjoint of `im2col_by_rows`."""
    batch, _, height, wide = laid.shape
    if taps == [(slice(0, width), slice(0, wide))]:
        return laid
    by_taps = laid.reshape(batch, len(taps), channels, height, wide)
    x = np.zeros_like(laid, shape=(batch, channels, height, width))

    def collect(block):
        images, some = block
        for j, (to, read) in enumerate(taps):
            x[block][..., read] += by_taps[images, j, some, :, to]

    parallel_for(collect, blocks(x, 1))
    return x
