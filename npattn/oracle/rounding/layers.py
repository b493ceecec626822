"""Layers and norms as kernels compute them: what stands for them on rounding arrays, where they err more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.rounding.arrays import RoundingArray, implements, rounding_of, unwrap
from npattn.oracle.rounding.kernels import tell_average
from npattn.oracle.rounding.stochastic import Rounding
from npattn.typing import Array, Backward

__all__ = ["batch_norm", "conv2d", "l2_normalize", "layer_norm", "score"]


@implements(ops.conv2d)
def conv2d(x: Array, weight: Array, bias: Array | None = None, **options: Any) -> tuple[Array, Backward]:
    """Convolve as the primitive does, with sums on the way back as long as a kernel's accumulator makes them.

    The primitive adds up a map's gradient tap by tap and that of the weights image by image, each sum a short one.
    Where every position has its own, gradients know what they average to.
    """
    y, back = ops.conv2d.definition(x, weight, bias, **options)
    taps = weight.shape[2] * weight.shape[3]

    def backward(dy: Array) -> tuple[Array, ...]:
        with joined_sums(rounding_of(x, weight), taps, len(x)):
            dx, *others = back(dy)
        if bias is None and taps == 1:
            tell_average(dx, y, dy, 1)
        return dx, *others

    return y, backward


@implements(ops.score)
def score(x: Array, weight: Array, bias: Array) -> tuple[Array, Backward]:
    """Score as the primitive does; a kernel may add up the gradient of the weights over all images at once."""
    s, back = ops.score.definition(x, weight, bias)

    def backward(ds: Array) -> Any:
        with joined_sums(rounding_of(x, weight), len(x)):
            return back(ds)

    return s, backward


@contextmanager
def joined_sums(rounding: Rounding, *counts: int) -> Iterator[None]:
    """Let so many sums each of the products that come next be one in a kernel's accumulator, product by product."""
    rounding.joined_sums = list(counts)
    try:
        yield
    finally:
        rounding.joined_sums = []


@implements(ops.batch_norm)
def batch_norm(
    x: RoundingArray, weight: Array, bias: Array, running_mean: Array, running_var: Array, **options: Any
) -> tuple[tuple[Array, tuple[Array, Array]], Backward]:
    """Normalise as the primitive does; in inference half of the runs in float32 as the line y = a x + c."""
    result, backward = ops.batch_norm.definition(x, weight, bias, running_mean, running_var, **options)
    if options["training"] or not draws_a_line(rounding_of(x)):
        return result, backward
    slope = weight / np.sqrt(running_var + options.get("eps", 1e-5))
    y: Array = x * slope[:, None, None] + (bias - running_mean * slope)[:, None, None]
    return (y, result[1]), backward


@implements(ops.layer_norm)
def layer_norm(x: RoundingArray, weight: Array, bias: Array, *, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Normalise as the primitive does; half of the runs in float32 by lines: x̂ = a x + c, and a gradient in x."""
    if not draws_a_line(rounding_of(x)):
        return ops.layer_norm.definition(x, weight, bias, eps=eps)
    mean = x.mean(axis=-1, keepdims=True)
    centred = x - mean
    scale = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    normal: Array = x * scale - mean * scale
    others = tuple(range(x.ndim - 1))

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dnormal = dy * weight
        shift = dnormal.mean(axis=-1, keepdims=True)
        slope = (shift * mean - (dnormal * x).mean(axis=-1, keepdims=True)) * scale**3
        dx = dnormal * scale + x * slope - (slope * mean + shift * scale)
        return dx, (dy * normal).sum(axis=others), dy.sum(axis=others)

    return normal * weight + bias, backward


def draws_a_line(rounding: Rounding) -> bool:
    """Tell whether this run normalises by a line, whose two terms cancel where a mean is far above the deviation.

    Kernels do so in float32, whatever the format: what that loses shows in float32 alone.
    """
    return rounding.format.precision == 24 and rounding.choose()


@implements(ops.l2_normalize)
def l2_normalize(x: RoundingArray, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Bring to unit length; the gradient along x, which all but cancels, is that of a quotient, as kernels have it."""
    highest = np.abs(x).max(axis=1, keepdims=True)
    scale = 1 / np.maximum(highest, 1)
    scaled = x * scale
    norm = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    length = norm + eps * scale
    u: Array = scaled / length

    def backward(du: Array) -> Array:
        nonzero = np.where(unwrap(norm) == 0, 1, norm)
        along = (scaled * du).sum(axis=1, keepdims=True) / length
        return (du - scaled * (along / nonzero)) / length * scale

    return u, backward
