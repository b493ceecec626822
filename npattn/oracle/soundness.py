"""Whether a system of someone's own may judge kernels: what it says of itself is so, and its backward is right."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from npattn.module import Module, Pass, as_tuple
from npattn.oracle.budgets import Given
from npattn.oracle.gradcheck import GradcheckReport, gradcheck
from npattn.oracle.losing import lost_in
from npattn.oracle.systems import is_known
from npattn.oracle.values import generic_values
from npattn.typing import Params
from npattn.wording import brief, describe_type, did_you_mean

__all__ = ["SMALL_MAP", "require_sound", "takes"]

SMALL_MAP = {"batch": 2, "height": 3, "width": 2}
"""The sizes at which a system is looked at, unless it takes none so small."""
MAX_DRAWS = 8
"""Parameters and inputs that are drawn until no gradient is 0 throughout, as behind a relu that lets nothing by."""


def require_sound(module: Module, sizes: Mapping[str, int]) -> None:
    """Refuse a module that npattn does not bring if its outputs or gradients are not what they should be.

    It is looked at once in a process, on a small case: the shapes of outputs, dtypes in float32, and the gradients by
    complex step in random directions.

    Parameters
    ----------
    module : Module
    sizes : mapping of str to int
        Batch, height and width that the module takes, for one that refuses smaller ones.

    Raises
    ------
    TypeError, ValueError
        If a call is refused, or the module is not what it should be.

    Examples
    --------
    >>> import npattn
    >>> from npattn.module import Module, Pass
    >>> class Square(Module):
    ...     channels = 3
    ...     def forward(self, params, x):
    ...         return Pass(x * x, lambda dy: (x * dy, {}))
    >>> require_sound(Square(), SMALL_MAP)
    Traceback (most recent call last):
    ValueError: Square(): backward is not the derivative of forward: x is off by 0.5...
    """
    if is_known(module):
        return
    looked_at = tuple((SMALL_MAP if takes(module, SMALL_MAP) else sizes).items())
    try:
        trouble = trouble_of(module, looked_at)
    except TypeError:  # a hyperparameter that can't be hashed
        trouble = trouble_of.__wrapped__(module, looked_at)
    if trouble is not None:
        raised = type(trouble)(str(trouble))
        for note in getattr(trouble, "__notes__", []):
            raised.add_note(note)
        raise raised


@functools.lru_cache(maxsize=256)
def trouble_of(module: Module, sizes: tuple[tuple[str, int], ...]) -> TypeError | ValueError | None:
    """Return what is wrong with a module; None if nothing is."""
    try:
        validate_module(module, dict(sizes))
    except (TypeError, ValueError) as error:
        return error
    return None


def takes(module: Module, sizes: Mapping[str, int]) -> bool:
    """Tell whether a module runs at some sizes."""
    try:
        params, inputs = generic_values(module, **sizes)
        with np.errstate(all="ignore"):
            module(params, *inputs.values())
    except (TypeError, ValueError, ArithmeticError, LookupError):
        return False
    return True


def validate_module(module: Module, sizes: Mapping[str, int]) -> None:
    """Validate what a module says of itself, and its gradients."""
    params, inputs = (
        {name: value.astype(np.float32) for name, value in values.items()} for values in generic_values(module, **sizes)
    )
    with np.errstate(all="ignore"):
        run = module(params, *inputs.values())
        validate_names(module, run, params, inputs)
        validate_outputs(module, [y.shape for y in as_tuple(run.output)], isinstance(run.output, tuple), sizes)
        validate_buffers(module, {name: np.shape(value) for name, value in run.buffers.items()})
        ones = tuple(np.ones_like(y) for y in as_tuple(run.output))
        run.backward(ones if isinstance(run.output, tuple) else ones[0])
        nothing = not params and inputs.keys() <= set(module.without_gradient)
        trouble = "" if nothing else describe_gradients(module, sizes)
    if trouble:
        raise ValueError(f"{module}: {trouble}")
    random = np.random.RandomState(0)
    upstream = {name: random.standard_normal(shape) for name, shape in module.output_shapes(*sizes.values()).items()}
    where = lost_in(module, Given(*generic_values(module, **sizes), upstream))
    if where:
        raise TypeError(
            f"{module}: {where} makes plain arrays of what it is given, as np.asarray and scipy.special.softmax do, in "
            "which no rounding can be followed: budgets would be too small for a correct kernel; use functions of "
            "NumPy, which keep the kind of an array"
        )


def validate_names(module: Module, run: Pass, params: Params, inputs: Mapping[str, Any]) -> None:
    """Refuse a name that two results would have."""
    for group, what in {"attention": "maps", "buffers": "running statistics"}.items():
        arrays = getattr(run, group)
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{module}: {group} is {describe_type(arrays)}; expected a dict of {what} by name")
        for name, a in arrays.items():
            if not (isinstance(name, str) and hasattr(a, "dtype")):
                held = f"{brief(name)}: {describe_type(a)}"
                raise TypeError(f"{module}: {group} holds {held}; expected a dict of {what} by name, arrays")
    several = len(as_tuple(run.output)) if isinstance(run.output, tuple) else 0
    outputs = {f"output.{i}" for i in range(several)} or {"output"}
    names = {
        "an input and a parameter": inputs.keys() & params.keys(),
        "an output and an input or a parameter": outputs & (inputs.keys() | params.keys()),
        "an attention map and another result": run.attention.keys()
        & {*outputs, *run.buffers, *(f"{name}.grad" for name in (*inputs, *params))},
    }
    for both, shared in names.items():
        if shared:
            raise ValueError(f"{module}: {min(shared)!r} names {both}; expected other names: results are known by them")


def describe_gradients(module: Module, sizes: Mapping[str, int]) -> str:
    """Say on one line what is wrong with a module's gradients, of which each is looked at where it is not 0."""
    untested = {*module.input_shapes(*sizes.values()), *module.parameter_shapes()}
    trouble = ""
    for seed in range(MAX_DRAWS):
        values = generic_values(module, **sizes, seed=seed)
        try:
            report = gradcheck(module, *values, method="adjoint", allow_zero=True)
        except TypeError as error:
            raise TypeError(
                f"{module}: its gradients can't be checked by complex step: {error}; forward must run on complex "
                "numbers: use NumPy's functions, and select on x.real"
            ) from error
        trouble, untested = describe_faults(report), untested & set(report.zeros)
        if trouble or not untested:
            break
    return trouble


