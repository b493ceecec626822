"""Steps measured: by the runs that set the budgets of a case's results, under a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from npattn.module import Module
from npattn.ops.context import apart
from npattn.oracle.budgets import Budget, Given, limits_of, measure_budgets, named_results, observe
from npattn.oracle.golden_files.described import Described
from npattn.oracle.steps.recorded import Recorded, is_judged, looks_like_step, name_steps
from npattn.oracle.steps.upstream import feeds_of, number_of
from npattn.oracle.threads import leaving_no_limit, pass_threads
from npattn.tracing import Step
from npattn.typing import Array
from npattn.wording import brief, describe_type, did_you_mean

if TYPE_CHECKING:
    from npattn.oracle.case import Case

__all__ = ["GoldenStep", "first_steps", "given_of", "measure_steps", "reader_of", "steps_meant", "with_steps"]

MAX_RECORDED = 2**24
"""Elements of the steps that are measured together: more are measured group by group, by the same runs each time."""
MOST_MEANT = 3
"""Steps that are asked for where a name is of none."""
Shapes = Mapping[str, tuple[int, ...]]
Measured = Mapping[str, tuple[np.ndarray, Budget]]


@dataclass(frozen=True, eq=False, repr=False)
class GoldenStep:
    """A step of a case's pass, and how to judge it.

    Attributes
    ----------
    name : str
        Its path, as in a trace: ``"(3) a"``, ``"(3') dz"``, ``"sa / (4) o"``. Of a name that is assigned several times
        under one number, ``"(4) q #1"`` and ``"(4) q #2"``, in order of computation.
    expected, budget : numpy.ndarray, float64
        The exact value, and the unit of each element's error.
    limits : tuple of float
        How many units its worst element, and the root mean square of all, may be off.
    freedom : float
        Effective degrees of freedom.
    line : str
        The line of code.
    feeds : tuple of str
        The results that are made from it.
    """

    name: str
    expected: np.ndarray
    budget: np.ndarray
    limits: tuple[float, float]
    freedom: float
    line: str
    feeds: tuple[str, ...]

    def __repr__(self) -> str:
        return f"GoldenStep({self.name}: {'x'.join(map(str, self.expected.shape)) or 'scalar'})"


def given_of(case: Case) -> Given:
    """Return what a case's runs were given: the same numbers in float64, contiguous."""
    return Given(case.params, case.inputs, case.upstream).each(lambda a: np.array(a, np.float64, order="C"))


def first_steps(module: Module, given: Given) -> dict[str, tuple[int, ...]]:
    """List the steps of a pass, with their shapes, that can be measured together: all, unless they are too large."""
    shapes = {name: np.shape(step.value) for name, step in list_steps(module, given).items()}
    return next(groups_of(shapes), {})


def list_steps(module: Module, given: Given) -> dict[str, Step]:
    """List the steps of a pass that are judged, by name."""
    found: dict[str, Step] = {}

    def read(steps: Sequence[Step]) -> dict[str, Array]:
        found.update({name: step for name, step in name_steps(steps).items() if is_judged(step.value)})
        return {}

    with np.errstate(all="ignore"):
        named_results(Recorded(module, read), given)
    return found


@apart
@leaving_no_limit
def measure_steps(case: Case, measured: Measured | None = None) -> dict[str, GoldenStep]:
    """Measure every step of a case: its exact value, and its budget by the runs that set those of the results.

    Parameters
    ----------
    case : Case
    measured : mapping of str to (numpy.ndarray, Budget), optional
        Those that were measured with the results. For the others the runs are made once more.

    Returns
    -------
    dict of GoldenStep
        By name, in order of computation: those of floating-point numbers. Indices and masks have no error that could
        be judged, as a near tie decides them.
    """
    given, known = given_of(case), dict(measured or {})
    recorded, feeds = list_steps(case.module, given), feeds_of(case.module, given)
    for group in groups_of({name: np.shape(step.value) for name, step in recorded.items() if name not in known}):
        system = Recorded(case.module, reader_of(group))
        with pass_threads() as threads:
            observed = observe(system, given, case.format, case.seed)
            observed = observed._replace(expected={name: observed.expected[name] for name in group})
            budgets = measure_budgets(observed, system, given, case.format, case.seed, threads=threads)
        assert budgets is not None  # all are accepted
        known |= {name: (observed.expected[name], budget) for name, budget in budgets.items()}

    def make(name: str, step: Step) -> GoldenStep:
        expected, budget = known[name]
        limits = limits_of(budget, wandering=case.format.is_accumulator)
        return GoldenStep(name, expected, budget.scale, limits, budget.freedom, step.line, feeds[name])

    return {name: make(name, step) for name, step in recorded.items()}


