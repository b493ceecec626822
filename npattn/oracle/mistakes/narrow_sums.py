"""Which call of a primitive adds up in a narrower format: by where errors are large, and by how much.

In which order a kernel adds is not known, so its errors aren't either, but where they come from tells how large they
are in every element of every result: as large as those that random errors of the sums make there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.oracle.formats import FORMATS
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.matching import Search
from npattn.oracle.mistakes.mistake import Mistake, mistake
from npattn.oracle.mistakes.narrow_calls import MAX_FEW_NUMBERS, MIN_LOG_RATIO, sites_of
from npattn.oracle.mistakes.narrowing import MULTIPLYING
from npattn.oracle.mistakes.planting import Site
from npattn.oracle.mistakes.spreading import are_spread_alike

__all__ = ["narrow_sums"]

NUM_DRAWS = 3
"""Passes with random errors, of every call."""
FORMATS_OF_SUMS = "bfloat16", "float16"
ERROR_SCALES = 0.3, 2.4
"""How large errors of sums may be, in those of one rounding: a kernel adds some numbers at once, or one by one."""
MAX_ERROR_FACTOR = 2.0
"""Factor by which errors of a result may be larger or smaller than the others tell."""


def noisy(name: str, number: int, *, back: bool) -> Mistake:
    """Make errors of one rounding to bfloat16 in what calls add up."""
    random = np.random.Generator(np.random.SFC64([number, 11]))

    def err(a: Any) -> Any:
        if getattr(a, "dtype", np.dtype(int)).kind != "f" or not a.size:
            return a
        size = np.sqrt((np.square(a) + np.mean(np.square(a))) / 2) * FORMATS["bfloat16"].unit_roundoff
        return a + size * random.standard_normal(a.shape)

    def each(values: Any) -> Any:
        return tuple(map(err, values)) if isinstance(values, tuple) else err(values)

    def apply(original: Any, *arguments: Any, **options: Any) -> Any:
        y, backward = original(*arguments, **options)
        return each(y), (lambda *dy, **others: each(backward(*dy, **others))) if back else backward

    return mistake(name, "sums accumulated", "precision", apply)


def narrow_sums(search: Search) -> list[Candidate]:
    """Look for calls whose sums, accumulated in a narrower format, make errors as large as the wrong results' are.

    Parameters
    ----------
    search : Search

    Returns
    -------
    list of Candidate
        The likeliest, and those that can't be told apart from it; they are never sure.
    """
    found = sorted(models(search), key=lambda one: -one[0])
    likeliest: dict[tuple[str, Site], Candidate] = {}  # of each call, in forward alone or on the way back too
    for likelihood, one in found:
        if found[0][0] - likelihood < MIN_LOG_RATIO:
            (narrow, site), *_ = one.mistakes
            likeliest.setdefault((narrow.primitive, site), one)
    return list(likeliest.values())


def models(search: Search) -> Iterator[tuple[float, Candidate]]:
    """Yield calls, and how likely errors are that come from there."""
    for name, site in sites_of(search):
        if name not in MULTIPLYING:
            continue
        for back in (False, True):
            if search.clock.now() > search.end:
                search.complete = False
                return
            places = [((noisy(name, number, back=back), site),) for number in range(NUM_DRAWS)]
            passes = [found for place in places if (found := search.forward_of(place, search.run)) is not None]
            if len(passes) == NUM_DRAWS:
                yield from weigh(search, passes, name, site)


def weigh(
    search: Search, passes: list[dict[str, np.ndarray]], name: str, site: Site
) -> Iterator[tuple[float, Candidate]]:
    """Measure how likely errors are as large as those of some passes, times one number."""
    case, results = search.case, search.ruler.results
    log_ratios: dict[str, float] = {}
    sizes: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for result, got in results.items():
        judged = np.isfinite(case.budget[result])
        if not judged.any():
            continue
        exact, own = case.expected[result], np.square(case.budget[result])[judged]
        drawn = np.mean([np.square(one[result] - exact) for one in passes], axis=0)[judged]
        sizes[result] = np.square(got - exact)[judged], drawn + 1e-2 * np.mean(drawn), own
        if result in search.wrong and exact.size >= MAX_FEW_NUMBERS:
            log_ratios[result] = float(np.log(np.mean(sizes[result][0]) / max(np.mean(drawn), 1e-300)) / 2)
    if not log_ratios:
        return
    mean = float(np.mean(list(log_ratios.values())))
    if not all(abs(ratio - mean) <= math.log(MAX_ERROR_FACTOR) for ratio in log_ratios.values()):
        return  # nor where errors are 0 or not finite
    if not all(are_spread_alike(search, result, passes[0][result]) for result in log_ratios):
        return  # one number alone may be as far off as all sums together
    scale = math.exp(mean)
    likelihood = sum(
        min(case.freedom[result], errors.size) * log_density(errors, scale**2 * drawn + own)
        for result, (errors, drawn, own) in sizes.items()
    )
    for format in FORMATS_OF_SUMS:
        factor = scale * 2.0 ** (FORMATS[format].precision - FORMATS["bfloat16"].precision)
        narrower = FORMATS[format].precision < case.format.precision
        if narrower and ERROR_SCALES[0] <= factor <= ERROR_SCALES[1]:
            one = mistake(name, f"sums accumulated in {format}", "precision", noisy)
            distances = dict.fromkeys(results, 0.0) | {
                n: abs(r - mean) / math.log(MAX_ERROR_FACTOR) for n, r in log_ratios.items()
            }
            yield likelihood, Candidate(((one, site),), Misfit(distances, dict.fromkeys(results, 1.0)))


def log_density(squares: np.ndarray, variances: np.ndarray) -> float:
    """Return the mean logarithm of the density of errors, of variances that so few passes have told."""
    freedom = NUM_DRAWS
    with np.errstate(all="ignore"):
        terms = -0.5 * np.log(variances) - (freedom + 1) / 2 * np.log1p(squares / (freedom * variances))
    return float(np.mean(terms)) if np.isfinite(terms).all() else -math.inf
