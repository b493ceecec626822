"""What the errors of some runs say of one tensor: the unit of each element's error, and how far near ties throw it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy

from npattn.oracle.budgets.limits import Budget, rms_limit, worst_limit
from npattn.oracle.budgets.shrinkage import effective_degrees_of_freedom, shrink_variances
from npattn.oracle.formats import Format, ulp

__all__ = [
    "JUMP_MARGIN",
    "Errors",
    "Jumps",
    "Noise",
    "add_jumps",
    "add_round",
    "allow_jumps",
    "cut_elements",
    "errors_of",
    "measure_noise",
    "take",
    "wider",
]

Errors = list[dict[str, np.ndarray]]
"""Of some runs, by the result's name."""
BLOCK_SIZE, MIN_BLOCK_SIZE, MIN_BLOCKS = 2**14, 2**10, 8
"""Elements that are looked at at once: fewer of a small tensor, beside whose case many runs' errors in float64 are much
memory."""
JUMP_MARGIN = 1.25
"""How far beyond the largest jump seen a result may jump."""
HALVINGS = 5
"""Of the range in which it is sought how many units of budget that may be."""


def take(runs: Errors, name: str) -> np.ndarray:
    """Take one result's errors, (runs, *shape), out of what the runs have made, which then holds them no longer."""
    return np.array([errors.pop(name) for errors in runs])


def errors_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much a run errs: by nothing where both have the same infinity."""
    with np.errstate(all="ignore"):
        return np.where(found == expected, 0, found - expected).astype(np.float32)


class Noise(NamedTuple):
    """What runs in which no near tie was flipped say of a tensor.

    Attributes
    ----------
    scale : numpy.ndarray
        The unit of each element's error.
    judged : numpy.ndarray of bool
        Whether all runs are finite there.
    freedom : float
        The effective degrees of freedom.
    undisturbed : numpy.ndarray
        The unit by the smaller errors alone: those of runs that have come near no tie.
    """

    scale: np.ndarray
    judged: np.ndarray
    freedom: float
    undisturbed: np.ndarray


def measure_noise(errors: np.ndarray, expected: np.ndarray, format: Format) -> Noise:
    """Measure one tensor's noise, by its errors in some runs: (runs, *shape)."""
    if not expected.size:
        return Noise(np.zeros(expected.shape), np.ones(expected.shape, bool), 1.0, np.zeros(expected.shape))
    seen = summarise(errors)
    judged = seen.judged.reshape(expected.shape)
    variance = shrink_variances(
        seen.variance.reshape(expected.shape), np.abs(expected), len(errors), seen.unmoved.reshape(expected.shape)
    )
    # A result is rounded to the format at least: an error that is uniform between half an ulp below and above.
    scale = np.asarray(np.sqrt(np.maximum(variance, np.square(ulp(expected, format)) / 12)))
    untouched = (expected == 0) & (seen.variance == 0).reshape(expected.shape)
    scale[untouched] = max(1e-3 * np.sqrt(np.mean(np.square(scale))), format.smallest)
    freedom = effective_degrees_of_freedom(mean_squares_of(errors, judged, scale), expected.size)
    undisturbed = seen.lower_quartile.reshape(expected.shape) / scipy.special.ndtri(0.625)
    undisturbed += format.unit_roundoff * np.sqrt(np.mean(np.square(expected)))
    return Noise(scale, judged, freedom, undisturbed)


class Summary(NamedTuple):
    """What a few runs say of each element, in a row.

    Attributes
    ----------
    judged : numpy.ndarray of bool
        Whether all errors are finite; where they aren't, the others count as 0.
    variance : numpy.ndarray
        Their mean square.
    unmoved : numpy.ndarray of bool
        Whether all runs err, and by the same.
    lower_quartile : numpy.ndarray
        Of their magnitudes.
    """

    judged: np.ndarray
    variance: np.ndarray
    unmoved: np.ndarray
    lower_quartile: np.ndarray


def summarise(errors: np.ndarray) -> Summary:
    """Summarise errors, (runs, *shape), element by element."""
    size = errors[0].size
    found = Summary(np.empty(size, bool), np.empty(size), np.empty(size, bool), np.empty(size))
    for block in cut_elements(size):
        some = errors.reshape(len(errors), size)[:, block].astype(np.float64)
        judged = np.isfinite(some).all(axis=0)
        some[:, ~judged] = 0
        found.judged[block] = judged
        found.variance[block] = np.mean(np.square(some), axis=0)
        found.unmoved[block] = (some[0] != 0) & (some == some[0]).all(axis=0)
        found.lower_quartile[block] = np.quantile(np.abs(some), 0.25, axis=0)
    return found


