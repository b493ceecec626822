"""What runs tell of a golden case: exact results, an error budget for each element, and how many digits are right."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from npattn.module import Module
from npattn.ops.context import replacing
from npattn.oracle.budgets import (
    Budget,
    Given,
    measure_budgets,
    measure_in_range_of_float32,
    measure_unsaturated,
    named_results,
    observe,
)
from npattn.oracle.comparison import LEAST_JUDGED
from npattn.oracle.dividing import divide
from npattn.oracle.extended import extend
from npattn.oracle.formats import FLOAT32, Format
from npattn.oracle.pairs import keeping_apart
from npattn.oracle.progress import Passes
from npattn.oracle.sampling import sample_queries
from npattn.oracle.steps import Recorded, reader_of
from npattn.oracle.threads import most_threads, pass_threads

__all__ = ["Measured", "Refused", "are_judgeable", "judge_overflowing", "measure", "right_digits"]


MAX_SWAYED = 0.1
"""Share of an output's elements that near ties may sway."""
CROWDED_RATE = 0.25
"""Near ties of one comparison, for each element of the outputs, that are hardly the draw's fault."""
FEW_TIES_RATE = 1e-3
"""Near ties, for each element of the outputs, that seldom sway so many. Then the certificate is begun at once, and has
mostly ended before the errors of many runs are held beside it."""


class Measured(NamedTuple):
    """What runs tell of a case.

    Attributes
    ----------
    expected : dict of numpy.ndarray
        The exact results, in float64.
    exact : dict of numpy.ndarray
        The same in longdouble; nothing where they aren't asked for.
    budgets : dict of Budget
        By the result's name.
    steps : dict of (numpy.ndarray, Budget)
        Those that the same runs tell of.
    """

    expected: dict[str, np.ndarray]
    exact: dict[str, np.ndarray]
    budgets: dict[str, Budget]
    steps: dict[str, tuple[np.ndarray, Budget]]


class Refused(NamedTuple):
    """Inputs in place of which others are to be drawn.

    Attributes
    ----------
    crowded : bool
        Whether one comparison has near ties throughout, as of what only rounding moves: others will have them too.
    near_ties : int
        Of which some sway an output too much; 0 where that is not why.
    """

    crowded: bool
    near_ties: int


def measure(
    module: Module,
    given: Given,
    format: Format,
    seed: int,
    *,
    certify: bool | str,
    passes: Passes,
    anything: bool,
    steps: Mapping[str, tuple[int, ...]],
    known: dict[str, np.ndarray] | None,
    overflow: str,
    most_ties: float = np.inf,
    wary: bool = False,
) -> Measured | Refused:
    """Make the runs of a case, as many at once as there are cores; refuse it where other inputs are to be drawn.

    They are if near ties sway too much of an output, or too little can be judged of a result; where `anything` will do,
    they are not. Where there are more near ties than `most_ties`, they are before any run; where one is `wary`, after
    forward passes alone, if near ties are why. The certificate is begun as soon as a refusal is unlikely. The `steps`,
    with their shapes, are measured by the same runs, and have no say in what is drawn. The exact results may be
    `known`, but for steps. `overflow` says what of the caller's has become infinite.
    """
    system = Recorded(module, reader_of(steps)) if steps else module
    certificate: list[dict[str, np.ndarray]] = []
    begun, swayed = not certify, False
    num_outputs = sum(y.size for y in given.upstream.values())
    passes.expect(int(bool(certify)))

    def results_in(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in found.items() if name not in steps}

    def refuse() -> Refused:
        passes.drop()
        crowded = any(event.near.size > CROWDED_RATE * num_outputs for event in observed.events)
        return Refused(crowded, observed.near_ties if swayed else 0)

    def accept(budgets: Mapping[str, Budget]) -> bool:
        nonlocal swayed
        swayed = observed.near_ties > 0 and any(budgets[name].widened > MAX_SWAYED for name in given.upstream)
        if not anything and (swayed or not are_judgeable(results_in(budgets))):
            return False
        begin_certificate()  # what the first near ties don't sway too much the others hardly ever do
        return True

    def begin_certificate() -> None:
        nonlocal begun
        if not begun:
            begun = True
            threads.add(lambda: certificate.append(run_in_longdouble(module, given, certify == "sample")))

    with pass_threads() as threads:
        most = np.inf if anything else most_ties
        observed = observe(system, given, format, seed, known, most_ties=most)
        if observed.near_ties > most:
            return refuse()
        expected = results_in(observed.expected)
        validate_expected(module, expected, overflow)
        at_once = most_threads(observed.mean_array) > 1
        if at_once and (anything or observed.near_ties <= FEW_TIES_RATE * num_outputs):
            begin_certificate()
        budgets = measure_budgets(
            observed,
            system,
            given,
            format,
            seed,
            threads=threads,
            passes=passes,
            accept=None if anything else accept,
            # In training batch norm takes a near tie to a whole channel.
            outputs_first=wary or bool(getattr(module, "training", False)),
        )
        if budgets is None:
            return refuse()
        begin_certificate()
        budgets = measure_unsaturated(
            budgets, observed, system, given, format, seed=seed, threads=threads, passes=passes
        )
        threads.end()
    if certificate:
        passes.end()
    found = {name: (observed.expected[name], budgets[name]) for name in steps}
    return Measured(expected, certificate[0] if certificate else {}, results_in(budgets), found)


