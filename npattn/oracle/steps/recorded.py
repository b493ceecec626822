"""Systems run under a trace, so that their steps are among the maps of a pass; and what steps are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npattn.module import Module, Pass
from npattn.tracing import Step, Trace
from npattn.typing import Array, Params

__all__ = ["Recorded", "is_judged", "looks_like_step", "name_steps"]

STEP_NAME = re.compile(r"(?:.+ / )?\(\w+'?\) .+")


@dataclass(frozen=True)
class Recorded(Module):
    """A system whose steps are among the maps of its pass, once that has gone back.

    Parameters
    ----------
    module : Module
    read : callable
        Makes maps, by name, of the steps of a pass.
    """

    module: Module
    read: Callable[[Sequence[Step]], Mapping[str, Array]]

    def forward(self, params: Params, *inputs: Array) -> Pass:
        """Run forward under a trace."""
        steps = Trace(self.module, params, inputs)
        maps = dict(steps.run.attention)

        def backward(dy: Array) -> Any:
            found = steps.backward(dy)
            maps.update(self.read(steps.steps))
            return found

        return replace(steps.run, backward=backward, attention=maps)

    def __call__(self, params: Params, *inputs: Array) -> Pass:
        """Run forward; the system itself checks what it is given."""
        return self.forward(params, *inputs)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of the system."""
        return self.module.parameter_shapes()

    def buffer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return those of the system."""
        return self.module.buffer_shapes()


def name_steps(steps: Iterable[Step]) -> dict[str, Step]:
    """Name steps by their paths; of those that share one, each by its number too."""
    steps = list(steps)
    times, seen = Counter(step.path for step in steps), Counter[str]()
    named = {}
    for step in steps:
        seen[step.path] += 1
        named[step.path if times[step.path] == 1 else f"{step.path} #{seen[step.path]}"] = step
    return named


def is_judged(value: Any) -> bool:
    """Tell whether a step's value is of real floating-point numbers, which alone have an error."""
    return isinstance(value, float) or np.issubdtype(getattr(value, "dtype", np.int64), np.floating)


def looks_like_step(name: str) -> bool:
    """Tell whether a name is of the form that steps have.

    Examples
    --------
    >>> [looks_like_step(name) for name in ("(3') dz", "sa / (4) o", "(4) q #2", "x.grad")]
    [True, True, True, False]
    """
    return STEP_NAME.fullmatch(name) is not None
