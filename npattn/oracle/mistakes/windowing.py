"""Mistakes in averages over windows, and of what is put together from windows."""

from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.arrays import longer, positions
from npattn.oracle.mistakes.families import LAST_POSITION, LAST_TILE, TRANSPOSED, wrong_means
from npattn.oracle.mistakes.mistake import Apply, When, argument, dropped, gradient, upstream, value
from npattn.oracle.mistakes.softmax import softmax
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

AVERAGE, OVERLAP, PAD, UNFOLD = "window_average", "overlap_average", "pad", "unfold_windows"


def area(x: Array, window: int, stride: int) -> int:
    return min(window, x.shape[2]) * min(window, x.shape[3])


def several(*windows: Any) -> bool:
    return area(*windows) > 1


def clipped(x: Array, window: int, stride: int) -> bool:
    return window > min(x.shape[2:])


def of_whole_windows(p: Array, x: Array, window: int, stride: int) -> Array:
    return p * (area(x, window, stride) / window**2)


def tall(x: Array, window: int, stride: int) -> bool:
    return min(window, x.shape[2]) > 1


def without_last_row(p: Array, x: Array, window: int, stride: int) -> Array:
    windows, _ = ops.unfold_windows(x, window, stride)
    return windows[..., :-1, :].sum(axis=(4, 5)) / area(x, window, stride)


def windows_over(z: Array, size: tuple[int, int], window: int, stride: int) -> Array:
    """Count the windows over each position."""
    rows, columns = (
        [sum(start <= i < start + min(window, n) for start in ops.window_starts(n, window, stride)) for i in range(n)]
        for n in size
    )
    return np.outer(rows, columns).astype(z.dtype)


def overlaps(z: Array, *windows: Any) -> bool:
    *_, window, stride = windows
    return stride < window and positions(z) > 1


def averaged_over_windows(g: Array, dp: Array, x: Array, window: int, stride: int) -> Array:
    return g / windows_over(x, x.shape[2:], window, stride)


def counted_in_the_middle(y: Array, *windows: Any) -> Array:
    count = windows_over(*windows)
    return y * (count / count.max())


def times_count(a: Array, *windows: Any) -> Array:
    return a * windows_over(*windows)


TUNED_ON = [
    *wrong_means(AVERAGE, area),
    value(AVERAGE, "divided by the whole window", of_whole_windows, clipped),
    TRANSPOSED.in_value(AVERAGE),
    LAST_POSITION.in_argument(AVERAGE, 0),
    gradient(AVERAGE, 0, "not divided", lambda g, dp, *windows: g * area(*windows), several),
    LAST_TILE.in_gradient(AVERAGE),
    gradient(AVERAGE, 0, "dropped", dropped),
    value(OVERLAP, "sum for mean", times_count, overlaps),
    LAST_POSITION.in_argument(OVERLAP, 0, "last window forgotten"),
    TRANSPOSED.in_value(OVERLAP, lambda z, size, *_: min(size) > 1),
    upstream(OVERLAP, None, "not divided by the windows", times_count, overlaps),
    LAST_POSITION.in_upstream(OVERLAP, when=lambda z, size, *_: size[0] * size[1] > 1),
]
HELD_OUT = [
    argument(AVERAGE, 0, "one row late", lambda x, *_: np.roll(x, -1, axis=2), longer(2)),
    value(AVERAGE, "last row left out", without_last_row, tall),
    gradient(AVERAGE, 0, "averaged over windows, not summed", averaged_over_windows, overlaps),
    value(OVERLAP, "counts of the middle at the edges", counted_in_the_middle, overlaps),
]