def mean_squares_of(errors: np.ndarray, judged: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return each run's mean square in units of budget, where a judged element's errors count."""
    total = np.zeros(len(errors))
    for start in range(0, scale.size, BLOCK_SIZE):
        block = slice(start, start + BLOCK_SIZE)
        unit, counts = scale.reshape(-1)[block], judged.reshape(-1)[block]
        for number, run in enumerate(errors.reshape(len(errors), scale.size)):
            units = np.divide(run[block], unit, out=np.zeros_like(unit), where=counts)
            total[number] += np.sum(np.square(units))
    return total / scale.size


def cut_elements(size: int) -> list[slice]:
    """Cut a tensor's elements into as many at a time as stay in a cache, all runs' errors in float64.

    None stands alone beside others: of a single one NumPy adds up the runs in another order.

    Examples
    --------
    >>> [block.stop - block.start for block in cut_elements(2049)], cut_elements(1), cut_elements(0)
    ([1024, 1025], [slice(0, 1, None)], [])
    """
    step = min(BLOCK_SIZE, max(MIN_BLOCK_SIZE, size // MIN_BLOCKS))
    starts = range(0, max(size - 1, min(size, 1)), step)
    return [slice(start, start + step if start + step in starts else size) for start in starts]


def wider(budget: Budget, errors: np.ndarray) -> Budget:
    """Allow what some further runs are off by as well, where that is clearly more."""
    more = np.empty(budget.scale.shape)
    for block in cut_elements(more.size):
        some = errors.reshape(len(errors), -1)[:, block].astype(np.float64)
        more.flat[block] = np.sqrt(np.mean(np.square(np.where(np.isfinite(some), some, 0)), axis=0))
    return budget._replace(scale=np.where(more > 2 * budget.scale, more, budget.scale))


class Jumps(NamedTuple):
    """How far near ties throw a tensor's elements.

    Attributes
    ----------
    farthest : numpy.ndarray
        Each element: it may hang on several groups, and all may fall otherwise.
    limit : float
        How many units of budget that may be at most, so that no group's jumps pass the tensor's limits.
    """

    farthest: np.ndarray
    limit: float


def allow_jumps(noise: Noise, jumps: Jumps | None) -> Budget:
    """Make a tensor's budget: its noise, and how far near ties may throw each element, if there are any."""
    scale, freedom = noise.scale, noise.freedom
    if not scale.size:
        return Budget(scale, freedom)
    widest = scale if jumps is None else widen(scale, jumps)
    return Budget(np.where(noise.judged, widest, np.inf), freedom, float(np.mean(widest > 8 * noise.undisturbed)))


def widen(scale: np.ndarray, jumps: Jumps) -> np.ndarray:
    """Return units of which jumps are no more than their limit."""
    return np.maximum(scale, JUMP_MARGIN * jumps.farthest / jumps.limit)


def add_round(runs: Errors, noises: Mapping[str, Noise], before: Mapping[str, Jumps]) -> dict[str, Jumps]:
    """Return how far near ties throw the results of known noise, by the runs of a round and the rounds before."""
    return {name: add_jumps(take(runs, name), noise, before.get(name)) for name, noise in noises.items()}


def add_jumps(errors: np.ndarray, noise: Noise, before: Jumps | None = None) -> Jumps:
    """Return how far near ties throw a tensor's elements, by its errors in a round, (runs, *shape), and those before.

    One tie may throw all of a tensor at once, which its root mean square, an average of many errors of noise, is not
    made for. So each group of ties has to pass the limits of both.
    """
    if not errors[0].size:
        return Jumps(noise.scale, np.inf)
    farthest = np.empty(noise.scale.shape)
    for block in cut_elements(farthest.size):
        some = errors.reshape(len(errors), farthest.size)[:, block].astype(np.float64)
        farthest.flat[block] = np.abs(np.where(np.isfinite(some), some, np.inf)).sum(axis=0)
    jumps = Jumps(farthest, worst_limit(farthest.size, noise.freedom))
    allowed = rms_limit(noise.freedom)
    if farthest_rms(errors, noise, jumps) > allowed:
        # As few units as the root mean square's own limit are few enough.
        low, high = np.log(min(allowed, jumps.limit)), np.log(jumps.limit)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            passes = farthest_rms(errors, noise, Jumps(farthest, np.exp(middle))) <= allowed
            low, high = (middle, high) if passes else (low, middle)
        jumps = Jumps(farthest, float(np.exp(low)))
    if before is None:
        return jumps
    return Jumps(np.maximum(before.farthest, farthest), min(before.limit, jumps.limit))


def farthest_rms(errors: np.ndarray, noise: Noise, jumps: Jumps) -> float:
    """Return the root mean square, in units of budget, of the largest jumps: a margin more than what is noise."""
    scale = widen(noise.scale, jumps)
    mean_square = mean_squares_of(errors, noise.judged & np.isfinite(scale), scale).max()
    return float(np.sqrt(1 + JUMP_MARGIN**2 * max(mean_square - 1, 0)))
