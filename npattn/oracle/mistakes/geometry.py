"""Convolutions of another geometry than they should have: padding, dilation, groups and stride."""

from typing import Any

import numpy as np

from npattn.ops.convolution import pair
from npattn.oracle.mistakes.mistake import Apply
from npattn.typing import Array, Backward

__all__: list[str] = []  # for the mistakes of this package alone


def padded(*_: Any, padding: Any, **__: Any) -> bool:
    return max(pair(padding)) > 0


def keeps_size(x: Array, weight: Array, bias: Array, *, padding: Any, dilation: Any, **_: Any) -> bool:
    """Whether there are zeros around the map for as far as a kernel reaches."""
    reach = [d * (n - 1) / 2 for d, n in zip(pair(dilation), weight.shape[2:], strict=True)]
    return list(pair(padding)) == reach and max(weight.shape[2:]) > 1 and min(x.shape[2:]) > 1


def with_dilation(
    conv2d: Apply, dilation: tuple[int, ...], x: Array, weight: Array, bias: Array, **options: Any
) -> tuple[Any, Backward]:
    """Convolve with taps so far apart, on a map of the same size."""
    padding = tuple(d * (n - 1) // 2 for d, n in zip(dilation, weight.shape[2:], strict=True))
    return conv2d(x, weight, bias, **options | {"dilation": dilation, "padding": padding})


def too_dilated(conv2d: Apply, *layer: Any, dilation: Any, **options: Any) -> tuple[Any, Backward]:
    return with_dilation(conv2d, tuple(d + 1 for d in pair(dilation)), *layer, **options)


def undilated(conv2d: Apply, *layer: Any, dilation: Any, **options: Any) -> tuple[Any, Backward]:
    return with_dilation(conv2d, (1, 1), *layer, **options)


def dilated_along(axis: int) -> Apply:
    """Let taps be apart along one axis alone."""

    def convolve(conv2d, *layer, dilation, **options):
        one = tuple(d if i == axis else 1 for i, d in enumerate(pair(dilation)))
        return with_dilation(conv2d, one, *layer, **options)

    return convolve


def padded_by(index: Apply) -> Apply:
    """Read beyond the edges what stands at ``index(positions, length)``."""

    def convolve(conv2d, x, weight, bias, *, padding, **options):
        rows, columns = (index(np.arange(-p, n + p), n) for n, p in zip(x.shape[2:], pair(padding), strict=True))
        return conv2d(x[:, :, rows][..., columns], weight, bias, **options)

    return convolve


with_edges = padded_by(lambda i, n: np.clip(i, 0, n - 1))


def among_zeros(x: Array, padding: Any, top: int, left: int) -> Array:
    """Pad with as many zeros as `padding` says, so many of them before the map."""
    wide = np.zeros_like(x, shape=(*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], pair(padding), strict=True))))
    wide[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return wide


def shifted_padding(
    conv2d: Apply, x: Array, weight: Array, bias: Array, *, padding: Any, **options: Any
) -> tuple[Any, Backward]:
    """Put all padding before the map."""
    return conv2d(among_zeros(x, padding, *(2 * p for p in pair(padding))), weight, bias, **options)


def dilated(x: Array, weight: Array, *layer: Any, dilation: Any, **options: Any) -> bool:
    return max(pair(dilation)) > 1 and keeps_size(x, weight, *layer, dilation=dilation, **options)


def one_group(
    conv2d: Apply, x: Array, weight: Array, bias: Array, *, groups: int, **options: Any
) -> tuple[Any, Backward]:
    """Let every group read the channels of the first."""
    own = x[:, : x.shape[1] // groups]
    return conv2d(np.concatenate([own] * groups, axis=1), weight, bias, groups=groups, **options)


def grouped(*_: Any, groups: int, **__: Any) -> bool:
    return groups > 1


def moved(*by: int) -> Apply:
    """Read so many rows, and so many columns, further on."""

    def convolve(conv2d, x, weight, bias, *, padding, **options):
        before = (max(p - n, 0) for p, n in zip(pair(padding), by, strict=True))
        return conv2d(among_zeros(x, padding, *before), weight, bias, **options)

    return convolve


def stride_ignored(conv2d: Apply, x: Array, weight: Array, bias: Array, **options: Any) -> tuple[Any, Backward]:
    return conv2d(x, weight, bias, **options | {"stride": 1})


def strided(*_: Any, stride: Any = 1, **__: Any) -> bool:
    return max(pair(stride)) > 1
