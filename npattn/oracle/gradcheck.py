"""Gradient checks to the last digits: the complex step against the hand-written backward pass.

``derivations/checking_gradients.md`` derives what stands here and says what each check can and can't see.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.checks import check_names, describe_type, require_choice, require_integers
from npattn.module import Module, as_tuple
from npattn.parameters import to_numpy

__all__ = ["GradcheckReport", "gradcheck"]

STEP = 2.0**-600
"""Imaginary step: its square is below all rounding, so real parts stay; dividing by a power of two is exact."""
SMALL = 2_000
"""Inputs and outputs up to which the full Jacobian is the default."""
CANCELLED = 1e-2
"""An entry below this share of its column is a sum that nearly cancels, and is not held to its own last digits."""
ZERO = 1e-9
"""A gradient below this share of the largest one is 0 but for rounding, as a bias's before batch norm."""
LONGER = np.longdouble
"""The kind of number with more digits, where it has them."""
DIRECTIONS = 3
"""Random pairs (dy, v) of the adjoint identity."""
POINTS = 12
"""Neighbouring points at which rounding is measured."""
NEIGHBOURHOOD = 2.0**-10
"""Relative size up to which every tensor is scaled to get there."""
LIMIT = 32
"""Standard deviations that rounding may reach: a normal error exceeds so many, of 12 points, once in 3·10¹¹ times."""
RESOLVED = 1e-10
"""Relative error that the check must be able to see in every element of a gradient, or it takes more digits."""
REPEATED = 1e-6
"""Relative difference up to which two passes give the same: far above rounding, far below what state changes."""


@dataclass(frozen=True)
class GradcheckReport:
    """What a gradient check found.

    Attributes
    ----------
    errors : dict of float
        The worst relative error of each input and parameter that rounding does not explain; NaN or infinite where a
        gradient is.
    method : str
        ``"jacobian"`` or ``"adjoint"``.
    tolerance : float
        The error up to which a gradient is right.
    estimator : str, optional
        Where the module estimates its gradient, the estimator, against whose own definition the gradient was checked.
    zeros : tuple of str
        Inputs and parameters whose gradient was exactly 0, by backward and by complex step, wherever it was looked at.
    allow_zero : bool or frozenset of str
        Which of them may be.
    noise : tuple of str
        Those whose gradient is 0 but for rounding, as a bias's is before batch norm: compared with 0, at the size of
        the largest gradient.
    rounding : dict of float
        For those that differ by more than the tolerance, and no more than rounding explains: by how much, relatively.
    faults : tuple of str
        What else a forward or backward pass does that it must not.
    """

    errors: dict[str, float]
    method: str
    tolerance: float
    estimator: str | None = None
    zeros: tuple[str, ...] = ()
    allow_zero: bool | frozenset[str] = False
    noise: tuple[str, ...] = ()
    rounding: dict[str, float] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def worst(self) -> str:
        """Name of the input or parameter with the largest error; NaN counts as the largest."""
        return max(self.errors, key=lambda name: math.inf if math.isnan(self.errors[name]) else self.errors[name])

    @property
    def error(self) -> float:
        """The largest error."""
        return self.errors[self.worst]

    @property
    def untested(self) -> tuple[str, ...]:
        """Those of `zeros` that are not allowed."""
        if isinstance(self.allow_zero, bool):
            return () if self.allow_zero else self.zeros
        return tuple(name for name in self.zeros if name not in self.allow_zero)

    @property
    def passed(self) -> bool:
        """Whether every error is within the tolerance, every gradient was tested, and there is no fault."""
        right = all(error <= self.tolerance for error in self.errors.values())
        return right and not self.untested and not self.faults

    def __str__(self) -> str:
        width = max(map(len, self.errors))
        against = f" of the {self.estimator} estimator" if self.estimator else ""
        lines = [f"{self.method}{against}, relative errors, tolerance {self.tolerance:.0e}"]
        lines += [f"{name:<{width}}  {self.verdict(name)}" for name in self.errors]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])

    def verdict(self, name: str) -> str:
        """Say how a gradient was found."""
        error = self.errors[name]
        if name in self.untested:
            return f"exactly 0: NOT TESTED; try generic_values, or allow_zero=[{name!r}]"
        if name in self.zeros:
            return "exactly 0: allowed"
        if not error <= self.tolerance:
            return f"{error:8.1e}  WRONG"
        if name in self.noise:
            return f"{error:8.1e}  ok, 0 but for rounding: relative to the largest gradient"
        if name in self.rounding:
            return f"{error:8.1e}  ok, beside rounding of up to {self.rounding[name]:.1e}"
        return f"{error:8.1e}  ok"


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
        By name, or in call order. Only floating-point inputs are differentiated, and only those for which backward
        returns a gradient.
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
        If `inputs`, `params` or `allow_zero` are none of these, or no arrays of real floating-point numbers.
    ValueError
        If a name, a shape or `method` is wrong.

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
    require_integers("gradcheck", least=0, seed=seed)
    if method not in (None, "jacobian", "adjoint"):
        raise ValueError(f"gradcheck: method={method!r}; expected 'jacobian', 'adjoint' or None")
    if not isinstance(params, Mapping):
        raise TypeError(f"gradcheck: params is {describe_type(params)}; expected a mapping of names to arrays")
    inputs = {name: as_double(value, name) for name, value in named_inputs(module, inputs).items()}
    params = {name: as_double(value, f"parameter {name!r}") for name, value in params.items()}
    point = Point(module, params, inputs)
    outputs, shapes = point.outputs, gradient_shapes(point)
    allow_zero = named_zeros(allow_zero, shapes)
    if method is None:
        method = "jacobian" if outputs + sum(map(math.prod, shapes.values())) <= SMALL else "adjoint"
    directions = unit_directions(outputs, shapes) if method == "jacobian" else random_directions(point, seed)
    faults = find_faults(point, tolerance, seed)
    found = Comparison(point, directions, tolerance, seed).findings()
    return GradcheckReport(
        errors={name: finding.error for name, finding in found.items()},
        method=method,
        tolerance=tolerance,
        estimator=module.estimator,
        zeros=tuple(name for name, finding in found.items() if finding.zero),
        allow_zero=allow_zero,
        noise=tuple(name for name, finding in found.items() if finding.noise and not finding.zero),
        rounding={name: finding.rounding for name, finding in found.items() if finding.rounding},
        faults=faults,
    )


