"""Golden cases: inputs, exact results, and the error that a correct kernel may make in each of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.checks import describe_type, require_integers
from npattn.module import Module
from npattn.oracle.budgets import measure_budgets, named_results, observe
from npattn.oracle.comparison import Comparison, compare
from npattn.oracle.formats import FORMATS, Format, find_format, representable
from npattn.oracle.values import generic_values

__all__ = ["Case", "golden"]

DRAWS = 20
"""Inputs that are tried until no ranking of whole positions is close."""


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """One golden case of one system: what to feed a kernel, and how to judge what comes out.

    Attributes
    ----------
    module : Module
    dtype : str
        The format: "float32", "tf32", "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
    seed : int
    inputs, params, upstream : dict of numpy.ndarray, float32
        What the kernel is given, all of it exactly representable in `dtype`: inputs and parameters by name, and the
        gradient of each output under the output's name.
    expected : dict of numpy.ndarray, float64
        The exact results: ``"output"`` (or ``"output.0"``, …), ``"x.grad"`` by the input's name,
        ``"conv.weight.grad"`` by the parameter's.
    budget : dict of numpy.ndarray, float64
        The unit of each element's error. An element whose unit is infinite, because the format can't hold what leads
        to it, is not judged.
    freedom : dict of float
        How many independent errors each result's root mean square is an average of.
    digits : dict of float
        How many decimal digits of `expected` are right, by the same computation in longdouble: of the largest error
        against the tensor's root mean square, or that of its budget where it is larger, as it is for a gradient that
        vanishes. NaN on machines whose longdouble is float64.
    """

    module: Module
    dtype: str
    seed: int
    inputs: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    upstream: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    budget: dict[str, np.ndarray]
    freedom: dict[str, float]
    digits: dict[str, float]

    @property
    def format(self) -> Format:
        """The format of the kernel's numbers."""
        return FORMATS[self.dtype]

    def __repr__(self) -> str:
        shape = "x".join(map(str, next(iter(self.inputs.values())).shape))
        return f"Case({self.module}, {shape}, {self.dtype}, seed {self.seed})"

    def compare(self, results: Mapping[str, Any]) -> Comparison:
        """Judge a kernel's results.

        Parameters
        ----------
        results : mapping of str to array
            Any of the names in `expected`: NumPy arrays, torch tensors of any device and dtype, CuPy or JAX arrays, or
            whatever speaks DLPack.

        Returns
        -------
        Comparison

        Raises
        ------
        TypeError
            If `results` is no mapping, or a value no array of floating-point numbers.
        ValueError
            If it is empty, or holds a name that is not in `expected`.
        """
        return compare(self, results)

    def assert_matches(self, results: Mapping[str, Any]) -> None:
        """Raise AssertionError, with the report as its text, unless `compare` passes."""
        __tracebackhide__ = True  # pytest then points at the caller's line
        report = self.compare(results)
        if not report.passed:
            raise AssertionError(str(report))


def golden(
    module: Module,
    *,
    batch: int = 1,
    height: int = 16,
    width: int = 16,
    dtype: Any = "float16",
    seed: int = 0,
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

    Returns
    -------
    Case

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these.

    Notes
    -----
    Where a ranking of whole positions (a sampled position, the k highest scores) is so close that rounding may turn it
    over, other inputs are drawn; other close decisions (the sign before a ReLU, the maximum of many) widen the budgets
    of the elements that hang on them. ``derivations/error_budgets.md`` derives the budgets.

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
            f"golden: module is {describe_type(module)}; expected a system, such as CATALOGUE['pam'].example()"
        )
    require_integers("golden", batch=batch, height=height, width=width)
    require_integers("golden", least=0, seed=seed)
    format = find_format(dtype, "golden")
    for draw in range(DRAWS):
        given = draw_case(module, batch, height, width, format, seed, draw)
        observed = observe(module, *given, format, seed)
        if not observed.decisive:
            break
    with ThreadPoolExecutor(1) as pool:
        exact = pool.submit(run_in_longdouble, module, given)
        budgets = measure_budgets(observed, module, *given, format, seed)
    params, inputs, upstream = ({name: a.astype(np.float32) for name, a in values.items()} for values in given)
    return Case(
        module,
        format.name,
        seed,
        inputs,
        params,
        upstream,
        observed.expected,
        {name: budget.scale for name, budget in budgets.items()},
        {name: budget.freedom for name, budget in budgets.items()},
        {
            name: right_digits(observed.expected[name], exact, budgets[name].scale)
            for name, exact in exact.result().items()
        },
    )


def draw_case(
    module: Module, batch: int, height: int, width: int, format: Format, seed: int, draw: int
) -> tuple[dict[str, np.ndarray], ...]:
    """Draw parameters, inputs and upstream gradients that a format holds."""
    params, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed)
    if draw:
        _, inputs = generic_values(module, batch=batch, height=height, width=width, seed=seed + 2**20 * draw)
    random = np.random.RandomState([seed, 2])
    upstream = {
        name: random.standard_normal(shape) for name, shape in module.output_shapes(batch, height, width).items()
    }
    return tuple(
        {name: representable(a, format) for name, a in values.items()} for values in (params, inputs, upstream)
    )


def run_in_longdouble(module: Module, given: tuple[dict[str, np.ndarray], ...]) -> dict[str, np.ndarray]:
    """Compute the results with more digits than float64 has, where the machine can."""
    params, inputs, upstream = ({n: a.astype(np.longdouble) for n, a in values.items()} for values in given)
    with np.errstate(all="ignore"):
        return named_results(module, params, inputs, upstream)


def right_digits(found: np.ndarray, exact: np.ndarray, budget: np.ndarray) -> float:
    """Count decimal digits: of the largest error, against the size of the tensor or of its budget."""
    most = np.finfo(np.float64).precision
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        return np.nan
    finite = np.isfinite(budget)
    error = np.max(np.abs(found - exact)[finite], initial=0)
    if not error:
        return float(most)
    size = max(np.sqrt(np.mean(np.square(values[finite]))) for values in (exact, budget))
    return float(np.clip(-np.log10(error / size), 0, most))
