"""The check itself, and what it is given."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from npattn.array_checks import require_inputs
from npattn.calls import declared_shapes
from npattn.checks import check_names, require_choice, require_numbers, require_seed
from npattn.foreign_arrays import to_numpy
from npattn.module import Module, as_tuple
from npattn.oracle.gradcheck.directions import random_directions, unit_directions
from npattn.oracle.gradcheck.entries import EntryComparison
from npattn.oracle.gradcheck.faults import find_faults
from npattn.oracle.gradcheck.point import Point, gradient_shapes
from npattn.oracle.gradcheck.report import GradcheckReport
from npattn.oracle.systems import require_system
from npattn.wording import brief, describe_type

__all__ = ["gradcheck"]

MAX_JACOBIAN_SIZE = 2_000
"""Inputs and outputs up to which the full Jacobian is the default."""


def gradcheck(
    module: Module,
    params: Mapping[str, Any],
    inputs: Any,
    *,
    method: str | None = None,
    tolerance: float = 1e-12,
    seed: int = 0,
    allow_zero: bool | Collection[str] = False,
) -> GradcheckReport:
    """Compare a module's backward pass with derivatives by complex step, in double precision.

    The forward pass runs on complex numbers whose imaginary part is a tiny step in one direction v: the imaginary part
    of the output, divided by the step, is J v with no difference taken and so no digit lost.

    Parameters
    ----------
    module : Module
    params : mapping of str to array
        Parameters and buffers; converted to float64, whose exact values they keep.
    inputs : mapping of str to array, tuple of arrays, or array
        By name, or in call order. Those that `Module.without_gradient` names are constants.
    method : {"jacobian", "adjoint"}, optional
        ``"jacobian"`` compares every entry of the full Jacobian; its time grows as the number of inputs plus outputs,
        times that of a pass. ``"adjoint"`` compares <dy, J v> with <Jᵀ dy, v> in random directions, at any size.
        By default the first for up to 2,000 inputs and outputs, the second beyond.
    tolerance : float, default 1e-12
        Relative error up to which a gradient is right, whatever its rounding.
    seed : int, default 0
        Of the random directions, and of the neighbouring points at which rounding is measured.
    allow_zero : bool or collection of str, default False
        Whose gradients may be exactly 0 in all that is looked at, so that nothing is tested: names of inputs and
        parameters, or True for all.

    Returns
    -------
    GradcheckReport
        Errors are relative: in the Jacobian to the entry itself, or to a hundredth of its column's root mean square
        where that is larger; in the adjoint identity to the larger side; for a tensor below 1e-9 of the largest one,
        which is 0 but for rounding, to the largest. What differs by more than the tolerance is wrong, unless rounding
        explains it: at a dozen neighbouring points rounding errors vary, mistakes do not. Where that leaves a gradient
        unresolved, it is looked at in longdouble, if that has more digits and the module runs on it.

    Raises
    ------
    TypeError
        If `inputs`, `params` or `allow_zero` are none of these, or no arrays of real floating-point numbers; or if
        the module has another number of inputs.
    ValueError
        If a name, a shape, `method`, `tolerance` or `seed` is wrong, or a number is not finite.

    Notes
    -----
    A module that estimates its gradient is held to the function that its estimator differentiates:
    `Module.surrogate`.

    At a kink the complex step follows the branch that the value itself takes, so both sides use the module's stated
    convention; yet a value within rounding of a kink may fall on either side. Generic values keep away from that:
    `npattn.oracle.generic_values`.

    A few passes more look for faults: a pass that writes to what it was given, or gives something else the second time
    or after a pass on other values; a backward pass that is not linear in dy.

    References
    ----------
    Squire, Trapp: Using Complex Variables to Estimate Derivatives of Real Functions, SIAM Review 1998.

    Examples
    --------
    >>> import npattn
    >>> module = npattn.CATALOGUE["eca"].example()
    >>> report = gradcheck(module, *npattn.oracle.generic_values(module))
    >>> report.passed, sorted(report.errors)
    (True, ['conv.weight', 'x'])

    At the values that DANet starts training from, γ = 0 hides the queries and keys:

    >>> module = npattn.PositionAttention(channels=4)
    >>> _, inputs = npattn.oracle.generic_values(module, batch=1, height=3, width=2)
    >>> report = gradcheck(module, module.init(), inputs)
    >>> report.passed, report.zeros[:2]
    (False, ('query_conv.weight', 'query_conv.bias'))
    """
    require_system("gradcheck", module)
    seed = require_seed("gradcheck", seed)
    require_numbers("gradcheck", tolerance=tolerance)
    if tolerance <= 0:
        raise ValueError(f"gradcheck: tolerance={brief(tolerance)}; expected a number above 0")
    if method is not None:
        require_choice("gradcheck", ("jacobian", "adjoint"), ", or None", method=method)
    if not isinstance(params, Mapping):
        raise TypeError(f"gradcheck: params is {describe_type(params)}; expected a mapping of names to arrays")
    inputs = {
        name: np.asarray(value, np.float64) if is_exact(module, name, value) else as_double(value, name)
        for name, value in name_inputs(module, inputs).items()
    }
    params = {name: as_double(value, f"parameter {name!r}") for name, value in params.items()}
    point = Point(module, params, inputs)
    outputs, shapes = point.outputs, gradient_shapes(point)
    if not shapes:
        raise ValueError(f"gradcheck: {module}: no input and no parameter has a gradient; expected one to check")
    allow_zero = validate_allowed_zeros(allow_zero, shapes)
    if method is None:
        method = "jacobian" if outputs + sum(map(math.prod, shapes.values())) <= MAX_JACOBIAN_SIZE else "adjoint"
    directions = unit_directions(outputs, shapes) if method == "jacobian" else random_directions(point, seed)
    faults = find_faults(point, tolerance, seed)
    found = EntryComparison(point, directions, tolerance, seed).findings()
    return GradcheckReport(
        errors={name: finding.error for name, finding in found.items()},
        method=method,
        tolerance=tolerance,
        estimator=module.estimator,
        zeros=tuple(name for name, finding in found.items() if finding.zero),
        allow_zero=allow_zero,
        vanishing=tuple(name for name, finding in found.items() if finding.vanishes and not finding.zero),
        rounding={name: finding.rounding for name, finding in found.items() if finding.rounding},
        faults=faults,
    )


def name_inputs(module: Module, inputs: Any) -> dict[str, Any]:
    """Give inputs their names, in call order."""
    declared = declared_shapes(module, 1, 1, 1)
    names = list(declared)
    if isinstance(inputs, Mapping):
        check_names("gradcheck", inputs, declared, "input")
        return {name: inputs[name] for name in names}
    inputs = as_tuple(inputs)
    require_inputs("gradcheck", inputs, names)
    return dict(zip(names, inputs, strict=True))


def validate_allowed_zeros(allow_zero: Any, names: Collection[str]) -> bool | frozenset[str]:
    """Validate whose gradients may be 0: all, none, or some by name."""
    if isinstance(allow_zero, (bool, np.bool_)):
        return bool(allow_zero)
    if isinstance(allow_zero, str) or not isinstance(allow_zero, Collection):
        raise TypeError(
            f"gradcheck: allow_zero={allow_zero!r} is {describe_type(allow_zero)}; expected True, False or a list of "
            f"some of {', '.join(names)}"
        )
    for name in allow_zero:
        require_choice("gradcheck", names, allow_zero=name)
    return frozenset(allow_zero)


def is_exact(module: Module, name: str, value: Any) -> bool:
    """Tell whether an input is a constant of integers or booleans."""
    return name in module.without_gradient and isinstance(value, np.ndarray) and value.dtype.kind in "biu"


def as_double(value: Any, name: str) -> np.ndarray:
    """Bring an array to the host, in float64."""
    array = to_numpy(value, f"gradcheck: {name}")
    if np.iscomplexobj(array):
        raise TypeError(f"gradcheck: {name} has dtype {array.dtype}; expected real numbers")
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(
            f"gradcheck: {name} holds {int((~np.isfinite(found)).sum())} numbers that are infinite or NaN, of "
            f"{found.size}; expected finite ones, at which there is a derivative"
        )
    return found