def at_centre(p: Array, x: Array, window: int, stride: int) -> Array:
    windows, _ = ops.unfold_windows(x, window, stride)
    return windows[..., windows.shape[4] // 2, windows.shape[5] // 2]


def by_all_windows(y: Array, z: Array, *windows: Any) -> Array:
    return y * windows_over(z, *windows) / positions(z)


def padded(index: Apply) -> Apply:
    """Fill the margin with numbers of the map: at a place outside, what stands at ``index(place, length)``."""

    def change(y, x, margin):
        rows, columns = (index(np.arange(-margin, n + margin), n) for n in x.shape[2:])
        return x[:, :, rows][..., columns]

    return change


def at_one_end(y: Array, x: Array, margin: int) -> Array:
    """Lay all zeros behind the map, none before it."""
    return np.roll(y, (-margin, -margin), axis=(2, 3))


def with_margin(x: Array, margin: int) -> bool:
    return margin > 0


def some_left_out(axis: int, at: Any) -> tuple[Apply, When]:
    """Leave the first or the last row or column of every window out of its sum."""

    def change(p, x, window, stride):
        windows, _ = ops.unfold_windows(x, window, stride)
        kept = windows[..., at, :] if axis == 4 else windows[..., at]
        return kept.sum(axis=(4, 5)) / area(x, window, stride)

    return change, tall if axis == 4 else wide


def wide(x: Array, window: int, stride: int) -> bool:
    return min(window, x.shape[3]) > 1


def maximum(p: Array, x: Array, window: int, stride: int) -> Array:
    return ops.unfold_windows(x, window, stride)[0].max(axis=(4, 5))


def last_over(size: tuple[int, int], window: int, stride: int) -> list[Array]:
    """Return the numbers of the last window over each row, and over each column."""
    starts = [np.array(ops.window_starts(n, window, stride)) for n in size]
    return [np.searchsorted(at, np.arange(n), side="right") - 1 for at, n in zip(starts, size, strict=True)]


def last_alone(g: Array, dp: Array, x: Array, window: int, stride: int) -> Array:
    rows, columns = last_over(x.shape[2:], window, stride)
    return dp[:, :, rows][..., columns] / area(x, window, stride)


def of_last_window(y: Array, z: Array, size: tuple[int, int], window: int, stride: int) -> Array:
    rows, columns = last_over(size, window, stride)
    return z[:, :, rows][..., columns]


def votes(z: Array, *_: Any) -> Array:
    return softmax(z, 1)


def inner(dwindows: Array, x: Array, window: int, stride: int) -> Array:
    """Keep of every window what lies in the middle, as much as windows are apart."""
    margin = (window - stride) // 2
    kept = np.zeros(window, dwindows.dtype)
    kept[margin : margin + stride] = 1
    return dwindows * kept[:, None] * kept


def has_margins(x: Array, window: int, stride: int) -> bool:
    return window > stride and min(x.shape[2:]) >= window


def without_last_lines(windows: Array, x: Array, window: int, stride: int) -> Array:
    """Do not read a window's last row and column."""
    kept = (np.arange(window) < window - 1).astype(windows.dtype)
    return windows * kept[:, None] * kept


ADDED = [
    upstream(UNFOLD, None, "of the middle of windows alone, not of what overlaps", inner, has_margins),
    value(
        UNFOLD, "last row and column not read", without_last_lines, lambda x, window, _: 1 < window <= min(x.shape[2:])
    ),
    value(PAD, "the edge's numbers for zeros", padded(lambda i, n: np.clip(i, 0, n - 1)), with_margin),
    value(PAD, "wrapped round for zeros", padded(lambda i, n: i % n), with_margin),
    value(PAD, "all zeros behind the map", at_one_end, with_margin),
    gradient(PAD, 0, "dropped", dropped),
    *(
        value(AVERAGE, f"{which} left out", *some_left_out(axis, at))
        for which, axis, at in (
            ("first row", 4, slice(1, None)),
            ("first column", 5, slice(1, None)),
            ("last column", 5, slice(-1)),
        )
    ),
    value(AVERAGE, "maximum for mean", maximum, several),
    gradient(AVERAGE, 0, "of the last window over a position alone", last_alone, overlaps),
    value(OVERLAP, "last window over a position alone", of_last_window, overlaps),
    argument(OVERLAP, 0, "votes by probabilities: a softmax over the classes first", votes, longer(1)),
    value(AVERAGE, "the centre for the mean", at_centre, several),
    value(OVERLAP, "divided by the number of all windows", by_all_windows, overlaps),
]
