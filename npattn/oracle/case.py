"""A golden case: what to feed a kernel, and how to judge what comes out."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npattn.checks import require_numbers
from npattn.files import one_line
from npattn.module import Module
from npattn.oracle.budgets import Given
from npattn.oracle.comparison import LEAST_JUDGED, Comparison
from npattn.oracle.formats import FORMATS, Format
from npattn.oracle.golden_files.described import axes_of
from npattn.oracle.golden_files.writing import save
from npattn.oracle.judging import compare
from npattn.oracle.layouts import lay_out
from npattn.oracle.mistakes import SECONDS, Diagnosis, diagnose
from npattn.oracle.steps import GoldenStep, measure_steps, with_steps
from npattn.oracle.tensors import Change, describe_changes, require_kept
from npattn.wording import describe_type

__all__ = ["Case"]


@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """One golden case of one system: what to feed a kernel, and how to judge what comes out.

    Attributes
    ----------
    module : Module
    dtype : str
        The format: "float32", "tf32", "bfloat16", "float16", "float8_e4m3" or "float8_e5m2".
    seed : int
    values : str
        The kind of inputs that are drawn: "generic", "large", "ties" or "zeros"; or of upstream gradients: "ones".
    inputs, params, upstream : dict of numpy.ndarray, float32
        What the kernel is given, all of it exactly representable in `dtype`: inputs and parameters by name, and the
        gradient of each output under the output's name. Inputs and upstream gradients lie in memory as `layout` says.
        Labels and other integers without a gradient are as they are.
    expected : dict of numpy.ndarray, float64
        The exact results: ``"output"`` (or ``"output.0"``, …), ``"x.grad"`` by the input's name,
        ``"conv.weight.grad"`` by the parameter's; in training the new running statistics, ``"bn1.running_var"``; the
        attention maps by the names that `Pass.attention` has for them, ``"channel"``.
    budget : dict of numpy.ndarray, float64
        The unit of each element's error. An element whose unit is infinite, because the format can't hold what leads
        to it or because the exact result is NaN, is not judged.
    limits : dict of tuple of float
        How many units the worst element of each result, and the root mean square of all, may be off.
    freedom : dict of float
        Effective degrees of freedom: how many independent errors each result's root mean square is an average of. The
        limits follow from it.
    digits : dict of float
        How many decimal digits of `expected` are right, by the same computation in longdouble: of the largest error
        against the tensor's root mean square, or that of its budget where it is larger, as it is for a gradient that
        vanishes. NaN on machines whose longdouble is float64.
    layout : str
        How inputs and upstream gradients lie in memory: "contiguous", "broadcast", "transposed", "sliced" or
        "channels-last". Conversion to another dtype or library may lay them out anew; `arrays` keeps it.
    given : tuple of str
        Which of "inputs", "params" and "upstream" the caller gave; the others are drawn.
    rounded : dict of Change
        Of what was given and the format does not hold: how many values were rounded, and how far, by group and name,
        ``"inputs/x"``.
    """

    module: Module
    dtype: str
    seed: int
    values: str
    inputs: dict[str, np.ndarray]
    params: dict[str, np.ndarray]
    upstream: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    budget: dict[str, np.ndarray]
    limits: dict[str, tuple[float, float]]
    freedom: dict[str, float]
    digits: dict[str, float]
    layout: str = "contiguous"
    given: tuple[str, ...] = ()
    rounded: dict[str, Change] = field(default_factory=dict)
    measured_steps: dict[str, GoldenStep] | None = field(default=None, init=False)

    @property
    def format(self) -> Format:
        """The format of the kernel's numbers."""
        return FORMATS[self.dtype]

    def __repr__(self) -> str:
        first = next(iter(self.inputs.values())).shape
        shape = "x".join(map(str, first))
        if axes_of(self.module) == "heads" and self.inputs["key"].shape[-2] != first[-2]:
            shape += f" with {self.inputs['key'].shape[-2]} keys"
        special = [word for word in (self.values, self.layout) if word not in ("generic", "contiguous")]
        given = [f"given {' and '.join(self.given)}"] if self.given else []
        rounded = [describe_changes(self.rounded)] if self.rounded else []
        parts = str(self.module), shape, self.dtype, *special, *given, *rounded, f"seed {self.seed}"
        return f"Case({', '.join(parts)})"

    def arrays(
        self, convert: Callable[[np.ndarray], Any] = np.asarray, *, exact: Callable[[np.ndarray], Any] | None = None
    ) -> Given:
        """Hand over what the kernel is given as arrays of any library, laid out in memory as `layout` says.

        Parameters
        ----------
        convert : callable, default numpy.asarray
            Makes an array of the library, dtype and device that the kernel takes of a contiguous NumPy array in
            float32, and keeps its shape: ``numpy.float16``, ``cupy.asarray``, or ``lambda a: torch.tensor(a,
            dtype=torch.bfloat16, requires_grad=True)``.
        exact : callable, optional
            Does so for inputs without a gradient, masks, lengths and labels, of which a narrow format may not hold all:
            ``torch.tensor``. By default `convert`.

        Returns
        -------
        params, inputs, upstream : dict of array
            By name, as the attributes of a named tuple too. Torch tensors that require a gradient are leaves.
            Parameters are contiguous.

        Raises
        ------
        TypeError
            If `convert` or `exact` can't be called.
        ValueError
            If a length, label or the like does not survive `convert`, as 415 does not in bfloat16.

        Examples
        --------
        >>> import npattn
        >>> module = npattn.EfficientChannelAttention(channels=4)
        >>> case = npattn.oracle.golden(module, height=3, width=5, values="ones", layout="broadcast")
        >>> params, inputs, upstream = case.arrays(np.float16)
        >>> upstream["output"].shape, upstream["output"].strides
        ((1, 4, 3, 5), (0, 0, 0, 0))
        """
        exact = convert if exact is None else exact
        for option, function in {"convert": convert, "exact": exact}.items():
            if not callable(function):
                raise TypeError(
                    f"{self!r}.arrays: {option} is {describe_type(function)}; expected a function of a NumPy array, "
                    "such as numpy.float16"
                )
        differentiated = {name: a for name, a in self.inputs.items() if f"{name}.grad" in self.expected}
        others = {name: lay_out(a, self.layout, exact) for name, a in self.inputs.items() if name not in differentiated}
        for name, a in others.items():
            require_kept(f"{self!r}.arrays", name, self.inputs[name], a)

        def hand_over(arrays: Mapping[str, np.ndarray], layout: str) -> dict[str, Any]:
            return {name: lay_out(a, layout, convert) for name, a in arrays.items()}

        inputs = hand_over(differentiated, self.layout) | others
        return Given(
            hand_over(self.params, "contiguous"),
            {name: inputs[name] for name in self.inputs},
            hand_over(self.upstream, self.layout),
        )

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the results that are attention maps, which a kernel need not make."""
        others = {*self.upstream, *self.params}
        return tuple(name for name in self.expected if not name.endswith(".grad") and name not in others)

    def steps(self) -> dict[str, GoldenStep]:
        """Return every step of the pass, forward and backward: its exact value and error budget.

        They are measured when they are first asked for, unless `golden` was told to, or the case was read from a file
        that holds them: by the same runs with stochastic rounding that give the results their budgets, once more if
        these have been made.

        Returns
        -------
        dict of GoldenStep
            By name, ``"(3) a"`` or ``"(3') dz"``, in order of computation; of a part of a system ``"sa / (4) o"``, as
            `npattn.trace` has it. What a line assigns several times, or several times over, is ``"(4) q #1"``,
            ``"(4) q #2"``. Where a system has no numbers on its lines, the calls of primitives are its steps. Values
            that are no floating-point numbers, such as indices, are left out: near ties decide them.

        Raises
        ------
        TypeError
            If the case is from a file without steps, of a system whose code it doesn't hold.

        Examples
        --------
        >>> import npattn
        >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
        >>> steps = case.steps()
        >>> list(steps)[:4], list(steps)[-2:]
        (['(1) p', '(2) z', '(3) a', '(4) y'], ["(2') conv.weight.grad", "(1') dx"])
        >>> steps["(3) a"].expected.shape, steps["(3') dz"].feeds
        ((1, 4), ('x.grad', 'conv.weight.grad'))
        """
        if self.measured_steps is None:
            self.keep_steps(measure_steps(self))
        assert self.measured_steps is not None
        return self.measured_steps

    def keep_steps(self, steps: dict[str, GoldenStep]) -> None:
        """Take steps that were measured before."""
        object.__setattr__(self, "measured_steps", steps)

    def with_steps(self, names: Iterable[str]) -> Case:
        """Return the case with those of its steps among its results that are named; other names are left alone.

        Parameters
        ----------
        names : iterable of str

        Returns
        -------
        Case

        Raises
        ------
        TypeError
            As `steps` raises it.
        ValueError
            If a name has the form of a step's and is none; the nearest is named.
        """
        return with_steps(self, names)

    def compare(
        self, results: Mapping[str, Any], *, least_judged: float = LEAST_JUDGED, require: str | None = None
    ) -> Comparison:
        """Judge a kernel's results.

        Parameters
        ----------
        results : mapping of str to array
            Any of the names in `expected` and of `steps`: NumPy arrays, torch tensors of any device and dtype, CuPy or
            JAX arrays, or whatever speaks DLPack. What is none of these, or not of real floating-point numbers, fails,
            and the report says why. So does None, which torch has for the gradient of what none has reached; that of an
            input without a gradient, noise or a mask, is as it should be.
        least_judged : float, default 0.5
            A result does not pass if a smaller share of its elements can be judged. One of which nothing can be judged
            never passes. A step does, as far as it can be judged.
        require : {None, "all"}, optional
            Whether results that are not given make the report fail, but for attention maps, which a kernel may never
            make. It names them in any case.

        Returns
        -------
        Comparison
            With steps, in order of computation. A failing one says where what is wrong begins: the first step that is
            off, or else, by the system's own code, which steps can have spoilt it.

        Raises
        ------
        TypeError
            If `results` is no mapping.
        ValueError
            If it is empty, or holds a name that is neither in `expected` nor in `steps`; if `require` is another
            string, or `least_judged` no share.

        Examples
        --------
        >>> import npattn
        >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
        >>> report = case.compare({"output": 1.1 * case.expected["output"]})
        >>> report.passed, report.judgements["output"].outside > 0.5
        (False, True)
        """
        return compare(self, results, least_judged, require)

    def assert_matches(
        self, results: Mapping[str, Any], *, least_judged: float = LEAST_JUDGED, require: str | None = None
    ) -> None:
        """Judge a kernel's results, as `compare` does, and fail unless they pass.

        Parameters
        ----------
        results : mapping of str to array
        least_judged : float, default 0.5
        require : {None, "all"}, optional

        Raises
        ------
        AssertionError
            With the report as its text, and what `diagnose` makes of it, unless it passes.
        TypeError, ValueError
            As `compare` raises them.

        Examples
        --------
        >>> import npattn
        >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
        >>> case.assert_matches({"output": case.expected["output"]})
        >>> case.assert_matches({"output": case.expected["output"]}, require="all")
        Traceback (most recent call last):
        AssertionError: Case(...)
        2 results NOT GIVEN; errors in units of each element's budget:
        ...
        not given: x.grad, conv.weight.grad
        """
        __tracebackhide__ = True  # pytest then points at the caller's line
        report = self.compare(results, least_judged=least_judged, require=require)
        if not report.passed:
            wrong = any(not judgement.within for judgement in report.judgements.values())
            raise AssertionError("\n".join([str(report), *(self.explain(results) if wrong else [])]))

    def explain(self, results: Mapping[str, Any]) -> list[str]:
        """Write what a failing report ends with; a system that a planted mistake breaks does not hide the report.

        Parameters
        ----------
        results : mapping of str to array
            As `compare` takes them.

        Returns
        -------
        list of str
            Lines.
        """
        try:
            return self.diagnose(results).lines()
        except Exception as error:  # whatever the caller's own system raises
            return textwrap.wrap(f"no mistake could be tried: {one_line(str(error))}", 80, subsequent_indent="  ")

    def diagnose(self, results: Mapping[str, Any], *, seconds: float | None = None) -> Diagnosis:
        """Look for the mistakes whose results a wrong kernel's are: known ones, and some made by rule.

        Parameters
        ----------
        results : mapping of str to array
            As `compare` takes them. The more of them, the surer.
        seconds : float, optional
            How long the search may take of the processor, by default 4: the diagnosis says if there was no time to try
            all.

        Returns
        -------
        Diagnosis
            A sequence of suspects, best first; its text has one a line.

        Raises
        ------
        TypeError, ValueError
            As `compare` raises them of results, or if `seconds` is no finite number.

        Examples
        --------
        >>> import npattn
        >>> module = npattn.EfficientChannelAttention(channels=8)
        >>> case = npattn.oracle.golden(module, height=3, width=5, dtype="float32")
        >>> flipped = {"conv.weight": case.params["conv.weight"][..., ::-1]}
        >>> print(case.diagnose({"output": module(flipped, case.inputs["x"]).output}))
        it looks like:
        ...
        """
        most = SECONDS if seconds is None else seconds
        require_numbers(f"{self!r}.diagnose", seconds=most)
        return diagnose(self, results, most)

    def save(self, path: str | os.PathLike[str], *, force: bool = False, steps: bool = False) -> None:
        """Write the case to a file that programs in any language can read; `npattn.oracle.load` reads it back.

        ``derivations/golden_files.md`` describes the format: plain arrays and a JSON header in an .npz archive.

        Parameters
        ----------
        path : path
            Ends in ``.npz``, if NumPy's users are to recognise it.
        force : bool, default False
            Whether a regular file that is already there may be replaced; a symbolic link is followed, all else refused.
        steps : bool, default False
            Whether the file holds the steps as well.

        Raises
        ------
        TypeError, ValueError
            If a hyperparameter of the case's system can't be written as JSON.
        OSError
            If the file is there already, or can't be written.

        Examples
        --------
        >>> import os, tempfile
        >>> import npattn
        >>> case = npattn.oracle.golden(npattn.EfficientChannelAttention(channels=4), height=3, width=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     case.save(os.path.join(folder, "eca.npz"))
        ...     with np.load(os.path.join(folder, "eca.npz")) as file:
        ...         print(file["inputs/x"].shape, file["expected/x.grad"].dtype)
        (1, 4, 3, 3) float64
        """
        save(self, path, force=force, steps=steps)
