"""Whether errors are those of arithmetic in a narrower format: of their size in every result."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from npattn.oracle.budgets import run_on
from npattn.oracle.formats import FORMATS, Format
from npattn.oracle.mistakes.candidates import Candidate
from npattn.oracle.mistakes.distances import Misfit
from npattn.oracle.mistakes.matching import Search, is_forward
from npattn.oracle.mistakes.mistake import Mistake, mistake
from npattn.oracle.mistakes.narrow_calls import MIN_LOG_RATIO, narrow_calls
from npattn.oracle.mistakes.narrow_sums import narrow_sums
from npattn.oracle.mistakes.narrowing import BACKWARD, at_pass
from npattn.oracle.mistakes.running import UNFIT, run_with
from npattn.oracle.mistakes.spreading import CHANCE_LOG_FACTOR, are_spread_alike, most_apart
from npattn.oracle.mistakes.written import format_written, is_written_in, rounded_results
from npattn.oracle.rounding import Rounding

__all__ = ["NARROW", "roundings"]

MAX_FEW_NUMBERS = 8
"""Numbers whose errors are along them by chance."""
NARROW = "tf32", "float16", "bfloat16"
STEPS = tuple(f"in {name}" for name in FORMATS)
"""How mistakes are named that round a step's value or operands, or all that a pass reads or gives."""
MAX_WRITTEN_DISTANCE = 2.0
"""Distance of sizes up to which results that are written in a format are those of arithmetic in it."""
ALONG_COSINE = 0.8
"""Cosine between errors and results from which errors are a wrong factor, not those of rounding."""
ONE_SIDED_COSINE = 0.6
"""Cosine between errors and a constant from which they lie on one side, as those of no rounding do."""
SAME_ERRORS_COSINE = 0.9
"""Cosine between errors and those of a rounding at one step from which they are its own, but for some that flip."""


class NarrowSums(Rounding):
    """Errors of a format whose sums are accumulated in a narrower one."""

    def __init__(self, format: Any, accumulator: Any, seed: Any) -> None:
        super().__init__(format, seed)
        self.accumulator_roundoff = 2.0**-accumulator.precision


def ways(search: Search, written: Format | None) -> Iterator[tuple[str, Rounding]]:
    """Yield the arithmetics that are narrower than the case's: of the format that results are written in, if any."""
    own = search.case.format
    if written:
        yield f"arithmetic in {written.name}", Rounding(written, [search.case.seed, 7])
        return
    for name in NARROW:
        if FORMATS[name].operand_precision < own.operand_precision:
            yield f"arithmetic in {name}", Rounding(FORMATS[name], [search.case.seed, 7])
    for name in NARROW[1:]:
        yield f"sums accumulated in {name}", NarrowSums(own, FORMATS[name], [search.case.seed, 7])


def roundings(search: Search) -> tuple[list[Candidate], bool]:
    """Look for arithmetic whose errors are of the size of those of the wrong results, or are those very errors.

    Parameters
    ----------
    search : Search

    Returns
    -------
    list of Candidate
        Where only sizes are known, their distances say how far these lie apart, in factors that `most_apart` allows.
    bool
        Whether it is sure.
    """
    written = format_written(search)
    found = rounded_results(search, written) if written else []
    if found:
        return found, True
    found = arithmetics(search, written) if written else []
    calls, sure = narrow_calls(search)
    if written and found:
        return [*found, *cast_products(search, written), *calls], sure or not calls
    if sure:
        return calls, True
    steps, complete = at_one_step(search)
    if steps:
        return as_likely(search, steps, calls), complete
    if calls or any(abs(along(search, name)) > ALONG_COSINE for name in search.wrong):
        return [dataclasses.replace(one, results={}) for one in calls], False
    found = narrow_sums(search)
    if not found and not any(is_one_sided(search, name) for name in search.wrong):
        found = arithmetics(search, None)
    return found, False


def as_likely(search: Search, *groups: list[Candidate]) -> list[Candidate]:
    """Leave those that can't be told apart from the likeliest."""
    found = [(search.ruler.measure(one.results, grown=False), one) for group in groups for one in group]
    best, _ = max(found, key=lambda pair: search.ruler.better(pair[0], search.right))
    return [one for misfit, one in found if search.ruler.better(best, misfit) < MIN_LOG_RATIO]


