"""Golden cases: inputs, exact results, and the error that a correct kernel may make in each of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from npattn.attention import CATALOGUE
from npattn.checks import brief, describe_type, did_you_mean, require_booleans, require_choice, require_integers
from npattn.module import Module
from npattn.ops.primitive import replacing
from npattn.oracle.budgets import Budget, Given, limits_of, measure_budgets, named_results, observe
from npattn.oracle.case import Case
from npattn.oracle.comparison import LEAST_JUDGED
from npattn.oracle.dividing import divide
from npattn.oracle.drawing import choose_params, draw_case, require_drawn
from npattn.oracle.extended import extend
from npattn.oracle.formats import Format, find_format
from npattn.oracle.layouts import LAYOUTS, constant_axes, lay_all
from npattn.oracle.own import read_own
from npattn.oracle.pairs import keeping_apart
from npattn.oracle.progress import Passes, check_progress
from npattn.oracle.sampling import sample_queries
from npattn.oracle.soundness import require_sound
from npattn.oracle.special import VALUES
from npattn.oracle.steps import Recorded, first_steps, measure_steps, reader_of
from npattn.oracle.systems import SYSTEMS
from npattn.oracle.tensors import describe_overflow
from npattn.oracle.threads import pass_threads

__all__ = ["golden"]

MAX_DRAWS = 20
"""Inputs that are tried until near ties sway little of the outputs."""
MAX_SWAYED = 0.1
"""Share of an output's elements that near ties may sway."""