class Point:
    """A module at given values, in one kind of number, with both ways to its derivatives.

    Directions are flat: among all outputs, or in one input or parameter. A forward pass gets copies of its own, so that
    one which writes to them spoils no other.

    Parameters
    ----------
    module : Module
    params, inputs : dict of numpy.ndarray
        All of one kind of number.
    pull : float, default 1
        What every upstream gradient is multiplied by.
    """

    def __init__(self, module: Module, params: dict, inputs: dict, pull: float = 1.0):
        self.module, self.params, self.inputs, self.pull = module, params, inputs, pull
        self.dtype = next(iter(inputs.values())).dtype
        self.given = {name: value.copy() for name, value in (params | inputs).items()}
        self.run = module(*self.arguments(self.given))
        self.shapes = [y.shape for y in as_tuple(self.run.output)]
        self.outputs = sum(map(math.prod, self.shapes))
        self.surrogate = None

    def arguments(self, values: Mapping[str, np.ndarray]) -> tuple:
        """Arrange values as a module takes them."""
        return {name: values[name] for name in self.params}, *(values[name] for name in self.inputs)

    def upstream(self, dy: np.ndarray) -> Any:
        """Shape a flat direction as the output."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(dy, ends), self.shapes, strict=True)]
        return tuple(parts) if isinstance(self.run.output, tuple) else parts[0]

    def vjp(self, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Jᵀ dy: the gradient of every input and parameter, flat, as the module's backward pass has it."""
        return {name: gradient.ravel() for name, gradient in self.gradients(dy).items()}

    def gradients(self, dy: np.ndarray) -> dict[str, np.ndarray]:
        """Copy what the backward pass returns, for it may write the next gradients there."""
        dx, grads = self.run.backward(self.upstream((dy * self.pull).astype(self.dtype)))
        by_input = dict(zip(self.inputs, as_tuple(dx), strict=True))
        found = {name: gradient for name, gradient in by_input.items() if gradient is not None} | grads
        return {name: np.array(gradient) for name, gradient in found.items()}

    def jvp(self, name: str, v: np.ndarray) -> np.ndarray:
        """J v: how all outputs move, flat, while one input or parameter moves along v."""
        if self.surrogate is None:
            copies = {name: value.copy() for name, value in (self.params | self.inputs).items()}
            self.surrogate = self.module.surrogate(*self.arguments(copies))
        kind = np.result_type(self.dtype, np.complex64)
        lifted = {name: value.astype(kind) for name, value in (self.params | self.inputs).items()}
        lifted[name] += 1j * (STEP * v.astype(self.dtype).reshape(lifted[name].shape))
        run = self.surrogate(*self.arguments(lifted))
        return self.pull * np.concatenate([y.imag.ravel() for y in as_tuple(run.output)]) / STEP

    def nearby(self, names: Collection[str], random: np.random.RandomState) -> Point:
        """Scale tensors, and what is pulled with, by almost 1: all is rounded anew, and what ties still ties."""

        def factor():
            return self.dtype.type(1 + NEIGHBOURHOOD * random.uniform(-1, 1))

        params, inputs = (
            {name: value * factor() if name in names else value for name, value in values.items()}
            for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs, factor())

    def elsewhere(self, names: Collection[str]) -> Point:
        """Take values far from these: reversed, by which masks remain masks, and larger if they have a gradient."""
        params, inputs = (
            {name: np.flip(value) * (1.5 if name in names else 1.0) for name, value in values.items()}
            for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs)

    def astype(self, dtype: Any) -> Point:
        """Take the same values in another kind of number."""
        params, inputs = (
            {name: value.astype(dtype) for name, value in values.items()} for values in (self.params, self.inputs)
        )
        return Point(self.module, params, inputs)


