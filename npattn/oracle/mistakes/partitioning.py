"""Mistakes in windows that lie side by side, in shifts round the edges, and in tables of relative positions."""

from collections.abc import Sequence

import numpy as np

from npattn import ops
from npattn.module import Module
from npattn.ops.attention import transpose
from npattn.oracle.mistakes.families import LAST_TILE, ONLY_IMAGE_0
from npattn.oracle.mistakes.forwarding import with_steps
from npattn.oracle.mistakes.mistake import Apply, Arrays, argument, dropped, gradient, upstream, value
from npattn.typing import Array

__all__ = ["ADDED"]

SHIFT, CUT, LAY, GATHER = "cyclic_shift", "window_partition", "window_reverse", "gather_relative"


def moves(x: Array, shift: tuple[int, int]) -> bool:
    return any(s % n and n > 1 for s, n in zip(shift, x.shape[2:], strict=True))


def moves_one_way(x: Array, shift: tuple[int, int]) -> bool:
    """Whether a move the other way ends elsewhere."""
    return any(2 * s % n for s, n in zip(shift, x.shape[2:], strict=True))


def the_other_way(x: Array, shift: tuple[int, int]) -> tuple[int, int]:
    return -shift[0], -shift[1]


def moves_askew(x: Array, shift: tuple[int, int]) -> bool:
    return shift[0] != shift[1] and x.shape[2] == x.shape[3] and moves(x, (shift[0] - shift[1], 0))


def with_zeros(y: Array, x: Array, shift: tuple[int, int]) -> Array:
    """Move zeros in, not what has left the map."""
    for axis, s in zip((2, 3), shift, strict=True):
        n = x.shape[axis]
        at = (np.arange(n) + s).reshape((-1,) + (1,) * (3 - axis))
        y = np.where((at >= 0) & (at < n), y, 0)
    return y