def golden(
    module: Module,
    *,
    batch: int | None = None,
    height: int | None = None,
    width: int | None = None,
    dtype: Any = "float16",
    seed: int = 0,
    values: str = "generic",
    layout: str = "contiguous",
    inputs: Any = None,
    params: Any = None,
    upstream: Any = None,
    certify: bool | str = True,
    steps: bool = False,
    progress: Callable[[int, int], object] | None = None,
    **unknown: Any,
) -> Case:
    """Make a golden case: inputs in a format, the exact results, and an error budget for each element.

    Parameters
    ----------
    module : Module
    batch, height, width : int, optional
        By default those of `inputs`, or else 1, 16 and 16. A batch may be empty.
    dtype : str or dtype, default "float16"
        "float32", "tf32", "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
    seed : int, default 0
        The same seed gives the same inputs and parameters on every version of NumPy: the first drawn of which no result
        hangs on a near tie too much, or is 0 throughout, as behind a relu that lets nothing by.
    values : {"generic", "large", "ties", "zeros", "ones"}, default "generic"
        Inputs without zeros and ties; so large that a careless exponential overflows; of a few distinct numbers; or
        with channels and, where the format holds what it leads to, an image of zeros. With "ones" inputs are generic,
        and upstream gradients are 1.
    layout : {"contiguous", "broadcast", "transposed", "sliced", "channels-last"}, default "contiguous"
        How inputs and upstream gradients lie in memory: with the last axis fastest; with stride 0 along axes along
        which they don't change (all that is drawn is then the same for every image, of a few); with the first axis
        fastest; with a step of 2 in a larger array; with channels fastest. `Case.arrays` hands them over in any
        library.
    inputs : array, tuple of array or mapping of str to array, optional
        The caller's own in place of those that are drawn: the one input, all in call order, or all by name.
    params : mapping of str to array, optional
        The caller's own parameters and buffers, as `Module.from_state_dict` takes them.
    upstream : array, tuple of array or mapping of str to array, optional
        The caller's own upstream gradients: that of the one output, of all in order, or of all by the output's name.
    certify : {True, False, "sample"}, default True
        Whether the exact results are computed once more, in longdouble, to say how many of their digits are right. On
        large cases that is much of the time. Without it `Case.digits` are NaN; nothing else changes. With "sample" an
        attention of 128 queries or more is computed in longdouble for one query in 16, and for the others in float64 by
        its definition; all else is in longdouble. Results of one query each, the output and queries' gradients, are
        then held to longdouble in these 16ths, and sums over all queries to the sum of both.
    steps : bool, default False
        Whether `Case.steps` are measured at once, and not when they are first asked for.
    progress : callable, optional
        Called as ``progress(done, expected)`` whenever one of the passes that tell a case's budgets and digits has
        ended. More may be expected as it goes on: where results vanish, or other inputs are drawn.
    **unknown
        Refused, with what may be meant: hyperparameters are the module's.

    Returns
    -------
    Case

    Raises
    ------
    TypeError, ValueError
        If an argument is none of these; if a shape is not what the module expects, or sizes are given that contradict
        it; if half of an exact result is NaN: nothing could be judged there; if a system that npattn doesn't bring has
        a wrong backward pass, which is looked at once in a process.

    Warns
    -----
    UserWarning
        If a smaller part of an exact result is NaN, as that of a query whose keys are all masked.

    Notes
    -----
    A near tie, which rounding may flip (the sign before a ReLU, the maximum of many), widens the budgets of the
    elements that hang on it. Where that is much of an output, as with a position that is sampled, other inputs are
    drawn, unless they are the caller's; so they are where what leads to a result overflows the format in most of it.
    ``derivations/error_budgets.md`` derives the budgets.

    The caller's arrays may be NumPy's, torch's, CuPy's, JAX's, or of whatever speaks DLPack, in any floating dtype.
    They are copied. What the format does not hold is rounded to it, and the case says so: `Case.rounded`.

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

    On a tensor of the caller's:

    >>> golden(module, inputs=np.linspace(0, 1, 64).reshape(1, 8, 2, 4), dtype="bfloat16")
    Case(EfficientChannelAttention(channels=8, kernel_size=None, gamma=2, b=1), 1x8x2x4, bfloat16, given inputs,
    inputs/x rounded in 62 of 64 values by at most 0.0019, seed 0)
    """
    require_instance(module, unknown)
    require_integers("golden", least=0, **{name: n for name, n in [("batch", batch), ("seed", seed)] if n is not None})
    require_integers("golden", **{name: n for name, n in [("height", height), ("width", width)] if n is not None})
    check_certify(certify)
    check_progress("golden", progress)
    require_booleans("golden", steps=steps)
    format = find_format(dtype, "golden")
    require_choice("golden", VALUES, values=values)
    require_choice("golden", LAYOUTS, layout=layout)
    require_drawn(values, {"inputs": inputs, "upstream": upstream})
    sizes = {"batch": batch, "height": height, "width": width}
    own = read_own(module, format, sizes, {"inputs": inputs, "params": params, "upstream": upstream})
    require_sound(module, own.sizes)
    drawn_anew = inputs is None and values in ("generic", "large", "ones")  # other ties and zeros would be as near
    passes = Passes(progress)
    options: dict[str, Any] = {"values": values, "repeated": layout == "broadcast"}
    with pass_threads():  # then products are the same on any number of cores
        chosen = choose_params(module, own, format, seed, **options)
    for draw in range(MAX_DRAWS):
        given = draw_case(module, own, format, seed, choice=chosen.number, draw=draw, **options)
        require_constant(layout, given)
        last = not drawn_anew or draw == MAX_DRAWS - 1
        shapes = first_steps(module, given) if steps else {}
        found = measure(
            module,
            given,
            format,
            seed,
            certify=certify,
            passes=passes,
            anything=last,
            steps=shapes,
            known=chosen.results if draw == 0 and not steps else None,
            overflow=describe_overflow(own.rounded, format),
        )
        # An image of zeros may lead beyond what the format holds, as 1 / (0 + 1e-5) in float16: then it is left out.
        beyond = found and values == "zeros" and inputs is None and draw == 0 and not are_judgeable(found.budgets)
        if found is not None and not beyond:
            break
    assert found is not None  # anything will do at last
    single = given.each(np.float32)
    laid = single._replace(inputs=lay_all(single.inputs, layout), upstream=lay_all(single.upstream, layout))
    case = Case(
        module=module,
        dtype=format.name,
        seed=seed,
        values=values,
        inputs=laid.inputs,
        params=laid.params,
        upstream=laid.upstream,
        expected=found.expected,
        budget={name: budget.scale for name, budget in found.budgets.items()},
        limits={name: limits_of(budget) for name, budget in found.budgets.items()},
        freedom={name: budget.freedom for name, budget in found.budgets.items()},
        digits={
            name: right_digits(y, found.exact[name], found.budgets[name].scale) if certify else np.nan
            for name, y in found.expected.items()
        },
        layout=layout,
        given=tuple(own.arrays),
        rounded=own.rounded,
    )
    if steps:
        case.keep_steps(measure_steps(case, found.steps))
    return case


