"""Error budgets: how far each result of a correct kernel may lie from the exact one.

``derivations/error_budgets.md`` derives what stands here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from scipy.special import chdtri, digamma, ndtri, polygamma

from npattn.module import Module, as_tuple
from npattn.oracle.formats import FLOAT64, FORMATS, Format, ulp
from npattn.oracle.rounding import Rounding, Selections

__all__ = [
    "Budget",
    "Given",
    "Observed",
    "limits_of",
    "measure_budgets",
    "named_results",
    "observe",
    "rms_limit",
    "worst_limit",
]

RUNS = 8
"""Runs with random rounding, from whose errors scales are estimated."""
SINGLE = FORMATS["float32"]
"""What kernels of narrower formats compute in."""
FUSED_RUNS, SINGLE_RUNS = 2, 4
"""Runs whose backward pass is in float32, and runs that are so as a whole, where a result vanishes."""
PARTS = 4
"""Into so many parts close decisions are dealt, each of which is turned over in a run of its own."""
ROUNDS = 3
"""How often they are dealt."""
REACH = 6.0
"""A decision is close if it is won by less than this many times the noise of what is compared."""
JUMP = 1.25
"""How far beyond the largest jump seen a result may jump."""
FALSE_ALARM = 1e-5
"""Probability with which a limit is passed if errors are normal and of the size that the budget says."""
SLACK = 1.4
"""How much further limits stand: a correct kernel may round a little more often than the reference does."""


class Given(NamedTuple):
    """What a forward and a backward pass are given, by name: numbers that a format holds."""

    params: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    upstream: dict[str, np.ndarray]

    def each(self, function: Callable[[np.ndarray], Any]) -> Given:
        """Apply a function to every array."""
        return Given(*({name: function(a) for name, a in values.items()} for values in self))


class Budget(NamedTuple):
    """The budget of one tensor.

    Attributes
    ----------
    scale : numpy.ndarray, float64
        The unit of each element's error: the root mean square of a correct kernel's, or more where a decision is close.
        Infinite where the format can't hold the result: such elements are not judged.
    freedom : float
        How many independent errors the tensor's root mean square is an average of.
    widened : float
        Share of the elements whose unit is several times what it would be without close decisions.
    """

    scale: np.ndarray
    freedom: float
    widened: float = 0.0


class Recorded(Selections):
    """Remember what was compared, and how, in the exact run."""

    def __init__(self):
        super().__init__()
        self.margins = []

    def compare(self, left, right, ordering):
        self.margins.append(np.subtract(left, right))
        return super().compare(left, right, ordering)

    def winners(self, values, axis):
        self.margins.append(np.array(values))
        return super().winners(values, axis)

    def order(self, values, axis):
        self.margins.append(np.array(values))
        return super().order(values, axis)


class Compared(Selections):
    """Measure, in a run with random rounding, the noise of what is compared; count close decisions."""

    def __init__(self, margins: list[np.ndarray]):
        super().__init__()
        self.margins = iter(margins)
        self.noise = []
        self.close = 0

    def compare(self, left, right, ordering):
        margin = self.add_noise(np.subtract(left, right))
        self.close += int((np.abs(margin) < REACH * self.noise[-1]).sum())
        return super().compare(left, right, ordering)

    def winners(self, values, axis):
        margin = self.add_noise(values)
        rivals = margin >= margin.max(axis=axis, keepdims=True) - 2**0.5 * REACH * self.noise[-1]
        self.close += int((rivals.sum(axis=axis) > 1).sum())
        return super().winners(values, axis)

    def order(self, values, axis):
        gaps = np.diff(np.sort(self.add_noise(values), axis=axis), axis=axis)
        self.close += int((gaps < 2**0.5 * REACH * self.noise[-1]).sum())
        return super().order(values, axis)

    def add_noise(self, values):
        margin = next(self.margins)
        error = (values - margin)[np.isfinite(margin) & np.isfinite(values)]
        self.noise.append(float(np.sqrt(np.mean(np.square(error)))) if error.size else 0.0)
        return margin


class Turned(Selections):
    """Turn close decisions over, a part of them in each run of a round, so that each has its turn in every round."""

    def __init__(self, observed: Observed, seed: int, number: int):
        super().__init__()
        self.events = iter(zip(observed.margins, observed.noise, strict=True))
        self.round, self.part = divmod(number, PARTS)
        # All rounds and runs share the random numbers by which decisions are dealt out.
        self.random = np.random.Generator(np.random.SFC64([seed, 1]))
        self.dealt = 0

    def deal(self, count: int) -> np.ndarray:
        """Choose this run's part of the next close decisions.

        Two that are turned over together might cancel. So they are numbered, and those of a round stand together by
        another digit of their number in each: two of one block of PARTS ** ROUNDS share no part in some round.
        """
        number = self.dealt + np.arange(count)
        self.dealt += count
        block, place = np.divmod(number, PARTS**ROUNDS)
        shift = np.random.Generator(np.random.SFC64([self.round, 2])).integers(0, PARTS, block.max(initial=0) + 1)
        return (place // PARTS**self.round + shift[block]) % PARTS == self.part

    def compare(self, left, right, ordering):
        margin, noise = next(self.events)
        near = np.flatnonzero(np.abs(margin) < REACH * noise)
        mine = near[self.deal(near.size)]
        if left.shape == margin.shape and left.flags.writeable:
            # The number itself crosses over, as far as noise may take it, so that what is computed from it does too.
            left.flat[mine] -= margin.flat[mine] + np.copysign(REACH * noise, margin.flat[mine])
            return super().compare(left, right, ordering)
        found = super().compare(left, right, ordering)
        found.flat[mine] = ~ordering(margin.flat[mine], 0)
        return found

    def winners(self, values, axis):
        margin, noise = next(self.events)
        found = super().winners(values, axis)
        if not noise:  # equal numbers stay equal in every kernel, and the first of them wins
            return found
        near = margin >= margin.max(axis=axis, keepdims=True) - 2**0.5 * REACH * noise
        near &= near.sum(axis=axis, keepdims=True) > 1
        mine = np.zeros(near.shape, bool)
        mine[near] = self.deal(int(near.sum()))
        lot = np.where(mine, self.random.random(near.shape), 0)
        return np.where(mine.any(axis=axis, keepdims=True), lot.argmax(axis=axis, keepdims=True), found)

    def order(self, values, axis):
        _, noise = next(self.events)
        moved = self.random.standard_normal((ROUNDS * PARTS, *values.shape))[self.round * PARTS + self.part]
        return super().order(values + moved * (REACH / 2 * noise), axis)


def named_results(module: Module, given: Given, between: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Run forward, call `between`, run backward; name the results.

    Returns
    -------
    dict of array
        ``"output"`` (or ``"output.0"``, …), ``"x.grad"`` by the input's name, ``"conv.weight.grad"`` by the
        parameter's.
    """
    params, inputs, upstream = given
    run = module(params, *inputs.values())
    several = isinstance(run.output, tuple)
    outputs = {f"output.{i}" if several else "output": y for i, y in enumerate(as_tuple(run.output))}
    dy = tuple(upstream[name] for name in outputs)
    between()
    dx, grads = run.backward(dy if several else dy[0])
    found = {name: g for name, g in zip(inputs, as_tuple(dx), strict=True) if g is not None} | grads
    return outputs | {f"{name}.grad": gradient for name, gradient in found.items()}


