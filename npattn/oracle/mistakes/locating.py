"""Where in a system each call of a primitive stands: by the steps of a trace."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.ops.primitive import Primitive
from npattn.oracle.budgets import Given
from npattn.oracle.mistakes.planting import answering
from npattn.tracing import trace
from npattn.tracing.recording import RECORDING

__all__ = ["Place", "locate"]


@dataclass
class Place:
    """Where one call stands.

    Attributes
    ----------
    forward, backward : int
        How many steps had been computed before it, forward and on the way back; -1 where it is in none.
    tag, back_tag : str
        Of the line that called it, with the parts of the system before it: ``"sa / (4)"``.
    """

    forward: int = -1
    backward: int = -1
    tag: str = ""
    back_tag: str = ""


def locate(module: Module, given: Given) -> dict[tuple[str, int], Place]:
    """Find the tags of all calls, by the primitive's name and the call's number.

    Parameters
    ----------
    module : Module
    given : Given

    Returns
    -------
    dict of Place

    Examples
    --------
    >>> import npattn
    >>> module = npattn.EfficientChannelAttention(channels=2)
    >>> x = np.ones((1, 2, 1, 3))
    >>> places = locate(module, Given(module.init(), {"x": x}, {"output": x}))
    >>> places["sigmoid", 0].tag, places["sigmoid", 0].back_tag
    ('(3)', "(3')")
    """
    calls: collections.Counter[str] = collections.Counter()
    found: dict[tuple[str, int], Place] = {}

    def watch(primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        name = primitive.__name__
        place = found[name, calls[name]] = Place(forward=steps_so_far())
        calls[name] += 1
        result = primitive(*arguments, **options)
        if not isinstance(result, tuple) or not callable(result[-1]):
            return result

        def backward(*dy: Any, **more: Any) -> Any:
            place.backward = steps_so_far()
            return result[-1](*dy, **more)

        return (*result[:-1], backward)

    upstream = tuple(given.upstream.values())
    with answering(watch), np.errstate(all="ignore"):
        traced = trace(module, given.params, *given.inputs.values())
        traced.backward(upstream if isinstance(traced.run.output, tuple) else upstream[0])
    for place in found.values():
        place.tag = tag_at(traced.forward_steps, place.forward)
        place.back_tag = tag_at(traced.backward_passes[0].steps, place.backward)
    return found


def steps_so_far() -> int:
    """Count the steps that have been recorded; -1 where none are."""
    now = RECORDING.get()
    return -1 if now is None else len(now.steps)


def tag_at(steps: Sequence[Any], number: int) -> str:
    """Return the tag of a step, with its parts; nothing where there is none."""
    if not 0 <= number < len(steps):
        return ""
    return " / ".join([*steps[number].parts, steps[number].tag])
