"""Which steps can have spoilt the results: those that feed all that is wrong, by the system's own code."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from npattn.module import Module
from npattn.ops.context import apart, definitions
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.steps.flowing import FlowingArray, flow, new_mark
from npattn.oracle.steps.recorded import Recorded, name_steps
from npattn.tracing import Step
from npattn.typing import Array

__all__ = ["Suspects", "feeds_of", "find_suspects", "number_of"]

NUMBERED = re.compile(r"((?:.+ / )?\(\w+)('?\)) .+")
Feeds = Mapping[str, Collection[str]]


@apart
def feeds_of(module: Module, given: Given) -> dict[str, tuple[str, ...]]:
    """Tell of all that a pass is given, and of each of its steps, which results are made from it.

    Parameters
    ----------
    module : Module
    given : Given

    Returns
    -------
    dict of tuple of str
        Results by ``"inputs/x"``, ``"params/conv.weight"``, ``"upstream/output"``, and by the steps' names, in order of
        computation. Where an array was made in a way that can't be followed, all of them.

    Examples
    --------
    >>> import npattn
    >>> x = np.ones((1, 4, 2, 2))
    >>> module = npattn.EfficientChannelAttention(channels=4)
    >>> feeds = feeds_of(module, Given(module.init(), {"x": x}, {"output": x}))
    >>> feeds["upstream/output"], feeds["(3) a"], feeds["(2') dp"]
    (('x.grad', 'conv.weight.grad'), ('output', 'x.grad', 'channel'), ('x.grad',))
    """
    marks: dict[str, int | None] = {}

    def take(group: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        own = {name: new_mark() for name in arrays}
        marks.update({f"{group}/{name}": mark for name, mark in own.items()})
        return {name: flow(np.array(a), frozenset([own[name]])) for name, a in arrays.items()}

    def list_steps(steps: Sequence[Step]) -> dict[str, Array]:
        marks.update({name: getattr(step.value, "mark", None) for name, step in name_steps(steps).items()})
        return {}

    flowing = Given(*map(take, Given._fields, given))
    with np.errstate(all="ignore"), definitions():
        results = named_results(Recorded(module, list_steps), flowing)

    def is_made_from(result: Array, mark: int | None) -> bool:
        return mark is None or not isinstance(result, FlowingArray) or mark in result.marks

    return {
        node: tuple(name for name, result in results.items() if is_made_from(result, mark))
        for node, mark in marks.items()
    }


@dataclass(frozen=True)
class Suspects:
    """Steps of which one, if it alone is wrong, spoils all that is wrong; by number, forward before backward.

    Attributes
    ----------
    clear : tuple of str
        Those that can do so and spoil nothing that is right.
    hidden : tuple of str
        Those that feed what is right as well, where their error must then be too small to see.
    """

    clear: tuple[str, ...]
    hidden: tuple[str, ...]


def find_suspects(feeds: Feeds, wrong: Collection[str], right: Collection[str]) -> Suspects:
    """Find the steps that feed all that is wrong.

    The values of one equation count together, any of them may be wrong. So do an equation and its mirror image, where
    neither alone feeds all that is wrong: one kernel may hold both.

    Parameters
    ----------
    feeds : mapping of str to sequence of str
        As `feeds_of` returns it; steps that are known to be right are left out.
    wrong, right : collection of str
        Names of results.

    Returns
    -------
    Suspects

    Examples
    --------
    >>> feeds = {"(1) p": ["y", "x.grad"], "(2) y": ["y"], "(2') dp": ["x.grad"]}
    >>> find_suspects(feeds, ["x.grad"], ["y"])
    Suspects(clear=("(2')",), hidden=('(1)',))
    >>> find_suspects(feeds, ["y", "x.grad"], [])
    Suspects(clear=('(1)', "(2) with (2')"), hidden=())
    """
    fed: dict[str, list[set[str]]] = {}
    for node, results in feeds.items():
        fed.setdefault(number_of(node), []).append(set(results))
    found: list[str] = []

    def explains(sets: Iterable[set[str]]) -> bool:
        return set(wrong) <= set(chain.from_iterable(sets))

    def collect(clear: bool) -> tuple[str, ...]:
        def counted(number: str) -> list[set[str]]:
            return [one for one in fed.get(number, []) if not (clear and one & set(right))]

        added = [number for number in fed if number not in found and explains(counted(number))]
        found.extend(added)
        for number in fed:
            mirror = f"{number[:-1]}')"
            pair = f"{number} with {mirror}"
            new = mirror in fed and not found_any(found, number, mirror, pair)
            if new and explains(counted(number) + counted(mirror)):
                added.append(pair)
                found.append(pair)
        return tuple(added)

    return Suspects(collect(clear=True), collect(clear=False))


def found_any(found: Collection[str], *names: str) -> bool:
    """Tell whether some of these are found already."""
    return any(name in found for name in names)


def number_of(node: str) -> str:
    """Return the number of a step, without its name; what is given has none, and is itself."""
    numbered = NUMBERED.fullmatch(node)
    return node if numbered is None else numbered[1] + numbered[2]
