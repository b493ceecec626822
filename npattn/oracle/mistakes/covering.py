"""Mistakes in where windows lie: their stride, and what becomes of the last one."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.mistake import Apply
from npattn.typing import Array

__all__ = ["ADDED"]


def reads_windows(module: Module, *_: Any) -> bool:
    """Whether a system averages windows."""
    return getattr(module, "key", None) in ("sliding-window", "flexible-segmentation")


def strides(module: Any, *_: Any) -> bool:
    """Whether windows lie further apart than by one."""
    return reads_windows(module) and module.stride > 1


def covered(length: int, window: int, starts: Iterable[int]) -> Array:
    """Return 1 where a window holds a position, else 0: (windows, length)."""
    at, starts = np.arange(length), np.array(list(starts))[:, None]
    return ((starts <= at) & (at < starts + window)).astype(float)


def inside(length: int, window: int, stride: int) -> range:
    """Leave out the windows that do not fit."""
    return range(0, max(length - window, 0) + 1, stride)


def on_grid(length: int, window: int, stride: int) -> range:
    """Leave the last window where the stride puts it."""
    return range(0, max(length - window, 0) + stride, stride)


def as_they_lie(counts: Array, window: int) -> Array:
    return counts


def in_full(counts: Array, window: int) -> Array:
    return np.full_like(counts, window * window)


def lying(begin: Sequence[Apply], area: Apply = as_they_lie) -> Apply:
    """Let windows begin elsewhere: ``begin[i](length, window, stride)`` along each axis."""

    def make(*_):
        def answer(primitive, arguments, options):
            if primitive not in (ops.window_average, ops.overlap_average):
                return NotImplemented
            x, *size, window, stride = arguments
            (height, width) = size[0] if size else x.shape[2:]
            sides = [(n, min(window, n)) for n in (height, width)]
            rows, columns = (covered(n, w, at(n, w, stride)) for (n, w), at in zip(sides, begin, strict=True))
            if primitive is ops.window_average:
                return rows @ x @ columns.T / area(np.outer(rows.sum(axis=1), columns.sum(axis=1)), window)
            counts = np.outer(rows.sum(axis=0), columns.sum(axis=0))
            return rows.T @ x @ columns / np.maximum(counts, 1)

        return answer

    return make


def everywhere(length: int, window: int, stride: int) -> Sequence[int]:
    return ops.window_starts(length, window, 1)


ADDED = [
    *with_steps("windows that do not fit left out", lying((inside, inside)), strides),
    *with_steps("last window cut by the edge, not moved inward", lying((on_grid, on_grid)), strides),
    *with_steps(
        "last window over zeros beyond the edge, not moved inward", lying((on_grid, on_grid), in_full), strides
    ),
    *with_steps("stride along the width alone", lying((everywhere, ops.window_starts)), strides),
    *with_steps("stride along the height alone", lying((ops.window_starts, everywhere)), strides),
]
