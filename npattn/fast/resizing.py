"""Large maps read by nearest position, where each is read equally often."""

from __future__ import annotations

import numpy as np

from npattn.fast.blocks import MIN_PARALLEL_SIZE, are_machine_floats, blocks
from npattn.fast.threads import parallel_for
from npattn.ops.resizing import resize_nearest
from npattn.typing import Array, Backward


def repeats_to_large(x: Array, size: tuple[int, int]) -> bool:
    """Tell whether every position is read equally often, and a large map comes of it."""
    if type(x) is not np.ndarray or x.size == 0 or len(x) * x.shape[1] * size[0] * size[1] < MIN_PARALLEL_SIZE:
        return False
    return are_machine_floats(x) and not any(m % n for m, n in zip(size, x.shape[2:], strict=True))


@resize_nearest.faster(suits=repeats_to_large)
def repeat_in_blocks(x: Array, size: tuple[int, int]) -> tuple[Array, Backward]:
    """Repeat rows and columns, and add up those of a gradient, all of a block at once and on all cores."""
    batch, channels, height, width = x.shape
    down, across = size[0] // height, size[1] // width
    y = np.empty_like(x, shape=(batch, channels, height, down, width, across))

    def compute(block):
        rows = y[block][:, :, :, 0]
        for i in range(across):
            rows[..., i] = x[block]
        y[block][:, :, :, 1:] = rows[:, :, :, None]  # whole rows at a time

    parallel_for(compute, blocks(y, axis=1))

    def backward(dy):
        if not are_machine_floats(dy, x):
            return resize_nearest.definition(x, size)[1](dy)
        parts = dy.reshape(y.shape)
        dx = np.empty_like(dy, shape=x.shape)

        def add_up(block):
            rows = parts[block].sum(axis=3) if down > 1 else parts[block][:, :, :, 0]
            dx[block] = sum((rows[..., i] for i in range(1, across)), rows[..., 0])

        parallel_for(add_up, blocks(parts, axis=1))
        return dx

    return y.reshape(batch, channels, *size), backward
