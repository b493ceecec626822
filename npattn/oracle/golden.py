"""Golden cases: inputs, exact results, and the error that a correct kernel may make in each of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npattn.calls import declared_shapes
from npattn.checks import require_addressable, require_booleans, require_choice, require_integers, require_seed
from npattn.module import Module
from npattn.ops.context import apart
from npattn.oracle.budgets import Given, limits_of
from npattn.oracle.case import Case
from npattn.oracle.drawing import choose_params, draw_case, require_drawn
from npattn.oracle.formats import find_format
from npattn.oracle.layouts import LAYOUTS, constant_axes, lay_all
from npattn.oracle.measurement import Measured, Refused, are_judgeable, judge_overflowing, measure, right_digits
from npattn.oracle.own import read_own
from npattn.oracle.progress import Passes, check_progress
from npattn.oracle.soundness import SMALL_MAP, require_sound, takes
from npattn.oracle.special import VALUES
from npattn.oracle.steps import first_steps, measure_steps
from npattn.oracle.systems import require_system
from npattn.oracle.tensors import describe_overflow
from npattn.oracle.threads import leaving_no_limit, pass_threads
from npattn.scalars import python_scalar
from npattn.wording import brief, describe_type, did_you_mean

__all__ = ["golden"]

MAX_DRAWS, MAX_CROWDED, MAX_SWAYED, MAX_SWAYED_DRAWS = 20, 4, 2, 10
"""Inputs that are tried until near ties sway little of the outputs, of which the last will do. Once so many have been
refused that have near ties throughout, as others then do, it is taken at once; once so many have been swayed too much,
as where one near tie moves a whole channel, no others are run than those with fewer near ties, and so many are tried
before the last."""


@apart  # from what an interrupt leaves of those who answer for primitives meanwhile
@leaving_no_limit
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
        library. The caller's own are laid out so too, however they lay before.
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
    Case(EfficientChannelAttention(channels=8), 1x8x2x4, bfloat16, given inputs, inputs/x rounded in 62 of 64 values by
    at most 0.0019, seed 0)
    """
    require_known(module, unknown)
    seed = require_seed("golden", seed)
    require_integers("golden", least=0, **({} if batch is None else {"batch": batch}))
    require_integers("golden", **{name: n for name, n in [("height", height), ("width", width)] if n is not None})
    check_certify(certify)
    check_progress("golden", progress)
    require_booleans("golden", steps=steps)
    format = find_format(dtype, "golden")
    require_choice("golden", VALUES, values=values)
    require_choice("golden", LAYOUTS, layout=layout)
    require_drawn(values, {"inputs": inputs, "upstream": upstream})
    sizes = {name: python_scalar(n) for name, n in [("batch", batch), ("height", height), ("width", width)]}
    if upstream is not None and takes(module, SMALL_MAP):  # or what is wrong with the system is told of its gradient
        require_sound(module, SMALL_MAP)
    own = read_own(module, format, sizes, {"inputs": inputs, "params": params, "upstream": upstream})
    require_sound(module, own.sizes)
    require_addressable("golden", module.input_shapes(*own.sizes.values()) | own.outputs)
    drawn_anew = inputs is None and values in ("generic", "large", "ones")  # other ties and zeros would be as near
    passes = Passes(progress)
    options: dict[str, Any] = {"values": values, "repeated": layout == "broadcast"}
    with pass_threads():  # then products are the same on any number of cores
        chosen = choose_params(module, own, format, seed, **options)
    crowded, swayed = 0, list[int]()
    for draw in range(MAX_DRAWS):
        last = not drawn_anew or draw == MAX_DRAWS - 1
        if not last and (crowded == MAX_CROWDED or (len(swayed) >= MAX_SWAYED and draw >= MAX_SWAYED_DRAWS)):
            continue
        drawn = chosen.given if draw == 0 else None
        given = drawn or draw_case(module, own, format, seed, choice=chosen.number, draw=draw, **options)
        require_constant(layout, given)
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
            most_ties=min(swayed) - 1 if len(swayed) >= MAX_SWAYED else np.inf,
            wary=bool(swayed),
        )
        if isinstance(found, Refused):
            crowded += found.crowded
            swayed += [found.near_ties] if found.near_ties else []
            continue
        # An image of zeros may lead beyond what the format holds, as 1 / (0 + 1e-5) in float16: then it is left out.
        beyond = values == "zeros" and inputs is None and draw == 0 and not are_judgeable(found.budgets)
        if not beyond:
            break
    assert isinstance(found, Measured)  # anything will do at last
    found = judge_overflowing(found, module, given, format=format, seed=seed, passes=passes)
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
        limits={name: limits_of(b, wandering=format.is_accumulator) for name, b in found.budgets.items()},
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


def require_known(module: Any, unknown: Mapping[str, Any]) -> None:
    """Refuse what is no system but names one, and what is no option of `golden` but may be one of the system's."""
    require_system("golden", module, unknown)
    settings = ", ".join(f"{name}={brief(value)}" for name, value in unknown.items())
    for of in ("input", "output"):
        declared_shapes(module, 1, 1, 1, of=of)
    options = [
        option.name for option in inspect.signature(golden).parameters.values() if option.kind is option.KEYWORD_ONLY
    ]
    for name in unknown:
        if name in {field.name for field in dataclasses.fields(module)}:
            how = f"golden({type(module).__name__}({settings}))"
            raise TypeError(f"golden: {name} is a hyperparameter of the module; expected {how}")
        meant = did_you_mean(name, options)
        raise TypeError(f"golden: unknown option {name!r}{meant} (expected {', '.join(options)})")


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