def reader_of(shapes: Shapes) -> Callable[[Sequence[Step]], dict[str, Array]]:
    """Return what reads these steps; one that is missing in a run, or of another shape there, is NaN."""

    def read(steps: Sequence[Step]) -> dict[str, Array]:
        found = {name: step.value for name, step in name_steps(steps).items() if name in shapes}
        fitting = {
            name: value if hasattr(value, "dtype") else np.array(value)
            for name, value in found.items()
            if is_judged(value) and np.shape(value) == shapes[name]
        }
        return {name: fitting[name] if name in fitting else np.full(shape, np.nan) for name, shape in shapes.items()}

    return read


def groups_of(shapes: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """Cut steps into groups that are no larger than memory should hold, the errors of many runs of each."""
    group: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        count = int(np.prod(shape, dtype=np.int64))
        if group and size + count > MAX_RECORDED:
            yield group
            group, size = {}, 0
        group[name] = shape
        size += count
    if group:
        yield group


def with_steps(case: Case, names: Iterable[str]) -> Case:
    """Return a case that has those of its steps among its results that are named.

    Raises
    ------
    TypeError
        If the names are one string, or none can be taken of them; or if the case's system can't be run, being known by
        its name alone, and the case has no steps.
    ValueError
        If a name has the form of a step's and is none; the nearest is named.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise TypeError(f"with_steps: names={brief(names)} is {describe_type(names)}; expected a list of names")
    wanted = [name for name in names if isinstance(name, str) and name not in case.expected and looks_like_step(name)]
    if not wanted:
        return case
    if case.measured_steps is None and isinstance(case.module, Described):
        system = case.module.name
        raise TypeError(
            f"{case.module}: no step {wanted[0]!r}: the file holds no steps, and no code of {system}; expected one "
            f"written with steps, by npattn golden --steps or case.save(path, steps=True), or in Python "
            f"npattn.oracle.load(path, systems=[{system}]), with the class"
        )
    steps = case.steps()
    for name in wanted:
        if name not in steps:
            several = [other for other in steps if other.startswith(f"{name} #")]
            meant = f"; it is the name of {len(several)}: {', '.join(several)}" if several else ""
            meant = meant or did_you_mean(name, steps, 0.6) or describe_neighbours(name, steps)
            raise ValueError(f"{case!r}: no step {name!r}{meant} (case.steps() lists all)")
    chosen = {name: steps[name] for name in wanted}
    return replace(
        case,
        expected=case.expected | {name: step.expected for name, step in chosen.items()},
        budget=case.budget | {name: step.budget for name, step in chosen.items()},
        limits=case.limits | {name: step.limits for name, step in chosen.items()},
        freedom=case.freedom | {name: step.freedom for name, step in chosen.items()},
    )


def describe_neighbours(name: str, steps: Iterable[str]) -> str:
    """Say which steps have the number that a name has."""
    number = number_of(name)
    found = [other for other in steps if number_of(other) == number]
    return f"; of {number} there are {', '.join(found)}" if found else "; those of floating-point numbers are judged"


def steps_meant(case: Case, name: Any) -> list[str]:
    """List the steps that may be meant by a name which has not their form: by the variable alone, or without a space.

    Parameters
    ----------
    case : Case
    name : str

    Returns
    -------
    list of str
        At most a few; none where the case holds no steps and its system's code isn't there.

    Examples
    --------
    >>> import npattn
    >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
    >>> steps_meant(case, "(3')dz"), steps_meant(case, "a"), steps_meant(case, "(2)")
    (["(3') dz"], ['(3) a'], ['(2) z'])
    """
    if not isinstance(name, str) or (case.measured_steps is None and isinstance(case.module, Described)):
        return []
    steps = case.measured_steps or list_steps(case.module, given_of(case))
    wanted = squeezed(name)
    found = [one for one in steps if wanted in (squeezed(one), squeezed(variable_of(one)), squeezed(number_of(one)))]
    return found[:MOST_MEANT] if wanted else []


def squeezed(name: str) -> str:
    """Write a name without spaces, and with one kind of apostrophe."""
    return "".join(name.split()).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("\N{PRIME}", "'")


def variable_of(step: str) -> str:
    """Return the name of a step's variable, without its number and that of the time that it is assigned."""
    return step.rpartition(") ")[2].partition(" #")[0]
