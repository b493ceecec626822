"""A pass and all its steps."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npattn.module import Module, Pass, as_tuple
from npattn.ops.context import run_with
from npattn.tracing.copies import Copies, writes_nowhere
from npattn.tracing.places import Place
from npattn.tracing.recording import RECORDING, Recording
from npattn.tracing.steps import Step
from npattn.tracing.text import table, written_out
from npattn.typing import Array, Gradients, Params
from npattn.wording import describe_type, did_you_mean

__all__ = ["Trace", "trace"]


@dataclass(frozen=True, eq=False)
class BackwardPass:
    """One way back.

    Attributes
    ----------
    dy, dx : array or tuple of array
        What it was given, the arrays themselves, and what it found for the inputs, not to be written to.
    steps : tuple of Step
    """

    dy: Any
    steps: tuple[Step, ...]
    dx: Any


class Trace:
    """A pass, forward and as often as it is asked for backward, with every step by name; made by `trace`.

    Printed, it is a table of 80 columns.

    Attributes
    ----------
    module : Module
    params, inputs : dict of array
        What was passed, by name: the arrays themselves, not copies.
    forward_steps : tuple of Step
    backward_passes : list of BackwardPass
        For each call of `backward`.
    scopes : dict
        By their parts, the functions whose lines are forward steps, each with its arguments.
    """

    def __init__(self, module: Module, params: Params, inputs: Sequence[Array]) -> None:
        self.module = module
        self._place = Place(owner=object())
        given = (*inputs, *(params.values() if isinstance(params, Mapping) else ()))
        self._copies = Copies(writes_nowhere(module), given)
        recorded = Recording(self._place.owner, False, self._copies)
        self._run: Pass = run_with(RECORDING, recorded, lambda: self._place.follow(module)(params, *inputs))
        self.params, self.inputs = dict(params), dict(zip(module.input_shapes(1, 1, 1), inputs, strict=True))
        self.forward_steps, self.scopes = tuple(recorded.steps), recorded.scopes
        self.backward_passes: list[BackwardPass] = []

    @functools.cached_property
    def run(self) -> Pass:
        """The forward pass, as ``module(params, *inputs)`` returns it. Its ``backward`` records nothing."""
        return self._copies.hand_over(self._run)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, in the order in which they were computed: forward, then those of every `backward`."""
        return sum((back.steps for back in list(self.backward_passes)), self.forward_steps)

    def backward(self, dy: Array) -> tuple[Array, Gradients]:
        """Compute the gradients, and add the steps of the way back to `steps`.

        Parameters
        ----------
        dy : array or tuple of array
            Shaped as the output.

        Returns
        -------
        dx, grads
            As ``run.backward(dy)`` returns them.

        Raises
        ------
        TypeError, ValueError
            If `dy` is refused by ``run.backward``; no step is added then.
        """
        copies = Copies(self._copies.shares, (*self._copies.given, *as_tuple(dy)))
        recorded = Recording(self._place.owner, True, copies)
        dx, grads = run_with(RECORDING, recorded, lambda: self._place.follow(self._run.backward)(dy))
        self.backward_passes.append(BackwardPass(dy, tuple(recorded.steps), dx))
        return copies.hand_over(dx), copies.hand_over(grads)

    def __getitem__(self, path: str) -> Step:
        """Look up a step by its path, ``"(3) a"`` or ``"sa / (4) o"``.

        Raises
        ------
        KeyError
            If there is none, or there are several, as of a line that ran several times.
        """
        found = [step for step in self.steps if step.path == path]
        if len(found) == 1:
            return found[0]
        if found:
            raise KeyError(f"{path!r} is the path of {len(found)} steps; expected that of one: go through .steps")
        meant = did_you_mean(path, [step.path for step in self.steps]) or ";"
        raise KeyError(f"no step {path!r}{meant} [step.path for step in trace.steps] lists all")

    def __str__(self) -> str:
        return table(self)

    def __repr__(self) -> str:
        return f"Trace({self.module}: {len(self.forward_steps)} steps forward, {len(self.backward_passes)} passes back)"

    def in_full(self) -> str:
        """Write every number of every step below its equation, as on a board: for maps of a few positions."""
        return written_out(self)


def trace(module: Module, params: Params, *inputs: Array) -> Trace:
    r"""Run a system's forward pass and keep every step: each value by its name, equation number and line of code.

    A step is a line that ends with an equation number, ``# (3)``, and what it assigns is kept as it was at that moment;
    of a line that assigns nothing, as ``np.add.at(a, i, b)``, the array that it writes to.
    The same holds in systems and tagged functions that the system calls, and on the way back. Where a system has no
    tags, or its text isn't at hand, its steps are the primitives that it calls.

    Parameters
    ----------
    module : Module
        Of the catalogue, or your own.
    params : mapping of str to array
    *inputs : array
        As the module is called; any kind of number.

    Returns
    -------
    Trace
        ``trace.run`` is the pass; ``trace.backward(dy)`` runs backward and adds the steps of it.

    Raises
    ------
    TypeError
        If `module` is no system, or whatever a call refuses.
    ValueError
        Whatever a call refuses.

    Notes
    -----
    The system is run from its own text, with a report after each step; neither its class nor anything else that others
    see is changed. Passes that run at the same time, in other threads or within each other, are kept apart.

    Examples
    --------
    >>> import numpy as np
    >>> from npattn import EfficientChannelAttention
    >>> module = EfficientChannelAttention(channels=2, kernel_size=3)
    >>> x = np.array([[[[1.0, 3.0]], [[0.0, -2.0]]]])
    >>> steps = trace(module, {"conv.weight": np.array([[[1.0, 0.0, 2.0]]])}, x)
    >>> [step.path for step in steps.steps]
    ['(1) p', '(2) z', '(3) a', '(4) y']
    >>> steps["(2) z"].value
    array([[-2.,  2.]])
    >>> steps["(2) z"].line
    'z, back_conv = layers.conv1d(p, params, "conv")'
    >>> dx, grads = steps.backward(np.ones_like(x))
    >>> [step.path for step in steps.steps][4:]
    ["(4') dx", "(4') da", "(3') dz", "(2') dp", "(2') conv.weight.grad", "(1') dx"]
    >>> steps["(3') dz"].equation
    '\\bar z_{bc} = a_{bc} (1 - a_{bc}) \\bar a_{bc}'
    """
    if not isinstance(module, Module):
        given = f"the class {module.__name__}" if isinstance(module, type) else describe_type(module)
        raise TypeError(f"trace: module is {given}; expected a system, such as CATALOGUE['eca'].example()")
    return Trace(module, params, inputs)