def run_on(rounding: Rounding, module: Module, given: Given, *, fused: bool = False) -> dict[str, np.ndarray]:
    """Run forward and backward on rounding arrays; return plain ones.

    A fused backward pass rounds nothing but its results.
    """

    def between() -> None:
        rounding.fused = fused

    with np.errstate(all="ignore"):
        found = named_results(module, given.each(rounding.array), between)
        rounding.fused = False
        return {name: rounding.round(np.array(a)) if fused else np.asarray(a) for name, a in found.items()}


class Observed(NamedTuple):
    """What one exact run and one with random rounding tell.

    Attributes
    ----------
    expected : dict of numpy.ndarray
        The exact results, in float64.
    margins : list of numpy.ndarray
        What was compared, in the order of the comparisons.
    noise : list of float
        How far rounding moves it, root mean square.
    close : int
        Decisions that rounding may turn over.
    """

    expected: dict[str, np.ndarray]
    margins: list[np.ndarray]
    noise: list[float]
    close: int


def observe(module: Module, given: Given, format: Format, seed: int) -> Observed:
    """Compute the exact results, and how close decisions were on the way.

    Parameters
    ----------
    module : Module
    given : Given
    format : Format
    seed : int
        Of the roundings.
    """
    with np.errstate(all="ignore"):
        expected = named_results(module, given)
    recorded = Recorded()
    run_on(Rounding(FLOAT64, selections=recorded), module, given)
    compared = Compared(recorded.margins)
    run_on(Rounding(format, [seed, 0], compared), module, given)
    return Observed(expected, recorded.margins, compared.noise, compared.close)


