"""Gradient checks to the last digits: the complex step against the hand-written backward pass.

``derivations/checking_gradients.md`` derives what stands here and says what each check can and can't see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.checks import check_names, describe_type, require_integers
from npattn.module import Module, as_tuple
from npattn.parameters import to_numpy

__all__ = ["GradcheckReport", "gradcheck"]

STEP = 2.0**-600
"""Imaginary step: its square underflows to 0, so real parts stay what they are; dividing by a power of two is exact."""
SMALL = 2_000
"""Inputs and outputs up to which the full Jacobian is the default."""
CANCELLED = 1e-2
"""A number smaller than this share of its kind is a sum that nearly cancels, and is not held to its own last digits."""
ZERO = 1e-9
"""A gradient smaller than this share of the largest one is 0 but for rounding, as a bias's is before batch norm."""
DIRECTIONS = 3
"""Random pairs (dy, v) of the adjoint identity."""


@dataclass(frozen=True)
class GradcheckReport:
    """What a gradient check found.

    Attributes
    ----------
    errors : dict of float
        The worst relative error of each input and parameter; NaN or infinite where a gradient is.
    method : str
        ``"jacobian"`` or ``"adjoint"``.
    tolerance : float
        The error up to which `passed` is true.
    estimator : str, optional
        Where the module estimates its gradient, the estimator, against whose own definition the gradient was checked.
    """

    errors: dict[str, float]
    method: str
    tolerance: float
    estimator: str | None = None

    @property
    def worst(self) -> str:
        """Name of the input or parameter with the largest error; NaN counts as the largest."""
        return max(self.errors, key=lambda name: math.inf if math.isnan(self.errors[name]) else self.errors[name])

    @property
    def error(self) -> float:
        """The largest error."""
        return self.errors[self.worst]

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance."""
        return all(error <= self.tolerance for error in self.errors.values())

    def __str__(self) -> str:
        width = max(map(len, self.errors))
        verdicts = (
            f"{name:<{width}}  {error:8.1e}  {'ok' if error <= self.tolerance else 'WRONG'}"
            for name, error in self.errors.items()
        )
        against = f" of the {self.estimator} estimator" if self.estimator else ""
        return "\n".join([f"{self.method}{against}, relative errors, tolerance {self.tolerance:.0e}", *verdicts])


def gradcheck(
    module: Module,
    params: Mapping[str, Any],
    inputs: Any,
    *,
    method: str | None = None,
    tolerance: float = 1e-12,
    seed: int = 0,
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
        By name, or in call order. Only floating-point inputs are differentiated, and only those for which backward
        returns a gradient.
    method : {"jacobian", "adjoint"}, optional
        ``"jacobian"`` compares every entry of the full Jacobian; its time grows as the number of inputs plus outputs,
        times that of a pass. ``"adjoint"`` compares <dy, J v> with <Jᵀ dy, v> in random directions, at any size.
        By default the first for up to 2,000 inputs and outputs, the second beyond.
    tolerance : float, default 1e-12
    seed : int, default 0
        Of the random directions.

    Returns
    -------
    GradcheckReport
        Errors are relative: in the Jacobian to the entry itself, in the adjoint identity to the larger side. Sums that
        nearly cancel are held to the size of what cancels: an entry below a hundredth of its tensor's root mean square
        to that hundredth, two sides below a hundredth of Σ |dy · J v| likewise; and a tensor below 1e-9 of the largest
        one, which is 0 but for rounding, to the largest.

    Raises
    ------
    TypeError
        If `inputs` or `params` are none of these, or no arrays of real floating-point numbers.
    ValueError
        If a name, a shape or `method` is wrong.

    Notes
    -----
    A module that estimates its gradient is held to the function that its estimator differentiates:
    `Module.surrogate`.

    At a kink the complex step follows the branch that the value itself takes, so both sides use the module's stated
    convention; yet a value within rounding of a kink may fall on either side. Generic values keep away from that:
    `npattn.oracle.generic_values`.

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
    """
    require_integers("gradcheck", least=0, seed=seed)
    if method not in (None, "jacobian", "adjoint"):
        raise ValueError(f"gradcheck: method={method!r}; expected 'jacobian', 'adjoint' or None")
    if not isinstance(params, Mapping):
        raise TypeError(f"gradcheck: params is {describe_type(params)}; expected a mapping of names to arrays")
    inputs = {name: as_double(value, name) for name, value in named_inputs(module, inputs).items()}
    params = {name: as_double(value, f"parameter {name!r}") for name, value in params.items()}
    run = module(params, *inputs.values())
    outputs = as_tuple(run.output)
    forward = module.surrogate(params, *inputs.values())
    lifted = {name: value.astype(np.complex128) for name, value in (inputs | params).items()}

    def jvp(name: str, v: np.ndarray) -> list[np.ndarray]:
        """J v: how the outputs move while one variable moves along v."""
        moved = lifted | {name: lifted[name] + 1j * (STEP * v)}
        complex_run = forward({n: moved[n] for n in params}, *(moved[n] for n in inputs))
        return [y.imag / STEP for y in as_tuple(complex_run.output)]

    def vjp(dy: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Jᵀ dy: the gradient of every variable, as the module's backward pass has it."""
        dx, grads = run.backward(tuple(dy) if isinstance(run.output, tuple) else dy[0])
        gradients = dict(zip(inputs, as_tuple(dx), strict=True))
        return {name: gradient for name, gradient in gradients.items() if gradient is not None} | grads

    found = {name: gradient.shape for name, gradient in vjp([np.zeros_like(y) for y in outputs]).items()}
    expected = {name: inputs[name].shape for name in inputs if name in found} | module.parameter_shapes()
    if found != expected:
        raise ValueError(f"{module}: backward returns gradients of shapes {found}; expected {expected}")
    if method is None:
        size = sum(y.size for y in outputs) + sum(math.prod(shape) for shape in expected.values())
        method = "jacobian" if size <= SMALL else "adjoint"
    check = jacobian_errors if method == "jacobian" else adjoint_errors
    errors = check(jvp, vjp, expected, outputs, np.random.RandomState(seed))
    return GradcheckReport(errors, method, tolerance, module.estimator)


def jacobian_errors(jvp, vjp, shapes, outputs, _) -> dict[str, float]:
    """Compare every entry: columns of J by complex step, its rows by backward."""
    rows = {name: [] for name in shapes}
    for dy in unit_directions([y.shape for y in outputs]):
        for name, gradient in vjp(dy).items():
            rows[name].append(gradient.ravel())
    exact = exact_jacobian(jvp, shapes)
    largest, errors = max(map(root_mean_square, exact.values())), {}
    for name, j in exact.items():
        size = root_mean_square(j)
        smallest = largest if size <= ZERO * largest else CANCELLED * size
        errors[name] = relative(np.abs(np.array(rows[name]) - j), np.maximum(np.abs(j), smallest))
    return errors


def exact_jacobian(jvp, shapes) -> dict[str, np.ndarray]:
    """Make the columns of J for every variable, by complex step."""
    exact = {}
    for name, shape in shapes.items():
        columns = [np.concatenate([dy.ravel() for dy in jvp(name, v)]) for (v,) in unit_directions([shape])]
        exact[name] = np.array(columns).T
    return exact


def adjoint_errors(jvp, vjp, shapes, outputs, random) -> dict[str, float]:
    """Compare <dy, J v> with <Jᵀ dy, v>, in directions v that give every part of the gradient its full weight."""
    errors = dict.fromkeys(shapes, 0.0)
    for k in range(DIRECTIONS):
        # The first dy pulls all outputs one way, so that what is averaged over the map does not average out.
        dy = [random.uniform(0.5, 1.5, y.shape) if k == 0 else random.standard_normal(y.shape) for y in outputs]
        gradients = vjp(dy)
        largest = max(map(root_mean_square, gradients.values()))
        for name, gradient in gradients.items():
            sign = np.where(gradient == 0, random.choice([-1, 1], gradient.shape), np.sign(gradient))
            if not np.isfinite(gradient).all():
                errors[name] = np.nan
                continue
            v = sign * random.uniform(0.5, 1.5, gradient.shape)  # along the gradient: its terms add up, none cancels
            terms = np.concatenate([(d * jv).ravel() for d, jv in zip(dy, jvp(name, v), strict=True)])
            forward, back = np.sum(terms), np.sum(gradient * v)
            scale = max(abs(forward), back, CANCELLED * np.sum(np.abs(terms)))
            if scale <= ZERO * largest * np.sum(np.abs(v)):
                scale = largest * np.sum(np.abs(v))
            errors[name] = np.maximum(errors[name], relative(np.abs(forward - back), scale))
    return {name: float(error) for name, error in errors.items()}


def root_mean_square(array: np.ndarray) -> float:
    """Return the typical size of an element; 0 if there is none."""
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0


def relative(difference: np.ndarray, scale: np.ndarray) -> float:
    """Return the worst difference / scale, where two exact zeros agree."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(difference, scale, out=np.zeros_like(difference), where=difference != 0)
    return float(np.max(ratio, initial=0.0))


def unit_directions(shapes: list[tuple[int, ...]]) -> Iterator[list[np.ndarray]]:
    """Yield, one by one, the arrays of these shapes in which a single element is 1 and all else 0."""
    for i, shape in enumerate(shapes):
        for index in np.ndindex(shape):
            arrays = [np.zeros(shape) for shape in shapes]
            arrays[i][index] = 1.0
            yield arrays


def named_inputs(module: Module, inputs: Any) -> dict[str, Any]:
    """Give inputs their names, in call order."""
    names = list(module.input_shapes(1, 1, 1))
    if isinstance(inputs, Mapping):
        check_names("gradcheck", inputs, module.input_shapes(1, 1, 1), "input")
        return {name: inputs[name] for name in names}
    inputs = as_tuple(inputs)
    if len(inputs) != len(names):
        raise ValueError(f"gradcheck: got {len(inputs)} inputs; expected {len(names)}: {', '.join(names)}")
    return dict(zip(names, inputs, strict=True))


def as_double(value: Any, name: str) -> np.ndarray:
    """Bring an array to the host, in float64."""
    array = to_numpy(value, f"gradcheck: {name}")
    if np.iscomplexobj(array):
        raise TypeError(f"gradcheck: {name} has dtype {array.dtype}; expected real numbers")
    return array.astype(np.float64)