@dataclass(frozen=True)
class Finding:
    """What was found of one gradient; the fields are those of the report."""

    error: float
    zero: bool = False
    noise: bool = False
    rounding: float = 0.0


@dataclass(frozen=True)
class Directions:
    """Directions of which backward's Jᵀ dy and the complex step's J v are compared, as entries <dy, J v>.

    Attributes
    ----------
    rows : numpy.ndarray
        Directions dy: indices of unit vectors, or flat vectors.
    columns : dict of numpy.ndarray
        The same among every input and parameter.
    paired : bool
        Whether each row is compared with the column of its number alone.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    paired: bool

    def compare(self, point: Point, chosen: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
        """Compute the chosen entries, given as masks, by backward and by complex step; others stay 0."""
        tall = np.any([mask.any(axis=1) for mask in chosen.values()], axis=0)
        rows = {name: [] for name in chosen}
        for dy in self.rows[tall]:
            gradients = point.vjp(vector(dy, point.outputs))
            for name, mask in chosen.items():
                rows[name].append(along(gradients[name], self.columns[name][mask.any(axis=0)]))
        back, exact = ({name: np.zeros(mask.shape, point.dtype) for name, mask in chosen.items()} for _ in range(2))
        for name, mask in chosen.items():
            wide, size = mask.any(axis=0), (point.inputs | point.params)[name].size
            moved = [along(point.jvp(name, vector(v, size)), self.rows[tall]) for v in self.columns[name][wide]]
            place = np.ix_(tall, wide)
            back[name][place] = np.where(mask[place], rows[name], 0)
            exact[name][place] = np.where(mask[place], np.array(moved).T, 0)
        return back, exact

    def lengths(self, name: str) -> np.ndarray:
        """Return the sum of the absolute elements of each column's direction."""
        columns = self.columns[name]
        return np.ones(len(columns)) if columns.ndim == 1 else np.sum(np.abs(columns), axis=1)


def vector(direction: np.ndarray, size: int) -> np.ndarray:
    """Write out a direction that may be the index of a unit vector."""
    if direction.ndim:
        return direction
    unit = np.zeros(size)
    unit[direction] = 1.0
    return unit


