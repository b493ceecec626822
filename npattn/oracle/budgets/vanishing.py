"""Results that vanish: what kernels that compute in float32 may be off by where the format cancels to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from npattn.oracle.budgets.limits import Budget
from npattn.oracle.budgets.noise import Errors
from npattn.oracle.budgets.passes import Given
from npattn.oracle.budgets.runs import FIRST_IN_FLOAT32
from npattn.oracle.formats import FLOAT32, Format
from npattn.oracle.progress import Passes

__all__ = ["allow_cancelling", "errors_in_float32", "vanishes"]

NUM_FIRST_RUNS, NUM_OTHER_RUNS, NUM_RARE_RUNS = 1, 3, 12
"""Runs in float32 as a whole: the first, which may settle that float32 errs by far less; others; and more of them where
hardly one errs."""
RARE_SHARE = 0.75
"""Share of the squared errors of four runs that one run has, on average, where errors are rare; of normal ones 0.62."""
SETTLED_BELOW, SETTLED_ABOVE = 1 / 16, 1 / 8
"""Runs in float32 settle that no other will matter if their largest error is so small a share of the budget, and their
usual one no less than so many times what the ratio of the unit roundoffs says, so that nothing has cancelled."""


def errors_in_float32(
    budgets: Mapping[str, Budget],
    expected: Mapping[str, np.ndarray],
    format: Format,
    run: Callable[[int, int, Collection[str]], Errors],
    passes: Passes,
) -> dict[str, np.ndarray]:
    """Return the errors of some runs in float32, (runs, *shape), of those results that vanish.

    Parameters
    ----------
    budgets : mapping of str to Budget
    expected : mapping of str to numpy.ndarray
    format : Format
    run : callable
        ``run(first, count, names)`` makes the errors of so many runs, by their number.
    passes : Passes
        Where the runs are counted.

    Returns
    -------
    dict of numpy.ndarray
    """
    names = [name for name, budget in budgets.items() if vanishes(expected[name], budget.scale)]
    found: Errors = []

    def add(count: int) -> None:
        passes.expect(count)
        found.extend(run(FIRST_IN_FLOAT32 + len(found), count, names))

    def unsettled() -> list[str]:
        return [name for name in names if not are_settled(of_result(name), budgets[name].scale, format)]

    def of_result(name: str) -> np.ndarray:
        return np.array([errors[name] for errors in found])

    if names:
        add(NUM_FIRST_RUNS)
        if unsettled():
            add(NUM_OTHER_RUNS)
            if any(is_rare(of_result(name)) for name in unsettled()):
                add(NUM_RARE_RUNS)
    return {name: of_result(name) for name in names}


def vanishes(expected: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a result is 0 but for rounding, as the gradient of what a softmax does not see.

    In the format it may cancel to the last bit, weights being 0 and 1, while a kernel that computes in float32 is off
    by the rounding of what cancels there.
    """
    judged = np.isfinite(scale)
    return bool((np.abs(expected) < scale)[judged].all()) and bool(judged.any())


def are_settled(errors: np.ndarray, scale: np.ndarray, format: Format) -> bool:
    """Tell whether errors in float32, (runs, *shape), are those of the format, but for the digits that it has more.

    Then the format has not cancelled to the last bit, and nothing that further runs show would widen the budget.

    Examples
    --------
    >>> from npattn.oracle.formats import FORMATS
    >>> scale, usual = np.full(4, 0.5), np.array([[2.0, -1.0, 3.0, 1.0]])
    >>> [are_settled(size * usual, scale, FORMATS["bfloat16"]) for size in (1e-4, 1e-7, 1e-1)]
    [True, False, False]
    """
    with np.errstate(invalid="ignore"):  # infinities, and NaN, settle nothing
        shares = np.abs(errors.astype(np.float64)) / scale
    usual = FLOAT32.unit_roundoff / format.unit_roundoff
    return bool(shares.max() <= SETTLED_BELOW and np.median(shares) >= SETTLED_ABOVE * usual)


def is_rare(errors: np.ndarray) -> bool:
    """Tell whether hardly one run errs, as where a result mostly cancels in float32 too: others may err by more."""
    squares = np.square(errors.astype(np.float64))
    total = squares.sum(axis=0)
    shares = np.divide(squares.max(axis=0), total, out=np.ones_like(total), where=total > 0)
    return bool(np.mean(shares) > RARE_SHARE)


def allow_cancelling(
    budgets: dict[str, Budget], expected: Mapping[str, np.ndarray], given: Given, format: Format
) -> dict[str, Budget]:
    """Allow gradients that are 0 throughout, or but for rounding, what their terms may be off by.

    Runs that compute as the reference does may cancel them to the last bit, as the gradient of a softmax over one
    position; another formula has terms of the others' size that are rounded apart. What cancels here and there by luck
    alone gets the usual unit.
    """
    gradients = {name: a for name, a in expected.items() if name.endswith(".grad") and a.size}
    sizes = [np.sqrt(np.mean(np.square(a))) for a in (*given.upstream.values(), *gradients.values()) if a.size]
    least = max([format.smallest, *(format.unit_roundoff * size for size in sizes if np.isfinite(size))])
    found = {}
    for name, a in gradients.items():
        scale = budgets[name].scale
        judged = np.isfinite(scale)
        usual = float(np.sqrt(np.mean(np.square(scale[judged])))) if judged.any() else 0.0
        if not a.any():
            usual = max(usual, least)
        if np.max(np.abs(a), where=judged, initial=0) < usual:
            found[name] = budgets[name]._replace(scale=np.maximum(scale, usual))
    return budgets | found
