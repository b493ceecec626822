"""Variances estimated from a few runs, and their effective degrees of freedom: shrinkage by empirical Bayes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy

__all__ = ["effective_degrees_of_freedom", "inverse_trigamma", "shrink_variances"]

OUTLIER_PROBABILITY = 1e-7
"""An estimate as large as it is with no more than this probability is of an element that errs more than its like."""


def shrink_variances(
    variance: np.ndarray, size: np.ndarray, runs: int, unmoved: np.ndarray | bool = False
) -> np.ndarray:
    """Shrink variances estimated from a few runs towards what their like predict: empirical Bayes.

    An estimate from so few runs is too small by luck here and there. What a variance should be is first predicted
    from the size of the result and from its place along each axis; the estimates are then shrunk towards that, the
    more so the better it predicts them.

    Parameters
    ----------
    variance : numpy.ndarray
        Mean squares of that many errors.
    size : numpy.ndarray
        Magnitudes of the results.
    runs : int
    unmoved : numpy.ndarray of bool, optional
        Elements on which all runs agree, and err all the same: a number that was near one of a coarser format on its
        way, to which all runs rounded it. They tell nothing of how far the next run may be off, and get the
        prior's variance.

    Returns
    -------
    numpy.ndarray

    Notes
    -----
    Smyth: Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments,
    2004, section 6: the prior is a scaled inverse chi-square distribution, whose degrees of freedom follow from the
    spread of the logarithms.

    Examples
    --------
    >>> estimates = np.mean(np.random.RandomState(0).standard_normal((8, 1000)) ** 2, axis=0)
    >>> shrunk = shrink_variances(estimates, np.ones(1000), runs=8)
    >>> bool(estimates.min() < 0.2), bool(shrunk.min() > 0.7)
    (True, True)
    """
    known = (variance > 0) & ~np.asarray(unmoved)
    if not known.any():
        return variance
    logarithms = np.log(variance, out=np.zeros_like(variance), where=known)
    predicted = np.full(variance.shape, logarithms[known].mean())
    for groups in groupings(size, known):
        rest = np.where(known, logarithms - predicted, 0).ravel()
        # A group of a few says little: it counts as if some average ones stood in it.
        shift = np.bincount(groups.ravel(), rest) / (np.bincount(groups.ravel(), known.ravel()) + 4)
        predicted += shift[groups]
    rest = (logarithms - predicted)[known]
    digamma, polygamma = scipy.special.digamma, scipy.special.polygamma
    spread = np.var(rest) - polygamma(1, runs / 2)
    prior_freedom = 2 * inverse_trigamma(spread) if spread > 1e-3 else 2e3
    # The mean of the logarithm of a mean square is not the logarithm of its mean.
    level = rest.mean() - digamma(runs / 2) + np.log(runs / 2) + digamma(prior_freedom / 2) - np.log(prior_freedom / 2)
    # Where variances span many decades, the prediction's mean is beyond what any run has shown.
    prior_variance = np.minimum(np.exp(predicted + level), variance.max())
    shrunk = (prior_freedom * prior_variance + runs * variance) / (prior_freedom + runs)
    # A few of many, as those that a maximum's gradient goes to: the prior knows nothing of them.
    outlying = variance > scipy.special.chdtri(runs, OUTLIER_PROBABILITY) / runs * prior_variance
    shrunk = np.where(outlying, np.maximum(shrunk, variance), shrunk)
    return np.where(unmoved, np.maximum(prior_variance, shrunk), shrunk)


def groupings(size: np.ndarray, known: np.ndarray) -> Iterator[np.ndarray]:
    """Yield groupings of a tensor's elements: by magnitude, then by the index along each axis."""
    bins = max(1, min(32, int(known.sum()) // 64))
    edges = np.quantile(size[known], np.arange(1, bins) / bins)
    yield np.searchsorted(edges, size)
    for axis, length in enumerate(size.shape):
        if 1 < length < size.size:
            index = np.arange(length).reshape((length,) + (1,) * (size.ndim - axis - 1))
            yield np.broadcast_to(index, size.shape)


def inverse_trigamma(value: float) -> float:
    """Solve ψ'(x) = value by Newton's method on 1 / ψ', which is nearly a straight line."""
    polygamma = scipy.special.polygamma
    x = 0.5 + 1 / value
    for _ in range(20):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)


def effective_degrees_of_freedom(mean_squares: np.ndarray, size: int) -> float:
    """Estimate how many independent errors a tensor holds, from the spread of its mean square over runs.

    The mean square of m independent normal errors has variance 2/m. A few runs may show less spread than there is;
    the estimate is a lower bound that holds in 19 of 20 cases.

    Parameters
    ----------
    mean_squares : numpy.ndarray, (runs,)
        Of the tensor's errors in units of budget.
    size : int
        The number of its elements, which the estimate never exceeds.

    Returns
    -------
    float
        At least 1.
    """
    mean = mean_squares.mean()
    if not mean:
        return 1.0
    runs = len(mean_squares)
    spread = np.var(mean_squares / mean, ddof=1) * (runs - 1) / scipy.special.chdtri(runs - 1, 0.95)
    return float(np.clip(2 / max(spread, 1e-300), 1.0, size))
