"""Golden cases: inputs, exact results, and the error that a correct kernel may make in each of them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from npattn.checks import describe_type, require_choice, require_integers
from npattn.module import Module
from npattn.oracle.budgets import Given, limits_of, measure_budgets, named_results, observe
from npattn.oracle.case import Case
from npattn.oracle.comparison import LEAST_JUDGED
from npattn.oracle.formats import Format, find_format, representable
from npattn.oracle.special import VALUES, special
from npattn.oracle.values import generic_values

__all__ = ["golden"]

MAX_DRAWS = 20
"""Inputs that are tried until near ties sway little of the outputs."""
MAX_SWAYED = 0.1
"""Share of an output's elements that near ties may sway."""


def golden(
    module: Module,
    *,
    batch: int = 1,
    height: int = 16,
    width: int = 16,
    dtype: Any = "float16",
    seed: int = 0,
    values: str = "generic",
) -> Case:
    """Make a golden case: generic inputs in a format, the exact results, and an error budget for each element.

    Parameters
    ----------
    module : Module
    batch, height, width : int
    dtype : str or dtype, default "float16"
        "float32", "tf32", "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
    seed : int, default 0
        The same seed gives the same inputs on every version of NumPy.
    values : {"generic", "large", "ties", "zeros"}, default "generic"
        Inputs without zeros and ties; so large that a careless exponential overflows; of a few distinct numbers; or
        with channels and an image of zeros.

    Returns
    -------
    Case

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these, or half of an exact result is NaN: nothing could be judged there.

    Warns
    -----
    UserWarning
        If a smaller part of an exact result is NaN, as that of a query whose keys are all masked.

    Notes
    -----
    A near tie, which rounding may flip (the sign before a ReLU, the maximum of many), widens the budgets of the
    elements that hang on it. Where that is much of an output, as with a position that is sampled, other inputs are
    drawn. ``derivations/error_budgets.md`` derives the budgets.

    Examples
    --------
    >>> import npattn
    >>> module = npattn.EfficientChannelAttention(channels=8)
    >>> case = golden(module, height=6, width=5, dtype="float16")
    >>> x, weight = (a.astype(np.float16) for a in (case.inputs["x"], case.params["conv.weight"]))
    >>> run = module({"conv.weight": weight}, x)
    >>> case.compare({"output": run.output}).passed
    True
    >>> case.compare({"output": run.output * np.float16(1.01)}).passed
    False
    """
    if not isinstance(module, Module):
        raise TypeError(
            f"golden: module is the class {module.__name__}; expected an instance, such as {module.__name__}.example()"
            if isinstance(module, type)
            else f"golden: module is {describe_type(module)}; expected a system, such as CATALOGUE['pam'].example()"
        )
    require_integers("golden", batch=batch, height=height, width=width)
    require_integers("golden", least=0, seed=seed)
    format = find_format(dtype, "golden")
    require_choice("golden", VALUES, values=values)
    sizes = batch, height, width
    for draw in range(MAX_DRAWS if values in ("generic", "large") else 1):  # other ties and zeros would be as near
        given = draw_case(module, sizes, format, seed, draw, values=values)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            more_exact = pool.submit(run_in_longdouble, module, given)  # the longest
            observed = observe(module, given, format, seed)
            validate_expected(module, observed.expected)
            budgets = measure_budgets(observed, module, given, format, seed, pool=pool)
        if all(budgets[name].widened <= MAX_SWAYED for name in given.upstream):
            break
    single = given.each(np.float32)
    exact = more_exact.result()
    return Case(
        module=module,
        dtype=format.name,
        seed=seed,
        values=values,
        inputs=single.inputs,
        params=single.params,
        upstream=single.upstream,
        expected=observed.expected,
        budget={name: budget.scale for name, budget in budgets.items()},
        limits={name: limits_of(budget) for name, budget in budgets.items()},
        freedom={name: budget.freedom for name, budget in budgets.items()},
        digits={name: right_digits(y, exact[name], budgets[name].scale) for name, y in observed.expected.items()},
    )


def validate_expected(module: Module, expected: Mapping[str, np.ndarray]) -> None:
    """Validate exact results: less than half of each may be NaN. Warn of those that are so here and there."""
    for name, value in expected.items():
        unknown = np.isnan(value)
        if unknown.any():
            first = ", ".join(map(str, np.argwhere(unknown)[0]))
            text = (
                f"golden: {module}: {name} is NaN in {unknown.sum()} of {value.size} elements, the first at [{first}]"
            )
            if unknown.mean() >= LEAST_JUDGED:
                raise ValueError(f"{text}; expected numbers, or no kernel can be judged by it")
            warnings.warn(f"{text}; there no kernel is judged", stacklevel=3)


def draw_case(
    module: Module, sizes: tuple[int, int, int], format: Format, seed: int, draw: int, *, values: str
) -> Given:
    """Draw parameters, inputs and upstream gradients that a format holds."""
    batch, height, width = sizes
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    if draw:
        _, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed + 2**20 * draw)
    random = np.random.RandomState([seed, 2])
    upstream = {name: random.standard_normal(shape) for name, shape in module.output_shapes(*sizes).items()}
    return special(values, module, Given(params, inputs, upstream), format).each(lambda a: representable(a, format))


def run_in_longdouble(module: Module, given: Given) -> dict[str, np.ndarray]:
    """Compute the results with more digits than float64 has, where the machine can."""
    with np.errstate(all="ignore"):
        return named_results(module, given.each(np.longdouble))


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