def arithmetics(search: Search, written: Format | None) -> list[Candidate]:
    """Look for arithmetic that makes errors of such sizes; in the format that results are written in, it is sure."""
    found: list[Candidate] = []
    for name, rounding in ways(search, written):
        if search.clock.now() > search.end:
            search.complete = False
            break
        try:
            results = run_on(rounding, search.recorded(search.module), search.given)
        except TypeError:
            continue  # a system's own code that no rounding array goes through
        misfit = compare_sizes(search, results)
        spread = all(are_spread_alike(search, name, results[name]) for name in search.wrong)
        if (misfit.fits and spread) or (written and misfit.worst <= MAX_WRITTEN_DISTANCE):
            precise: Mistake = mistake("", name, "precision", run_on)
            found.append(Candidate(((precise, 0),), misfit, results if written else {}))
    return sorted(found, key=lambda one: one.misfit.worst)


def cast_products(search: Search, written: Format) -> list[Candidate]:
    """Look for products in the format that results are written in, as a framework casts them: they may be all of it."""
    place = at_pass(written.name, ("operands", "value", "handed on"), BACKWARD[-1]), 0
    found = search.forward_of((place,), search.run)
    if found is None or not all(is_written_in(found[n], written.name) for n in search.wrong if is_forward(n)):
        return []
    one = Candidate((place,), compare_sizes(search, found), found)
    return [one] if one.misfit.worst <= MAX_WRITTEN_DISTANCE else []


def at_one_step(search: Search) -> tuple[list[Candidate], bool]:
    """Look for a step alone, or what goes in or comes out, that is rounded to a narrower format.

    A kernel's own errors turn a rounding the other way where a number lies between two of the format: such a result is
    further off than its budget, and all others are where the rounding puts them. Whether all were tried is told too.
    """
    found: list[Candidate] = []
    complete = True
    rounded = [one for one in search.places if one.name.endswith(STEPS) and one.way != "backward"]
    for place in ((one, site) for one in rounded for site in search.places[one]):
        if search.clock.now() > search.end:
            complete = search.complete = False
            break
        try:
            with np.errstate(all="ignore"), search.memory.at_work():
                results = run_with(search.run, (place,))(search.module, *search.given)
        except UNFIT:
            continue
        misfit = compare_sizes(search, results)
        if misfit.fits and all(likeness(search, name, results[name]) > SAME_ERRORS_COSINE for name in search.wrong):
            found.append(Candidate((place,), misfit, results))
    return sorted(found, key=lambda one: one.misfit.worst), complete


def likeness(search: Search, name: str, wrong: np.ndarray) -> float:
    """Return the cosine between a result's errors and those of a pass with a mistake; 0 of few numbers."""
    return cosine(search, name, wrong - search.case.expected[name])


def along(search: Search, name: str) -> float:
    """Return the cosine between a result's errors and what it should be; 0 of few numbers, which say nothing."""
    return cosine(search, name, search.case.expected[name])


def is_one_sided(search: Search, name: str) -> bool:
    """Tell whether a result's errors lie on one side of what it should be, far more than chance would have them."""
    exact = search.case.expected[name]
    count = min(search.case.freedom[name], exact.size)
    return abs(cosine(search, name, np.ones(exact.shape))) > ONE_SIDED_COSINE + CHANCE_LOG_FACTOR / np.sqrt(
        max(count, 1.0)
    )


def cosine(search: Search, name: str, other: np.ndarray) -> float:
    """Return the cosine between a result's errors and other numbers of its shape; 0 of few, which say nothing."""
    judged = np.isfinite(search.case.budget[name])
    error = (search.ruler.results[name] - search.case.expected[name])[judged].astype(np.float64)
    along = other[judged].astype(np.float64)
    if along.size < MAX_FEW_NUMBERS or not (np.isfinite(error).all() and np.isfinite(along).all()):
        return 0.0
    lengths = float(np.linalg.norm(error) * np.linalg.norm(along))
    return float(np.vdot(error, along)) / lengths if lengths else 0.0


def compare_sizes(search: Search, results: dict[str, np.ndarray]) -> Misfit:
    """Compare the sizes of errors, result by result; those of results that are right may be smaller alone."""
    distances, squares = {}, {}
    for name, found in search.right.squares.items():
        _, square = search.ruler.distance(name, np.asarray(results[name], np.float64), search.case.expected[name])
        ratio = np.log((square + 1e-3) / (found + 1e-3)) / 2
        if name not in search.wrong:
            ratio = max(0.0, ratio)
        most = np.log(most_apart(search, name))
        distances[name] = float(np.abs(ratio) / most) if np.isfinite(ratio) else np.inf
        squares[name] = float(np.exp(2 * np.abs(ratio))) if np.isfinite(ratio) else np.inf
    return Misfit(distances, squares)
