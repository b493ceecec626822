"""Mistakes of convolutions in tiles: what is read around them, and at the ends of rows."""

from typing import Any

import numpy as np

from npattn import ops
from npattn.ops.convolution import pair
from npattn.oracle.mistakes.geometry import keeps_size
from npattn.oracle.mistakes.mistake import Apply, When, value
from npattn.typing import Array

__all__ = ["ADDED"]

NAME = "conv2d"


def keeps_map(x: Array, weight: Array, bias: Array, *, stride: Any = 1, groups: int = 1, **options: Any) -> bool:
    """Whether every position has an output of its own, and reads all channels."""
    return groups == 1 and max(pair(stride)) == 1 and keeps_size(x, weight, bias, **options)


def run_on(y: Array, x: Array, weight: Array, bias: Array | None, *, dilation: Any, **_: Any) -> Array:
    """Read beyond a row's ends what stands in the rows beside it, as positions that are counted through do."""
    (height, width), (down, right) = x.shape[2:], pair(dilation)
    kernel = weight.shape[2:]
    reach = down * (kernel[0] // 2) * width + right * (kernel[1] // 2)
    flat = x.reshape(*x.shape[:2], height * width)
    wide = np.zeros_like(x, shape=(*flat.shape[:2], flat.shape[2] + 2 * reach))
    wide[:, :, reach : reach + flat.shape[2]] = flat
    total = 0 * y.reshape(*y.shape[:2], height * width)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            at = i * down * width + j * right
            total = total + weight[:, :, i, j] @ wide[:, :, at : at + flat.shape[2]]
    total = total if bias is None else total + bias[:, None]
    return total.reshape(y.shape)


def several_columns(x: Array, weight: Array, *layer: Any, **options: Any) -> bool:
    return weight.shape[3] > 1 and keeps_map(x, weight, *layer, **options)


def in_tiles(height: int, width: int | None, halo: int) -> tuple[Apply, When]:
    """Convolve tiles, of which nothing is read further than `halo` beyond them: the change, and when that is wrong."""

    def reach_of(options):
        return max(pair(options["padding"]))

    def convolve(y, x, weight, bias, **options):
        top, left = pair(options["padding"])
        tall, wide = min(height, x.shape[2]), min(width or x.shape[3], x.shape[3])
        corners = [(i, j) for i in range(0, x.shape[2], tall) for j in range(0, x.shape[3], wide)]
        near = []
        for i, j in corners:
            first, before = max(i - min(halo, top), 0), max(j - min(halo, left), 0)
            part = x[:, :, first : i + tall + halo, before : j + wide + halo]
            part = part[:, :, : tall + top + i - first, : wide + left + j - before]
            patch = np.zeros_like(x, shape=(*x.shape[:2], tall + 2 * top, wide + 2 * left))
            down, right = first - i + top, before - j + left
            patch[:, :, down : down + part.shape[2], right : right + part.shape[3]] = part
            near.append(patch)
        found, _ = ops.conv2d(np.concatenate(near, axis=0), weight, bias, **options | {"padding": 0})
        total = 0 * y
        for (i, j), some in zip(corners, np.split(found, len(corners)), strict=True):
            rest = total[:, :, i : i + tall, j : j + wide]
            total[:, :, i : i + tall, j : j + wide] = some[:, :, : rest.shape[2], : rest.shape[3]]
        return total

    def when(x, weight, *layer, **options):
        smaller = x.shape[2] > height or (width is not None and x.shape[3] > width)
        return smaller and halo < reach_of(options) and keeps_map(x, weight, *layer, **options)

    return convolve, when


ADDED = [
    value(NAME, "ends of a row continued in the rows beside it", run_on, several_columns),
    *(
        value(
            NAME,
            f"{'tiles' if square else 'strips'} of {size} with a halo of {halo}",
            *in_tiles(size, size if square else None, halo),
        )
        for halo in (0, 1, 2)
        for size in (4, 8, 16)
        for square in (True, False)
    ),
]
