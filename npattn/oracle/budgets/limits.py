"""How many units of budget a tensor's worst element may be off, and the root mean square of all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

__all__ = ["Budget", "limits_of", "rms_limit", "worst_limit", "zeros_pass"]

FALSE_ALARM_PROBABILITY = 1e-5
"""Probability with which a limit is passed if errors are normal and of the size that the budget says."""
SLACK_FACTOR = 1.4
"""How much further limits stand: a correct kernel may round a little more often than the reference does."""
ONE_BY_ONE_RATIO = 0.73
"""What adding one by one errs by, root mean square, of what budgets have for sums in float32."""


class Budget(NamedTuple):
    """The budget of one tensor.

    Attributes
    ----------
    scale : numpy.ndarray, float64
        The unit of each element's error: the root mean square of a correct kernel's, or more where a tie is near.
        Infinite where the format can't hold the result: such elements are not judged.
    freedom : float
        The effective degrees of freedom: how many independent errors the tensor's root mean square is an average of.
    widened : float
        Share of the elements whose unit is several times what it would be without near ties.
    """

    scale: np.ndarray
    freedom: float
    widened: float = 0.0


def worst_limit(count: int, freedom: float = np.inf, *, wandering: bool = False) -> float:
    """Return how many units the worst of so many elements may be off.

    The largest of `count` normal errors exceeds the quantile used here with probability `FALSE_ALARM_PROBABILITY`;
    `SLACK_FACTOR` times that is allowed. Few independent errors may be larger all at once: by a factor that one case in
    a hundred exceeds. With `wandering`, errors are those of accumulators, whose partial sums now and then wander far.

    Examples
    --------
    >>> [f"{worst_limit(n):.1f}" for n in (1, 1000, 10**6)]
    ['6.2', '8.0', '9.5']
    >>> [f"{worst_limit(n, wandering=True):.1f}" for n in (1, 1000, 10**6)]
    ['6.2', '9.7', '13.6']
    """
    probability = FALSE_ALARM_PROBABILITY / max(count, 1)
    together = np.sqrt(scipy.special.chdtri(freedom, 0.01) / freedom) if freedom < count else 1.0
    normal = SLACK_FACTOR * np.sqrt(scipy.special.chdtri(1, probability))
    return float(together * max(normal, ONE_BY_ONE_RATIO * wandering_quantile(probability) if wandering else 0.0))


def wandering_quantile(probability: float) -> float:
    """Return what an error of one accumulator exceeds with a small probability, in units of its root mean square.

    Its variance is proportional to the integral of a squared random walk that ends where it began. A normal number
    times the root of that has the characteristic function √(s / sinh s), so its tail beyond x is 2 exp(-πx) / (π√x),
    in units of √6 of its own.
    """
    x = 1.0
    for _ in range(20):
        x = (np.log(2 / (np.pi * probability)) - np.log(x) / 2) / np.pi
    return float(x * np.sqrt(6))


def rms_limit(freedom: float) -> float:
    """Return how many units a tensor's root mean square may be, given its effective degrees of freedom.

    It exceeds the quantile used here with probability `FALSE_ALARM_PROBABILITY`; `SLACK_FACTOR` times that is allowed.

    Examples
    --------
    >>> [f"{rms_limit(m):.2f}" for m in (1, 1000, 10**6)]
    ['6.18', '1.54', '1.40']
    """
    return SLACK_FACTOR * float(np.sqrt(scipy.special.chdtri(freedom, FALSE_ALARM_PROBABILITY) / freedom))


def limits_of(budget: Budget, *, wandering: bool = False) -> tuple[float, float]:
    """Return the limits of one tensor's worst element and of its root mean square."""
    judged = int(np.isfinite(budget.scale).sum())
    return worst_limit(judged, budget.freedom, wandering=wandering), rms_limit(budget.freedom)


def zeros_pass(expected: np.ndarray, scale: np.ndarray, limits: tuple[float, float]) -> bool:
    """Tell whether zeros would be within both limits of a result that is not 0 throughout.

    Examples
    --------
    >>> scale, limits = np.full(3, 0.1), (6.0, 2.0)
    >>> zeros_pass(np.array([0.1, 0.0, -0.2]), scale, limits), zeros_pass(np.array([0.1, 0.0, 0.7]), scale, limits)
    (True, False)
    """
    # An exact infinity is met or missed, and what has no budget is not judged.
    told = np.isfinite(scale) & np.isfinite(expected) & (expected != 0)
    with np.errstate(divide="ignore"):
        units = np.abs(np.divide(expected, scale, out=np.zeros_like(scale), where=told))
    judged = np.count_nonzero(np.isfinite(scale))
    return bool(told.any() and units.max() <= limits[0] and np.sqrt(np.square(units).sum() / judged) <= limits[1])
