"""Large maps rolled and cut into windows, copied on all cores."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import blocks, is_large
from npattn.fast.joining import copy_block
from npattn.fast.threads import parallel_for
from npattn.ops.partitioning import cyclic_shift, window_partition
from npattn.typing import Array, Backward


@cyclic_shift.faster(suits=lambda x, shift: is_large(x))
def cyclic_shift_in_blocks(x: Array, shift: tuple[int, int]) -> tuple[Array, Backward]:
    """Copy all rows of a channel as one, and then what comes round an edge."""
    return roll(x, shift), lambda dy: roll(dy, (-shift[0], -shift[1]))


def roll(x: Array, shift: tuple[int, int]) -> Array:
    """Move a map up and to the left, round its edges.

    Seen as one row, a channel moves by some rows and columns at once. So the columns that stay together come to where
    they belong; the others, fewer, are a row off, and are copied again.
    """
    y = np.empty_like(x, order="C")
    given, made = (a.reshape(*a.shape[:2], -1) for a in (x, y))
    rows, columns = map(parts_rolled, x.shape[2:], shift)
    (to_rest, rest), (to_most, most) = sorted(columns, key=lambda part: part[0].stop - part[0].start)
    parts = parts_rolled(given.shape[2], rows[0][1].start * x.shape[3] + most.start - to_most.start)

    def copy(block):
        for to, some in parts:
            copy_block(made[block][..., to], given[block][..., some])
        for to, some in rows:
            copy_block(y[block][..., to, to_rest], x[block][..., some, rest])

    parallel_for(copy, blocks(y, 1))
    return y


def parts_rolled(length: int, shift: int) -> list[tuple[slice, slice]]:
    """Say for both parts of an axis that is rolled where they go and where they stood.

    Examples
    --------
    >>> parts_rolled(5, -1)
    [(slice(0, 1, None), slice(4, 5, None)), (slice(1, 5, None), slice(0, 4, None))]
    """
    moved = shift % length
    rest = length - moved
    return [(slice(0, rest), slice(moved, length)), (slice(rest, length), slice(0, moved))]


def are_whole_windows(x: Array, window: tuple[int, int]) -> bool:
    """Tell whether a map is large, and ends where windows do."""
    return is_large(x) and not any(n % side for n, side in zip(x.shape[2:], window, strict=True))


@window_partition.faster(suits=are_whole_windows)
def window_partition_in_blocks(x: Array, window: tuple[int, int]) -> tuple[Array, Backward]:
    """Cut some channels at a time; there are no zeros to be added."""
    size = x.shape[2], x.shape[3]
    return partition(x, window), lambda dwindows: join_windows(dwindows, window, size)


def partition(x: Array, window: tuple[int, int]) -> Array:
    """Cut a map into windows: (B, C, H, W) to (B, C, R, h w)."""
    (*lead, height, width), (h, w) = x.shape, window
    windows = np.empty_like(x, shape=(*lead, height // h, width // w, h, w), order="C")
    copy_rows(windows, x.reshape(*lead, height // h, h, width // w, w).swapaxes(3, 4))
    return windows.reshape(*lead, -1, h * w)


def join_windows(windows: Array, window: tuple[int, int], size: tuple[int, int]) -> Array:
    """Lay windows side by side: (B, C, R, h w) to (B, C, H, W)."""
    (*lead, _, _), (h, w), (height, width) = windows.shape, window, size
    maps = np.empty_like(windows, shape=(*lead, height // h, h, width // w, w), order="C")
    copy_rows(maps.swapaxes(3, 4), windows.reshape(*lead, height // h, width // w, h, w))
    return maps.reshape(*lead, *size)


def copy_rows(target: Array, source: Array) -> None:
    """Copy windows, on all cores, each of their rows as a single item: they are too short to be run through."""
    length, size = source.shape[-1], source.itemsize
    if source.strides[-1] != size:
        source = source.copy()
    item = f"V{length * size}"
    to, given = target.view(item)[..., 0], source.view(item)[..., 0]
    parallel_for(lambda block: np.copyto(to[block], given[block]), blocks(source, 1))