def validate_outputs(module: Module, shapes: list[tuple[int, ...]], several: bool, sizes: Mapping[str, int]) -> None:
    """Hold the shapes of what forward returns to those that `output_shapes` promises."""
    found = {f"output.{i}" if several else "output": shape for i, shape in enumerate(shapes)}
    promised = {name: tuple(shape) for name, shape in module.output_shapes(*sizes.values()).items()}
    if found == promised:
        return
    default = getattr(type(module).output_shapes, "__module__", "") == "npattn.module"
    why = ", the first input's, as it does unless a system says otherwise" if default else ""
    call = f"output_shapes({', '.join(map(str, sizes.values()))})"
    raise ValueError(
        f"{module}: forward returns {describe_shapes(found)} where {call} says {describe_shapes(promised)}{why}: "
        f"{'override' if default else 'correct'} output_shapes(batch, height, width)"
    )


def validate_buffers(module: Module, found: Mapping[str, tuple[int, ...]]) -> None:
    """Hold the running statistics that forward returns to those declared: all of them, or none."""
    declared = module.buffer_shapes()
    if found in ({}, declared):
        return
    for name in found:
        if name not in declared:
            meant = did_you_mean(name, declared)
            raise ValueError(
                f"{module}: forward returns the buffer {name!r}{meant} (buffers() declares "
                f"{', '.join(declared) or 'none'})"
            )
    for name, shape in declared.items():
        if found.get(name) != shape:
            given = f"of shape {found[name]}" if name in found else "not at all"
            raise ValueError(f"{module}: forward returns the buffer {name!r} {given}; buffers() declares {shape}")


def describe_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Write shapes with the names that they belong to."""
    return ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())


def describe_faults(report: GradcheckReport) -> str:
    """Say on one line what a gradient check found wrong; nothing if it is nothing but NaN, which is told elsewhere."""
    wrong = [f"{name} is off by {error:.2g}" for name, error in report.errors.items() if error > report.tolerance]
    found = [f"backward is not the derivative of forward: {', '.join(wrong)} (relative)"] if wrong else []
    found += report.faults
    if not found:
        return ""
    return (
        f"{'; '.join(found)}: no kernel can be judged by it; gradcheck(module, "
        "*generic_values(module)) tells more"
        + (". A forward that takes abs, conj or real parts can't be checked so: select on x.real" if wrong else "")
    )