def measure_budgets(
    observed: Observed, module: Module, given: Given, format: Format, seed: int, *, pool: Executor
) -> dict[str, Budget]:
    """Run several times with random rounding, in the threads of a pool; estimate the budget of each result."""

    def runs(first: int, count: int, **options: Any) -> dict[str, np.ndarray]:
        """Make the errors of some runs, (runs, *shape), by the result's name."""
        found = list(pool.map(functools.partial(run, **options), range(first, first + count)))
        return {name: np.array([errors[name] for errors in found], np.float64) for name in observed.expected}

    def run(
        number: int, format: Format = format, selections: Callable[[int], Selections] | None = None, fused: bool = False
    ) -> dict[str, np.ndarray]:
        rounding = Rounding(format, [seed, number], selections and selections(number - RUNS - 1))
        found = run_on(rounding, module, given, fused=fused)
        return {name: errors_of(found[name], value) for name, value in observed.expected.items()}

    turned = functools.partial(Turned, observed, seed)
    errors = runs(1, RUNS)
    jumps = runs(1 + RUNS, ROUNDS * PARTS if observed.close else 0, selections=turned)
    budgets = {name: estimate(errors[name], jumps[name], y, format) for name, y in observed.expected.items()}
    if format.precision == SINGLE.precision:
        return budgets
    fused = runs(101, FUSED_RUNS, fused=True)
    budgets = {name: wider(budget, fused[name]) for name, budget in budgets.items()}
    vanishing = [name for name, budget in budgets.items() if vanishes(observed.expected[name], budget.scale)]
    if vanishing:
        single = runs(201, SINGLE_RUNS, format=SINGLE)
        budgets |= {name: wider(budgets[name], single[name]) for name in vanishing}
    return budgets