def are_judgeable(budgets: Mapping[str, Budget]) -> bool:
    """Tell whether enough of each result can be judged for it to pass."""
    return all(map(is_judgeable, budgets.values()))


def is_judgeable(budget: Budget) -> bool:
    """Tell whether enough of a result can be judged for it to pass."""
    return not budget.scale.size or bool(np.isfinite(budget.scale).mean() >= LEAST_JUDGED)


def judge_overflowing(
    found: Measured, module: Module, given: Given, *, format: Format, seed: int, passes: Passes
) -> Measured:
    """Judge results of which too little can be, as what leads to them overflows, by what kernels in float32 err by."""
    names = [name for name, budget in found.budgets.items() if not is_judgeable(budget)]
    if not names or format.least_exponent == FLOAT32.least_exponent:
        return found
    with pass_threads() as threads:
        budgets = measure_in_range_of_float32(
            names, found.expected, module, given, format=format, seed=seed, threads=threads, passes=passes
        )
    return found._replace(budgets=found.budgets | budgets)


def validate_expected(module: Module, expected: Mapping[str, np.ndarray], overflow: str = "") -> None:
    """Validate exact results: less than half of each may be NaN. Warn of those that are so here and there."""
    for name, value in expected.items():
        unknown = np.isnan(value)
        if unknown.any():
            first = ", ".join(map(str, np.argwhere(unknown)[0]))
            text = (
                f"golden: {module}: {name} is NaN in {unknown.sum()} of {value.size} elements, the first at [{first}]"
            )
            text += f", as {overflow}" if overflow else ""
            if unknown.mean() >= LEAST_JUDGED:
                todo = ": give smaller values, or another dtype" if overflow else ""
                if not overflow and not all(a.size for a in expected.values()):
                    todo = "; the batch is empty: a system that has no meaning then refuses it in check_inputs"
                raise ValueError(f"{text}; expected numbers, or no kernel can be judged by it{todo}")
            warnings.warn(f"{text}; there no kernel is judged", stacklevel=5)


def run_in_longdouble(module: Module, given: Given, sampled: bool = False) -> dict[str, np.ndarray]:
    """Compute the results with more digits than float64 has, where the machine can; of attention, a sample of them."""
    sampling = replacing(sample_queries) if sampled else nullcontext()
    with np.errstate(all="ignore"), keeping_apart(module), replacing(divide), sampling:
        return {name: np.asarray(y) for name, y in named_results(module, given.each(extend)).items()}


def right_digits(found: np.ndarray, exact: np.ndarray, budget: np.ndarray) -> float:
    """Count decimal digits: of the largest error, against the size of the tensor or of its budget."""
    most = np.finfo(np.float64).precision
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        return np.nan
    finite = np.isfinite(budget) & np.isfinite(exact)  # an infinity is met or missed
    error = np.max(np.abs(found[finite] - exact[finite]), initial=0)
    if not error:
        return float(most)
    size = max(np.sqrt(np.mean(np.square(values[finite]))) for values in (exact, budget))
    return float(np.clip(-np.log10(error / size), 0, most))
