"""Whether errors stand in as many elements as those of an arithmetic do, and how far their sizes may lie apart."""

from __future__ import annotations

import numpy as np

from npattn.oracle.mistakes.matching import Search

__all__ = ["CHANCE_LOG_FACTOR", "are_spread_alike", "most_apart"]

MAX_ERROR_FACTOR = 2.5
"""Factor by which the errors of a result may be larger or smaller than those of arithmetic in a format."""
CHANCE_LOG_FACTOR = 2.0
"""How much more the logarithm of that factor may be for one number; for many it falls as the root of their count."""


def most_apart(search: Search, name: str) -> float:
    """Return the factor that lies at most between the errors of a result and those of an arithmetic."""
    count = min(search.case.freedom[name], search.case.expected[name].size)
    return float(MAX_ERROR_FACTOR * np.exp(CHANCE_LOG_FACTOR / np.sqrt(max(count, 1.0))))


def are_spread_alike(search: Search, name: str, results: np.ndarray) -> bool:
    """Tell whether a result's errors stand in as many elements as those of an arithmetic do, which stand in all."""
    ruler, exact = search.ruler, search.case.expected[name]
    kernel, arithmetic = (ruler.errors(name, a, exact) for a in (ruler.results[name], np.asarray(results, np.float64)))
    return share(arithmetic) <= most_apart(search, name) * share(kernel)


def share(errors: np.ndarray) -> float:
    """Return the share of elements that have errors: 1 if all are as large, 1 / N if one of N alone has any."""
    with np.errstate(all="ignore"):
        found = np.mean(errors) ** 2 / np.mean(np.square(errors))
    return float(found) if np.isfinite(found) else 0.0
