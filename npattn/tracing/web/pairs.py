"""Steps beside their mirror images: (n) and (n')."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from npattn.tracing.steps import Step
from npattn.tracing.traces import Trace

__all__ = ["Pair", "pairs_of", "walk"]


@dataclass(eq=False)
class Pair:
    """What one line computes, and what comes back through it.

    Attributes
    ----------
    parts : tuple of str
        Where it stands, in a system that is made of others.
    number : str
        The equation number: ``"3"`` of (3) and (3').
    forward, backward : list of Step
        One of them may be empty.
    """

    parts: tuple[str, ...]
    number: str
    forward: list[Step] = field(default_factory=list)
    backward: list[Step] = field(default_factory=list)


Key = tuple[tuple[str, ...], str]


def pairs_of(trace: Trace) -> list[Pair]:
    """Pair the steps of a trace, in the order of the forward pass; steps of the way back alone come last.

    Of a line that ran several times, the last run is the first on the way back.
    """
    back = trace.backward_passes[-1].steps if trace.backward_passes else ()
    forward, backward = grouped(trace.forward_steps), grouped(back)
    waiting: dict[Key, list[list[Step]]] = defaultdict(list)
    for key, steps in backward:
        waiting[key].append(steps)
    pairs = [Pair(*key, forward=steps) for key, steps in forward]
    for pair in reversed(pairs):
        runs = waiting[pair.parts, pair.number]
        if runs:
            pair.backward = runs.pop(0)
    left = [Pair(*key, backward=steps) for key, steps in backward if any(steps is one for one in waiting[key])]
    return pairs + left


def grouped(steps: Iterable[Step]) -> list[tuple[Key, list[Step]]]:
    """Put together the steps that follow one another under the same number."""
    groups = groupby(steps, lambda step: (step.parts, step.tag.strip("(')")))
    return [(key, list(group)) for key, group in groups]


def walk(trace: Trace, pairs: list[Pair]) -> list[tuple[Pair, bool]]:
    """List the pairs as they are computed, forward, then backward: each with whether it is the way back."""
    back = trace.backward_passes[-1].steps if trace.backward_passes else ()
    place = {id(step): i for i, step in enumerate(back)}
    returning = sorted((pair for pair in pairs if pair.backward), key=lambda pair: place[id(pair.backward[0])])
    return [(pair, False) for pair in pairs if pair.forward] + [(pair, True) for pair in returning]