def counts(x: Array, window: tuple[int, int]) -> tuple[int, int]:
    """Count windows along both axes."""
    return tuple(-(-n // side) for n, side in zip(x.shape[2:], window, strict=True))


def several_beside_rows(x: Array, window: tuple[int, int]) -> bool:
    return window[0] > 1 and counts(x, window)[1] > 1


def is_grid(x: Array, window: tuple[int, int]) -> bool:
    return min(counts(x, window)) > 1


def has_border(x: Array, window: tuple[int, int]) -> bool:
    return any(n % side for n, side in zip(x.shape[2:], window, strict=True))


def viewed(windows: Array, x: Array, window: tuple[int, int]) -> Array:
    """Read the map's rows in memory as windows."""
    (rows, columns), (h, w) = counts(x, window), window
    wide = windows.reshape(*x.shape[:2], rows, columns, h, w).swapaxes(3, 4)
    return wide.reshape(windows.shape)


def column_by_column(windows: Array, x: Array, window: tuple[int, int]) -> Array:
    rows, columns = counts(x, window)
    return windows.reshape(*x.shape[:2], rows, columns, -1).swapaxes(2, 3).reshape(windows.shape)


def edges_repeated(windows: Array, x: Array, window: tuple[int, int]) -> Array:
    """Fill up with the last row and column, not with zeros."""
    (rows, columns), (h, w) = counts(x, window), window
    down, across = (
        np.minimum(np.arange(n), length - 1) for n, length in zip((rows * h, columns * w), x.shape[2:], strict=True)
    )
    wide = np.take_along_axis(x, down.reshape(1, 1, -1, 1), 2)
    wide = np.take_along_axis(wide, across.reshape(1, 1, 1, -1), 3)
    return wide.reshape(*x.shape[:2], rows, h, columns, w).swapaxes(3, 4).reshape(windows.shape)


def several_beside(windows: Array, window: tuple[int, int], size: tuple[int, int]) -> bool:
    return window[0] > 1 and -(-size[1] // window[1]) > 1


def laid_as_viewed(x: Array, windows: Array, window: tuple[int, int], size: tuple[int, int]) -> Array:
    """Read windows in memory as the map's rows."""
    (rows, columns), (h, w) = (-(-n // side) for n, side in zip(size, window, strict=True)), window
    return windows.reshape(*windows.shape[:2], rows * h, columns * w)[:, :, : size[0], : size[1]]


def square(table: Array, size: tuple[int, int]) -> bool:
    return size[0] == size[1] > 1


def several(table: Array, size: tuple[int, int]) -> bool:
    return size[0] * size[1] > 1


def turned(table: Array, size: tuple[int, int]) -> Array:
    """Exchange rows and columns of the table."""
    h, w = size
    return table.reshape(2 * h - 1, 2 * w - 1, -1).swapaxes(0, 1).reshape(table.shape)


def not_moved_to_zero(table: Array, size: tuple[int, int]) -> Array:
    """Take differences themselves as indices, of which negative ones count from the end."""
    h, w = size
    laid_out = table.reshape(2 * h - 1, 2 * w - 1, -1)
    return np.roll(laid_out, (h - 1, w - 1), axis=(0, 1)).reshape(table.shape)


def pairs(size: tuple[int, int]) -> Array:
    """Count the pairs for each offset of one position from another."""
    return np.outer(*(n - np.abs(np.arange(1 - n, n)) for n in size))


def averaged(g: Array, dg: Array, table: Array, size: tuple[int, int]) -> Array:
    return g / pairs(size).reshape(*table.shape[:-1], 1)


def heads_reversed(g: Array, table: Array, size: tuple[int, int]) -> Array:
    return g[::-1]


def several_heads(table: Array, size: tuple[int, int]) -> bool:
    return table.shape[-1] > 1


def last_pair_alone(g: Array, dg: Array, table: Array, size: tuple[int, int]) -> Array:
    """Write to the table, not add: of pairs that are as far apart the last stays."""
    (h, w), wrong = size, np.zeros_like(table).reshape(-1, table.shape[-1])
    row, column = (a.ravel() for a in np.indices(size))
    at = (row[:, None] - row + h - 1) * (2 * w - 1) + (column[:, None] - column + w - 1)
    wrong[at.ravel()] = dg.reshape(len(dg), -1).T
    return wrong.reshape(table.shape)


def hiding(hidden: Apply) -> Apply:
    """Hide other pairs of a window's positions: ``hidden(parts, shift, sizes, window)`` tells which.

    ``parts(a)`` cuts numbers of a map's positions into windows, whose margin beyond the map has 0.
    """

    def make(*_):
        known = {}

        def answer(primitive, arguments, options):
            if primitive is ops.cyclic_shift and "shift" not in known:
                known["shift"] = arguments[1]
            if primitive is ops.window_partition:
                x, window = arguments
                known["hidden"] = hidden(lambda a: in_windows(a, window), known["shift"], x.shape[2:], window)
            if primitive is not ops.masked_attention or "hidden" not in known:
                return NotImplemented
            seen = known["hidden"](options["mask"])[:, None]
            return primitive(*arguments, **options | {"mask": seen})[0]

        return answer

    return make


def in_windows(a: Array, window: tuple[int, int]) -> Array:
    """Cut the numbers of a map into windows, (R, N)."""
    return ops.window_partition.definition(a[None, None].astype(float), window)[0][0, 0]


def beyond_hidden(parts: Apply, shift: tuple[int, int], sizes: Sequence[int], window: tuple[int, int]) -> Apply:
    """Hide positions beyond the map from those in it."""
    beyond = parts(np.ones(sizes)) == 0
    unseen = beyond[:, None, :] & ~beyond[:, :, None]
    return lambda mask: (1.0 if mask is None else mask[:, 0]) * ~unseen


def by_own_size(parts: Apply, shift: tuple[int, int], sizes: Sequence[int], window: tuple[int, int]) -> Apply:
    """Part the map where its own edge is, and what lies beyond from both."""
    below, right = (np.arange(n) >= n - s for n, s in zip(sizes, shift, strict=True))
    part = parts(1 + 2 * below[:, None] + right)
    return lambda mask: (part[:, :, None] == part[:, None, :]).astype(float)


def fills_up(module: Module, params: Arrays, inputs: Arrays, upstream: Arrays) -> bool:
    """Whether windows reach beyond the map."""
    side = getattr(module, "window", 0)
    sizes = next(iter(inputs.values())).shape[2:]
    sides = side if isinstance(side, tuple) else (side, side)
    return getattr(module, "key", None) == "window" and any(n % s for n, s in zip(sizes, sides, strict=True))


ADDED = [
    gradient(GATHER, 0, "of the last pair alone: written, not added", last_pair_alone, several),
    *with_steps("positions beyond the map hidden from those in it", hiding(beyond_hidden), fills_up),
    *with_steps("mask of windows by the map's own size, not the filled-up one", hiding(by_own_size), fills_up),
    argument(SHIFT, 1, "the other way round", the_other_way, moves_one_way),
    argument(SHIFT, 1, "not moved", lambda *_: (0, 0), moves),
    argument(SHIFT, 1, "rows and columns exchanged", lambda x, shift: shift[::-1], moves_askew),
    value(SHIFT, "zeros moved in, not what has left", with_zeros, moves),
    argument(SHIFT, 1, "the other way round", the_other_way, moves_one_way, way="backward"),
    argument(SHIFT, 1, "not moved", lambda *_: (0, 0), moves, way="backward"),
    value(CUT, "cut without a transpose", viewed, several_beside_rows),
    value(CUT, "windows column by column", column_by_column, is_grid),
    value(CUT, "edges repeated, not zeros", edges_repeated, has_border),
    LAST_TILE.in_value(CUT),
    ONLY_IMAGE_0.in_upstream(CUT),
    gradient(CUT, 0, "dropped", dropped),
    value(LAY, "laid side by side without a transpose", laid_as_viewed, several_beside),
    LAST_TILE.in_upstream(LAY),
    value(GATHER, "offsets with their sign turned", lambda g, *_: transpose(g), several),
    argument(GATHER, 0, "rows and columns exchanged", turned, square),
    argument(GATHER, 0, "indices not moved to 0", not_moved_to_zero, several),
    value(GATHER, "heads in reverse", heads_reversed, several_heads),
    upstream(GATHER, None, "offsets with their sign turned", lambda dg, *_: transpose(dg), several),
    gradient(GATHER, 0, "averaged over pairs", averaged, several),
    gradient(GATHER, 0, "dropped", dropped),
]