def require_instance(module: Any, unknown: Mapping[str, Any]) -> None:
    """Refuse what is no system but names one, and what is no option of `golden` but may be one of the system's."""
    settings = ", ".join(f"{name}={brief(value)}" for name, value in unknown.items())
    if isinstance(module, str):
        if module not in SYSTEMS:
            raise ValueError(
                f"golden: module={brief(module)} is no key of a system{did_you_mean(module, SYSTEMS, 0.4) or ';'} "
                "expected an instance, such as CATALOGUE['pam'].example()"
            )
        system = SYSTEMS[module]
        how = (
            f"npattn.{system.__name__}({settings or '...'})" if module in CATALOGUE else f"cases({module!r})[0].module"
        )
        raise TypeError(f"golden: module is the key {module!r}; expected an instance: golden({how})")
    if not isinstance(module, Module):
        raise TypeError(
            f"golden: module is the class {module.__name__}; expected an instance, such as {module.__name__}.example()"
            if isinstance(module, type)
            else f"golden: module is {describe_type(module)}; expected a system, such as CATALOGUE['pam'].example()"
        )
    options = list(golden.__kwdefaults__ or {})
    for name in unknown:
        if name in {field.name for field in dataclasses.fields(module)}:
            how = f"golden({type(module).__name__}({settings}))"
            raise TypeError(f"golden: {name} is a hyperparameter of the module; expected {how}")
        meant = did_you_mean(name, options)
        raise TypeError(f"golden: unknown option {name!r}{meant} (expected {', '.join(options)})")


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
) -> Measured | None:
    """Make the runs of a case, as many at once as there are cores; None where other inputs are to be drawn.

    They are if near ties sway too much of an output, or too little can be judged of a result; where `anything` will do,
    they are not. The certificate is begun as soon as that is known. The `steps`, with their shapes, are measured by the
    same runs, and have no say in what is drawn. The exact results may be `known`, but for steps. `overflow` says what
    of the caller's has become infinite.
    """
    system = Recorded(module, reader_of(steps)) if steps else module
    certificate: list[dict[str, np.ndarray]] = []
    begun = not certify
    passes.expect(int(bool(certify)))

    def results_in(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in found.items() if name not in steps}

    def accept(budgets: Mapping[str, Budget]) -> bool:
        swayed = observed.near_ties and any(budgets[name].widened > MAX_SWAYED for name in given.upstream)
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
        observed = observe(system, given, format, seed, known)
        expected = results_in(observed.expected)
        validate_expected(module, expected, overflow)
        if anything or not observed.near_ties:
            begin_certificate()
        budgets = measure_budgets(
            observed, system, given, format, seed, threads=threads, passes=passes, accept=None if anything else accept
        )
        if budgets is None:
            passes.drop()
            return None
        begin_certificate()
        threads.end()
    if certificate:
        passes.end()
    found = {name: (observed.expected[name], budgets[name]) for name in steps}
    return Measured(expected, certificate[0] if certificate else {}, results_in(budgets), found)


def are_judgeable(budgets: Mapping[str, Budget]) -> bool:
    """Tell whether enough of each result can be judged for it to pass."""
    scales = (budget.scale for budget in budgets.values() if budget.scale.size)
    return all(np.isfinite(scale).mean() >= LEAST_JUDGED for scale in scales)


def check_certify(certify: Any) -> None:
    """Refuse what says nothing of how digits are counted."""
    if not (isinstance(certify, bool) or (isinstance(certify, str) and certify == "sample")):
        kind = ValueError if isinstance(certify, str) else TypeError
        raise kind(
            f"golden: certify={brief(certify)} is {describe_type(certify)}; expected True, False, or 'sample': in "
            "longdouble for some queries of an attention"
        )


def require_constant(layout: str, given: Given) -> None:
    """Refuse a broadcast layout of what changes along every axis."""
    arrays = [a for a in (*given.inputs.values(), *given.upstream.values()) if a.size]
    constant = [any(n > 1 and one for n, one in zip(a.shape, constant_axes(a), strict=True)) for a in arrays]
    if layout == "broadcast" and arrays and not any(constant):
        raise ValueError(
            "golden: layout='broadcast', but inputs and upstream change along every axis: expected a batch of at least "
            "2 to be drawn, or values='ones'"
        )


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
                raise ValueError(f"{text}; expected numbers, or no kernel can be judged by it{todo}")
            warnings.warn(f"{text}; there no kernel is judged", stacklevel=4)


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
