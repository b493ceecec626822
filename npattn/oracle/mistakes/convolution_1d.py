"""Mistakes in convolutions along the channels."""

import numpy as np

from npattn import ops
from npattn.oracle.mistakes.arrays import longer
from npattn.oracle.mistakes.families import ONLY_IMAGE_0, UNCLEARED
from npattn.oracle.mistakes.mistake import Apply, Mistake, argument, dropped, gradient, value
from npattn.typing import Array

__all__ = ["ADDED", "HELD_OUT", "TUNED_ON"]

NAME = "conv1d"


def mirrored(x: Array, weight: Array) -> Array:
    return weight[..., ::-1].copy()


def several_taps(x: Array, weight: Array) -> bool:
    return weight.size > 1


def padded_row(name: str, index: Apply) -> Mistake:
    """Read beyond the ends of a row what stands at ``index(positions, length)``."""

    def convolve(z, x, weight):
        length, half = x.shape[1], weight.size // 2
        wide = x[:, index(np.arange(-half, length + half), length)]
        return ops.conv1d(wide, weight)[0][:, half : half + length]

    return value(NAME, name, convolve, several_taps)


def channels_moved(by: int) -> Apply:
    """Read so many channels further on, zeros beyond the ends."""

    def convolve(z, x, weight):
        half = weight.size // 2
        wide = np.zeros_like(x, shape=(len(x), x.shape[1] + 2 * half + 2 * abs(by)))
        wide[:, half + abs(by) : half + abs(by) + x.shape[1]] = x
        first = half + abs(by) + by
        return ops.conv1d(wide, weight)[0][:, first : first + x.shape[1]]

    return convolve


def blocks_apart(size: int) -> Apply:
    """Convolve blocks of channels each by itself."""

    def convolve(z, x, weight):
        blocks = [ops.conv1d(x[:, at : at + size], weight)[0] for at in range(0, x.shape[1], size)]
        return np.concatenate(blocks, axis=1)

    return convolve


TUNED_ON = [
    argument(NAME, 1, "flipped kernel", mirrored, several_taps),
    argument(NAME, 1, "shifted by one", lambda x, w: np.roll(w, 1, axis=-1), several_taps),
    argument(NAME, 1, "kernel not flipped", mirrored, several_taps, way="backward", of=(0,)),
    gradient(NAME, 0, "dx dropped", dropped),
    gradient(NAME, 1, "taps in the wrong order", lambda g, *_: g[..., ::-1]),
    ONLY_IMAGE_0.in_upstream(NAME, 1),
]
HELD_OUT = [
    padded_row("edges for zeros", lambda i, length: np.clip(i, 0, length - 1)),
    padded_row("wrapped around", lambda i, length: i % length),
    UNCLEARED.in_upstream(NAME, 1),
]
ADDED = [
    *(
        value(NAME, f"blocks of {size} channels, each with zeros around it", blocks_apart(size), longer(1, size))
        for size in (8, 16, 32, 64)
    ),
    *(
        value(NAME, f"reads one channel further {words}", channels_moved(by), several_taps)
        for by, words in ((1, "on"), (-1, "back"))
    ),
    *(
        value(
            NAME,
            f"all padding {words}",
            lambda y, x, w, by=by: channels_moved(by * (w.size // 2))(y, x, w),
            several_taps,
        )
        for by, words in ((1, "behind"), (-1, "in front"))
    ),
    padded_row("padding reflected", lambda i, n: n - 1 - abs(n - 1 - abs(i)) if n > 1 else 0 * i),
]