def along(values: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Take the components of a vector along several directions."""
    return values[directions] if directions.ndim == 1 else np.sum(values * directions, axis=1)


def unit_directions(outputs: int, shapes: Mapping[str, tuple[int, ...]]) -> Directions:
    """List the unit vectors, which give the full Jacobian."""
    columns = {name: np.arange(math.prod(shape)) for name, shape in shapes.items()}
    return Directions(np.arange(outputs), columns, paired=False)


def random_directions(point: Point, seed: int) -> Directions:
    """Draw pairs (dy, v) in which every part of the gradient has its full weight."""
    random = np.random.RandomState(seed)
    # The first dy pulls all outputs one way, so that what is averaged over the map does not average out.
    rows = [random.uniform(0.5, 1.5, point.outputs)]
    rows += [random.standard_normal(point.outputs) for _ in range(DIRECTIONS - 1)]
    columns = {}
    for dy in rows:
        for name, gradient in point.vjp(dy).items():
            sign = np.where(gradient == 0, random.choice([-1, 1], gradient.shape), np.sign(gradient))
            v = sign * random.uniform(0.5, 1.5, gradient.shape)  # along the gradient: its terms add up, none cancels
            columns.setdefault(name, []).append(v)
    return Directions(np.array(rows), {name: np.array(several) for name, several in columns.items()}, paired=True)


class Comparison:
    """Compare entries <dy, J v> by backward and by complex step, as closely as rounding allows.

    Parameters
    ----------
    point : Point
    directions : Directions
    tolerance : float
    seed : int
        Of the neighbouring points.
    """

    def __init__(self, point: Point, directions: Directions, tolerance: float, seed: int):
        self.point, self.directions, self.tolerance, self.seed = point, directions, tolerance, seed
        count = len(directions.rows)
        self.every = {
            name: np.eye(count, dtype=bool) if directions.paired else np.ones((count, len(columns)), bool)
            for name, columns in directions.columns.items()
        }
        self.back, self.exact = directions.compare(point, self.every)
        self.difference = {name: np.abs(self.back[name] - self.exact[name]) for name in self.every}
        self.columns = {name: column_sizes(self.exact[name], mask) for name, mask in self.every.items()}
        self.lengths = {name: directions.lengths(name) for name in self.every}
        sizes = {name: self.columns[name] / self.lengths[name] for name in self.every}
        self.largest = max(map(root_mean_square, sizes.values()))
        # By tensor: a small element beside large ones is held to itself, or a mistake in it would not show.
        self.noise = {name: root_mean_square(size) <= ZERO * self.largest for name, size in sizes.items()}

    def findings(self) -> dict[str, Finding]:
        """Judge every gradient: as it stands, then by its rounding, then in more digits, as far as there is doubt."""
        errors = {name: relative(self.difference[name], self.scale(name, self.exact[name])) for name in self.every}
        doubts = {name: error > self.tolerance for name, error in errors.items()}
        doubts = {name: mask for name, mask in doubts.items() if mask.any() and not np.isnan(errors[name]).any()}
        wrong, spread = self.mistakes(self.point, self.difference, doubts)
        explained = {name: mask for name, mask in doubts.items() if name not in wrong}
        unsure = {name: self.unresolved(name, mask, spread[name]) for name, mask in explained.items()}
        found = {}
        for name, error in errors.items():
            right = ~doubts[name] if name in doubts else self.every[name]
            found[name] = Finding(
                error=largest(error[wrong[name]] if name in wrong else error[right]),
                zero=not (self.back[name].any() or self.exact[name].any()),
                noise=self.noise[name],
                rounding=largest(error[explained[name]]) if name in explained else 0.0,
            )
        return found | self.in_more_digits({name: mask for name, mask in unsure.items() if mask.any()})

    def scale(self, name: str, exact: np.ndarray) -> np.ndarray:
        """Return what the errors of entries are relative to."""
        if self.noise[name]:
            return np.broadcast_to(self.largest * self.lengths[name], exact.shape)
        return np.maximum(np.abs(exact), CANCELLED * self.columns[name])

    def mistakes(
        self, point: Point, difference: Mapping[str, np.ndarray], doubts: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Find entries that differ by more than rounding explains; if the one furthest off does, the others can wait.

        Returns
        -------
        wrong, spread : dict of numpy.ndarray
            Masks of such entries, of gradients that have any; the standard deviation of every entry's difference.
        """
        wrong, spread = {}, {name: np.zeros(mask.shape) for name, mask in doubts.items()}
        first = {name: mask & (difference[name] == np.max(difference[name][mask])) for name, mask in doubts.items()}
        rest = {name: mask & ~first[name] for name, mask in doubts.items()}
        for part in (first, rest):
            chosen = {name: mask for name, mask in part.items() if mask.any() and name not in wrong}
            for name, deviation in self.deviations(point, chosen).items():
                mask = chosen[name]
                spread[name][mask] = deviation[mask]
                beyond = mask & ~(difference[name] <= LIMIT * deviation)
                if beyond.any():
                    wrong[name] = beyond
        return wrong, spread

    def deviations(self, point: Point, chosen: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Measure rounding: how the difference of both sides varies among neighbouring points, entry by entry.

        A mistake varies as the entry does, if not less. So the difference is taken absolutely and relatively to the
        entry, and what varies less counts.
        """
        if not chosen:
            return {}
        random, found = np.random.RandomState([self.seed, 1]), {}
        both = [self.directions.compare(point.nearby(self.every, random), chosen) for _ in range(POINTS)]
        for name in chosen:
            back, exact = (np.array([side[name] for side in sides]) for sides in zip(*both, strict=True))
            absolute = np.std(back - exact, axis=0, ddof=1)
            with np.errstate(divide="ignore", invalid="ignore"):  # of entries that are 0, which fmin then passes over
                share = np.std((back - exact) / exact, axis=0, ddof=1) * np.mean(np.abs(exact), axis=0)
            found[name] = np.fmin(absolute, share)
        return found

    def unresolved(self, name: str, doubtful: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Choose, of the entries in doubt, those of elements in none of whose entries a small mistake would show."""
        bound = relative(self.difference[name] + LIMIT * spread, np.abs(self.exact[name]))
        best = np.min(np.where(self.exact[name] == 0, np.inf, bound), axis=0)
        return doubtful & (best > RESOLVED) & (not self.noise[name])

    def in_more_digits(self, unsure: dict[str, np.ndarray]) -> dict[str, Finding]:
        """Judge entries in longdouble; what is found wrong there is wrong."""
        if not unsure or np.finfo(LONGER).eps >= np.finfo(self.point.dtype).eps:
            return {}
        try:
            point = self.point.astype(LONGER)
            back, exact = self.directions.compare(point, unsure)
            difference = {name: np.abs(back[name] - exact[name]) for name in unsure}
            errors = {name: relative(difference[name], self.scale(name, exact[name])) for name in unsure}
            doubts = {name: mask & (errors[name] > self.tolerance) for name, mask in unsure.items()}
            wrong, _ = self.mistakes(point, difference, {name: mask for name, mask in doubts.items() if mask.any()})
        except (TypeError, ValueError):  # what the module calls may know no longdouble, as np.linalg doesn't
            return {}
        return {name: Finding(largest(errors[name][mask])) for name, mask in wrong.items()}


def find_faults(point: Point, tolerance: float, seed: int) -> tuple[str, ...]:
    """Name what a forward or backward pass does that it must not.

    Parameters
    ----------
    point : Point
    tolerance : float
    seed : int

    Returns
    -------
    tuple of str
    """
    random = np.random.RandomState([seed, 2])
    dy = random.standard_normal(point.outputs)
    names = gradient_shapes(point)
    values = point.params | point.inputs
    faults = []

    def report(fault: str, affected: Collection[str]) -> None:
        if affected:
            faults.append(f"{fault} {', '.join(affected)}".rstrip())

    first = Point(point.module, point.params, point.inputs)
    outputs = [y.copy() for y in as_tuple(first.run.output)]
    report("forward writes to", changed(values, first.given))
    given = {name: value.copy() for name, value in first.given.items()}
    upstream = first.upstream(dy.copy())
    first.run.backward(upstream)
    report("backward writes to", changed(given, first.given))
    kept = np.concatenate([d.ravel() for d in as_tuple(upstream)])
    report("backward writes to", changed({"dy": dy}, {"dy": kept}))
    gradients = first.gradients(dy)
    report("backward gives something else the second time:", differing(gradients, first.gradients(dy)))
    report("backward of dy = 0 is not 0:", [name for name, zero in first.gradients(0 * dy).items() if zero.any()])

    again = Point(point.module, point.params, point.inputs)
    different = differing(dict(enumerate(outputs)), dict(enumerate(as_tuple(again.run.output))))
    report("forward gives something else the second time", [""] if different else [])
    point.elsewhere(names)
    after = differing(gradients, first.gradients(dy))
    report("backward gives something else after a forward pass on other values:", after)
    report("backward is not linear in dy:", not_linear(point, tolerance, random))
    return tuple(faults)


def changed(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[str]:
    """Name the arrays that are not what they were."""
    return [name for name, value in before.items() if not np.array_equal(value, after[name], equal_nan=True)]


def differing(first: Mapping[Any, np.ndarray], second: Mapping[Any, np.ndarray]) -> list[Any]:
    """Name the arrays that differ by more than two runs of the same operations may."""
    largest = max((np.max(np.abs(value), initial=0.0) for value in first.values()), default=0.0)
    return [
        name
        for name, value in first.items()
        if (np.abs(value - second[name]) > REPEATED * np.max(np.abs(value), initial=ZERO * largest)).any()
    ]


def not_linear(point: Point, tolerance: float, random: np.random.RandomState) -> list[str]:
    """Name the gradients of a sum that are not the sum of the gradients, to rounding."""
    first, second = random.standard_normal((2, point.outputs))
    a, b = random.uniform(1, 2), random.uniform(-2, -1)

    def gaps(at: Point) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        whole, one, other = (at.gradients(dy) for dy in (a * first + b * second, first, second))
        sizes = {name: np.max(np.abs(a * one[name]) + np.abs(b * other[name]), initial=0.0) for name in whole}
        return {name: whole[name] - a * one[name] - b * other[name] for name in whole}, sizes

    found, sizes = gaps(point)
    largest = max(sizes.values())
    sizes = {name: largest if size <= ZERO * largest else size for name, size in sizes.items()}
    doubts = {name: np.abs(gap) > tolerance * sizes[name] for name, gap in found.items()}
    if not any(mask.any() for mask in doubts.values()):
        return []
    several = [gaps(point.nearby(found, random))[0] for _ in range(POINTS)]
    deviations = {name: np.std([each[name] for each in several], axis=0, ddof=1) for name in found}
    return [name for name, mask in doubts.items() if (mask & (np.abs(found[name]) > LIMIT * deviations[name])).any()]


def column_sizes(entries: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the root mean square of each column's chosen entries."""
    return np.sqrt(np.sum(entries**2, axis=0) / np.maximum(mask.sum(axis=0), 1))


def root_mean_square(array: np.ndarray) -> float:
    """Return the typical size of an element; 0 if there is none."""
    return float(np.sqrt(np.mean(array**2))) if array.size else 0.0


def largest(errors: np.ndarray) -> float:
    """Return the largest error, NaN if there is one, 0 if there is none."""
    return float(np.max(errors, initial=0.0))


def relative(difference: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return difference / scale, where two exact zeros agree."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(difference, scale, out=np.zeros_like(difference), where=difference != 0)


def gradient_shapes(point: Point) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the gradients, by name, and refuse those that differ from what they belong to."""
    found = {name: gradient.shape for name, gradient in point.gradients(np.zeros(point.outputs)).items()}
    inputs = {name: value.shape for name, value in point.inputs.items() if name in found}
    expected = inputs | point.module.parameter_shapes()
    if found != expected:
        raise ValueError(f"{point.module}: backward returns gradients of shapes {found}; expected {expected}")
    return expected


def named_zeros(allow_zero: Any, names: Collection[str]) -> bool | frozenset[str]:
    """Check whose gradients may be 0."""
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
