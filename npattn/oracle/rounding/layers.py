"""Layers and norms as kernels compute them: what stands for them on rounding arrays, where they err more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from npattn import ops
from npattn.oracle.rounding.arrays import RoundingArray, implements, rounding_of, unwrap, wrap
from npattn.oracle.rounding.averages import tell_average
from npattn.oracle.rounding.stochastic import Rounding
from npattn.typing import Array, Backward

__all__ = ["batch_norm", "conv2d", "group_norm", "l2_normalize", "layer_norm", "score", "z_score"]


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
    """Normalise as the primitive does; half of the runs in float32 by lines."""
    if not draws_a_line(rounding_of(x), x.shape[-1]):
        return ops.layer_norm.definition(x, weight, bias, eps=eps)
    normal, back_standardize = standardize_by_lines(x, (-1,), eps)
    others = tuple(range(x.ndim - 1))

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        return back_standardize(dy * weight), (dy * normal).sum(axis=others), dy.sum(axis=others)

    return normal * weight + bias, backward


@implements(ops.group_norm)
def group_norm(
    x: RoundingArray, weight: Array, bias: Array, groups: int, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """Normalise as the primitive does; half of the runs in float32 by lines."""
    grouped = x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:])
    if not draws_a_line(rounding_of(x), math.prod(grouped.shape[2:])):
        return ops.group_norm.definition(x, weight, bias, groups, eps=eps)
    normal, back_standardize = standardize_by_lines(grouped, (2, 3, 4), eps)
    normal, scale = normal.reshape(x.shape), weight[:, None, None]

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dx = back_standardize((dy * scale).reshape(grouped.shape)).reshape(x.shape)
        return dx, (dy * normal).sum(axis=(0, 2, 3)), dy.sum(axis=(0, 2, 3))

    return normal * scale + bias[:, None, None], backward


def standardize_by_lines(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Backward]:
    """Bring to mean 0 and variance 1 by the line x̂ = a x - c, and a gradient by one in x, as PyTorch does on a CPU.

    Of one value, or of equal ones, the terms of a line are equal but for rounding, and may cancel in all runs: so what
    is taken off is blurred.
    """
    rounding = rounding_of(x)

    def blurred(c: Array) -> Array:
        return wrap(rounding.blur(np.array(unwrap(c))), rounding)

    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    scale = 1 / np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)

    def backward(dnormal: Array) -> Array:
        shift = dnormal.mean(axis=axes, keepdims=True)
        slope = (shift * mean - (dnormal * x).mean(axis=axes, keepdims=True)) * scale**3
        return dnormal * scale + x * slope - blurred(slope * mean + shift * scale)

    return x * scale - blurred(mean * scale), backward


def draws_a_line(rounding: Rounding, count: int = 0) -> bool:
    """Tell whether this run normalises by a line, whose two terms cancel where a mean is far above the deviation.

    Kernels do so in float32, whatever the format: what that loses shows in float32 alone. All runs do of a single
    value, as what else they lose there is nothing.
    """
    return rounding.format.is_single_precision and (count == 1 or rounding.choose())


@implements(ops.l2_normalize)
def l2_normalize(x: RoundingArray, eps: float = 1e-5) -> tuple[Array, Backward]:
    """Bring to unit length; the gradient along x, which all but cancels, is that of a quotient, as kernels have it."""
    if x.shape[1] == 1 and not rounding_of(x).format.is_single_precision:
        return l2_normalize_single(x, eps)
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


def l2_normalize_single(x: RoundingArray, eps: float) -> tuple[Array, Backward]:
    """Divide single numbers by their magnitude, which a kernel makes of a square and a root, each rounded.

    By the largest number, itself, each would first become 1 in most runs, after which nothing is rounded.
    """
    rounding = rounding_of(x)
    norm: Array = wrap(rounding.round(rounding.blur(np.abs(unwrap(x)))), rounding)
    length = norm + eps
    u: Array = x / length

    def backward(du: Array) -> Array:
        unit = x / np.where(unwrap(norm) == 0, 1, norm)
        return (du - unit * (u * du)) / length

    return u, backward


@implements(ops.z_score)
def z_score(x: RoundingArray, eps: float = 1e-5, *, correction: int = 1) -> tuple[Array, Backward]:
    """Standardise as the primitive does; half of the runs centre the gradient before the deviation's share is added.

    That share is a multiple of what is centred, by a mean that is rounded: where numbers are far above their deviation
    its own mean is not 0, and only the primitive takes it off.
    """
    degrees = max(x.shape[-1] - correction, 1)
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).sum(axis=-1, keepdims=True) / degrees)
    unit = deviation + eps
    z: Array = centred / unit
    centres_first = rounding_of(x).choose()

    def backward(dz: Array) -> Array:
        slope = centred / (degrees * np.where(deviation == 0, 1, deviation))
        share = slope * -(dz * z).sum(axis=-1, keepdims=True) / unit
        dx = dz / unit if centres_first else dz / unit + share
        dx = dx - dx.mean(axis=-1, keepdims=True)
        return dx + share if centres_first else dx

    return z, backward