def errors_of(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return by how much a run errs: by nothing where both have the same infinity."""
    with np.errstate(all="ignore"):
        return np.where(found == expected, 0, found - expected).astype(np.float32)


def vanishes(expected: np.ndarray, scale: np.ndarray) -> bool:
    """Tell whether a result is 0 but for rounding, as the gradient of what a softmax does not see.

    In the format it may cancel to the last bit, weights being 0 and 1, while a kernel that computes in float32 is off
    by the rounding of what cancels there.
    """
    judged = np.isfinite(scale)
    return bool((np.abs(expected) < scale)[judged].all()) and bool(judged.any())


def wider(budget: Budget, errors: np.ndarray) -> Budget:
    """Allow what some further runs are off by as well, where that is clearly more."""
    more = np.sqrt(np.mean(np.square(np.where(np.isfinite(errors), errors, 0)), axis=0))
    return budget._replace(scale=np.where(more > 2 * budget.scale, more, budget.scale))


def estimate(errors: np.ndarray, jumps: np.ndarray, expected: np.ndarray, format: Format) -> Budget:
    """Estimate one tensor's budget from the errors of runs, (runs, *shape), and of those with decisions turned over."""
    if not expected.size:
        return Budget(np.zeros(expected.shape), 1.0)
    judged = np.isfinite(errors).all(axis=0)
    errors = np.where(judged, errors, 0)
    unmoved = (errors[0] != 0) & (errors == errors[0]).all(axis=0)
    variance = steady(np.mean(np.square(errors), axis=0), np.abs(expected), len(errors), unmoved)
    # A result is rounded to the format at least: an error that is uniform between half an ulp below and above.
    scale = np.sqrt(np.maximum(variance, np.square(ulp(expected, format)) / 12))
    untouched = (expected == 0) & ~errors.any(axis=0)
    scale[untouched] = max(1e-3 * np.sqrt(np.mean(np.square(scale))), format.smallest)
    units = np.mean(np.square(errors / scale), axis=tuple(range(1, errors.ndim)))
    freedom = independent(units, expected.size)
    widest = scale
    if len(jumps):
        # An element may hang on decisions of several parts, and all of them may fall otherwise.
        rounds = np.abs(np.where(np.isfinite(jumps), jumps, np.inf)).reshape(-1, PARTS, *expected.shape)
        largest = rounds.sum(axis=1).max(axis=0)
        widest = np.maximum(scale, JUMP * largest / worst_limit(expected.size, freedom))
    # The smaller errors of an element are those of runs in which no decision fell otherwise.
    undisturbed = np.quantile(np.abs(errors), 0.25, axis=0) / ndtri(0.625)
    undisturbed += format.unit * np.sqrt(np.mean(np.square(expected)))
    return Budget(np.where(judged, widest, np.inf), freedom, float(np.mean(widest > 8 * undisturbed)))


def steady(variance: np.ndarray, size: np.ndarray, runs: int, unmoved: np.ndarray | bool = False) -> np.ndarray:
    """Draw variances estimated from a few runs towards those of their like: empirical Bayes.

    An estimate from so few runs is too small by luck here and there. What a variance should be is first predicted
    from the size of the result and from its place along each axis; the estimates are then drawn towards that, the
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
        way, to which all runs rounded it. They tell nothing of how far the next run may be off, and get what is
        foreseen.

    Returns
    -------
    numpy.ndarray

    Notes
    -----
    Smyth: Linear Models and Empirical Bayes Methods for Assessing Differential Expression in Microarray Experiments,
    2004, section 6: the prior is a scaled inverse chi-square distribution, whose degrees of freedom follow from the
    spread of the logarithms.
    """
    known = (variance > 0) & ~np.asarray(unmoved)
    if not known.any():
        return variance
    logarithms = np.log(variance, out=np.zeros_like(variance), where=known)
    predicted = np.full(variance.shape, logarithms[known].mean())
    for groups in alike(size, known):
        rest = np.where(known, logarithms - predicted, 0).ravel()
        # A group of a few says little: it counts as if some average ones stood in it.
        shift = np.bincount(groups.ravel(), rest) / (np.bincount(groups.ravel(), known.ravel()) + 4)
        predicted += shift[groups]
    rest = (logarithms - predicted)[known]
    spread = np.var(rest) - polygamma(1, runs / 2)
    prior = 2 * inverse_trigamma(spread) if spread > 1e-3 else 2e3
    # The mean of the logarithm of a mean square is not the logarithm of its mean.
    level = rest.mean() - digamma(runs / 2) + np.log(runs / 2) + digamma(prior / 2) - np.log(prior / 2)
    # Where variances span many decades, the prediction's mean is beyond what any run has shown.
    foreseen = np.minimum(np.exp(predicted + level), variance.max())
    drawn = (prior * foreseen + runs * variance) / (prior + runs)
    return np.where(unmoved, np.maximum(foreseen, drawn), drawn)


def alike(size: np.ndarray, known: np.ndarray) -> Iterator[np.ndarray]:
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
    x = 0.5 + 1 / value
    for _ in range(20):
        step = polygamma(1, x) * (1 - polygamma(1, x) / value) / polygamma(2, x)
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)


def independent(units: np.ndarray, size: int) -> float:
    """Estimate how many independent errors a tensor holds, from the spread of its mean square over runs.

    The mean square of m independent normal errors has variance 2/m. A few runs may show less spread than there is;
    the estimate is a lower bound that holds in 19 of 20 cases.
    """
    mean = units.mean()
    if not mean:
        return 1.0
    spread = np.var(units / mean, ddof=1) * (len(units) - 1) / chdtri(len(units) - 1, 0.95)
    return float(np.clip(2 / max(spread, 1e-300), 1.0, size))


def worst_limit(count: int, freedom: float = np.inf) -> float:
    """How many units the worst of so many elements may be off.

    The largest of `count` normal errors exceeds the quantile used here with probability `FALSE_ALARM`; `SLACK` times
    that is allowed. Few independent errors may be larger all at once: by a factor that one case in a hundred exceeds.
    """
    together = np.sqrt(chdtri(freedom, 0.01) / freedom) if freedom < count else 1.0
    return SLACK * float(together * np.sqrt(chdtri(1, FALSE_ALARM / max(count, 1))))


def rms_limit(freedom: float) -> float:
    """How many units the root mean square of a tensor may be, if it is an average of so many independent errors.

    It exceeds the quantile used here with probability `FALSE_ALARM`; `SLACK` times that is allowed.
    """
    return SLACK * float(np.sqrt(chdtri(freedom, FALSE_ALARM) / freedom))


def limits_of(budget: Budget) -> tuple[float, float]:
    """Return the limits of one tensor's worst element and of its root mean square."""
    judged = int(np.isfinite(budget.scale).sum())
    return worst_limit(judged, budget.freedom), rms_limit(budget.freedom)
