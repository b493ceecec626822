"""Mistakes in inverse energies."""

import math
from typing import Any

import numpy as np

from npattn.oracle.mistakes.arrays import (
    TILE,
    TILES,
    both,
    filled,
    positions,
    several_channels,
    several_images,
    tail_of,
)
from npattn.oracle.mistakes.mistake import Apply, Mistake, When, gradient, value
from npattn.typing import Array

__all__ = ["ADDED"]

NAME = "inverse_energy"
MAP = (2, 3)
LAMBDAS = {"lambda lost": 0.0, "lambda 1e-6": 1e-6, "lambda 1e-5": 1e-5, "lambda 1e-3": 1e-3, "lambda 1e-2": 1e-2}


def several(x: Array, *_: Any, **__: Any) -> bool:
    """Whether a variance says anything."""
    return x.shape[2] * x.shape[3] > 2


def parts(x: Array, correction: int, axes: tuple[int, ...] = MAP) -> tuple[Array, ...]:
    """Return deviations from the mean along axes, and their variance."""
    centred = x - x.mean(axis=axes, keepdims=True)
    count = math.prod(x.shape[axis] for axis in axes)
    return centred, (centred * centred).sum(axis=axes, keepdims=True) / max(count - correction, 1)


def energy(name: str, change: Apply, when: When = several) -> Mistake:
    """Compute otherwise from deviations and variance: ``change(centred, variance, λ, number of positions)``."""

    def changed(z, x, e_lambda=1e-4, *, correction=1):
        return change(*parts(x, correction), e_lambda, x.shape[2] * x.shape[3])

    return value(NAME, name, changed, when)


def quotient(squares: Array, variance: Array, e_lambda: float) -> Array:
    return squares / (4 * (variance + e_lambda)) + 0.5


def with_statistics(axes: tuple[int, ...]) -> Apply:
    """Return a function that takes mean and variance along other axes."""

    def change(z, x, e_lambda=1e-4, *, correction=1):
        centred, variance = parts(x, correction, axes)
        return quotient(centred * centred, variance, e_lambda)

    return change


def without_mean(z: Array, x: Array, e_lambda: float = 1e-4, *, correction: int = 1) -> Array:
    count = x.shape[2] * x.shape[3]
    return quotient(x * x, (x * x).sum(axis=MAP, keepdims=True) / max(count - correction, 1), e_lambda)


def with_other_count(z: Array, x: Array, e_lambda: float = 1e-4, *, correction: int = 1) -> Array:
    return quotient(parts(x, 0)[0] ** 2, parts(x, 1 - correction)[1], e_lambda)


def with_deviation_about_zero(z: Array, x: Array, e_lambda: float = 1e-4, *, correction: int = 1) -> Array:
    return quotient(x * x, parts(x, correction)[1], e_lambda)


def differentiated(name: str, change: Apply) -> Mistake:
    """Differentiate otherwise: ``change(direct, shared)``, the gradients of the deviations by their two ways."""

    def changed(g, dz, x, e_lambda=1e-4, *, correction=1):
        centred, variance = parts(x, correction)
        scale = 0.25 / (variance + e_lambda)
        degrees = max(x.shape[2] * x.shape[3] - correction, 1)
        dvariance = -4 * scale * scale * (dz * centred * centred).sum(axis=MAP, keepdims=True)
        return change(2 * centred * dz * scale, 2 * centred * dvariance / degrees)

    return gradient(NAME, 0, name, changed, several)


def central(a: Array) -> Array:
    return a - a.mean(axis=MAP, keepdims=True)


def about_mean_of(axes: tuple[int, ...]) -> Apply:
    """Return a function that takes deviations, for the variance too, from a mean along other axes."""

    def change(z, x, e_lambda=1e-4, *, correction=1):
        centred = x - x.mean(axis=axes, keepdims=True)
        count = x.shape[2] * x.shape[3]
        variance = (centred * centred).sum(axis=MAP, keepdims=True) / max(count - correction, 1)
        return quotient(centred * centred, variance, e_lambda)

    return change


def of_whole_tiles(tile: int) -> Mistake:
    """Leave what is left over of tiles out of the variance, and divide as if it were there."""

    def change(z, x, e_lambda=1e-4, *, correction=1):
        centred, _ = parts(x, correction)
        count = x.shape[2] * x.shape[3]
        some = filled(centred, slice(tail_of_map(x, tile), None))
        variance = (some * some).sum(axis=MAP, keepdims=True) / max(count - correction, 1)
        return quotient(centred * centred, variance, e_lambda)

    return value(
        NAME,
        f"last tile of {tile} left out of the variance",
        change,
        lambda x, *_, **__: tail_of_map(x, tile) is not None,
    )


def tail_of_map(x: Array, tile: int) -> int | None:
    return tail_of(positions(x), tile)


ADDED = [
    value(NAME, "mean of the batch", about_mean_of((0, 2, 3)), both(several, several_images)),
    value(NAME, "mean of the whole image", about_mean_of((1, 2, 3)), both(several, several_channels)),
    value(NAME, "mean over the channels", about_mean_of((1,)), both(several, several_channels)),
    *map(of_whole_tiles, (TILE, *TILES)),
    value(NAME, "mean not subtracted", without_mean, several),
    value(NAME, "mean subtracted in the variance alone", with_deviation_about_zero, several),
    value(NAME, "divided by N for N - 1, or the reverse", with_other_count, several),
    value(NAME, "statistics of the whole image", with_statistics((1, 2, 3)), both(several, several_channels)),
    value(NAME, "statistics over the channels", with_statistics((1,)), both(several, several_channels)),
    value(NAME, "statistics of the batch", with_statistics((0, 2, 3)), both(several, several_images)),
    energy("sum for variance", lambda c, v, e, n: quotient(c * c, v * (n - 1), e)),
    energy("deviation for variance", lambda c, v, e, n: quotient(c * c, np.sqrt(v), e)),
    energy("magnitude for square", lambda c, v, e, n: quotient(np.maximum(c, -c), v, e)),
    energy("not squared", lambda c, v, e, n: quotient(c, v, e)),
    energy("½ lost", lambda c, v, e, n: quotient(c * c, v, e) - 0.5),
    energy("1 for ½", lambda c, v, e, n: quotient(c * c, v, e) + 0.5),
    energy("4 lost", lambda c, v, e, n: c * c / (v + e) + 0.5),
    energy("2 for 4", lambda c, v, e, n: c * c / (2 * (v + e)) + 0.5),
    energy("lambda not taken four times", lambda c, v, e, n: c * c / (4 * v + e) + 0.5),
    energy("energy, not its inverse", lambda c, v, e, n: 1 / quotient(c * c, v, e)),
    *(energy(name, lambda c, v, e, n, other=other: quotient(c * c, v, other)) for name, other in LAMBDAS.items()),
    differentiated("mean constant", lambda direct, shared: direct + shared),
    differentiated("variance constant", lambda direct, shared: central(direct)),
    differentiated("mean and variance constant", lambda direct, shared: direct),
    differentiated("variance's part with its sign turned", lambda direct, shared: central(direct - shared)),
]
