"""Which results are made from what each call of a primitive computes, forward and on the way back."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npattn.module import Module
from npattn.ops.context import definitions
from npattn.ops.primitive import Primitive
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.ordering import Fed
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.steps.flowing import FlowingArray, flow, marks_in, new_mark

__all__ = ["fed_by_calls"]


def fed_by_calls(module: Module, given: Given) -> Fed:
    """Name the results that are made from each call's value or gradients, and from its gradients alone.

    Parameters
    ----------
    module : Module
    given : Given

    Returns
    -------
    dict
        By the primitive's name and the call's number. Of a call that is made on the way back the two are the same.

    Examples
    --------
    >>> import npattn
    >>> x = np.ones((1, 4, 2, 2))
    >>> module = npattn.EfficientChannelAttention(channels=4)
    >>> fed = fed_by_calls(module, Given(module.init(), {"x": x}, {"output": x}))
    >>> [sorted(names) for names in fed["conv1d", 0]]
    [['channel', 'conv.weight.grad', 'output', 'x.grad'], ['conv.weight.grad', 'x.grad']]
    """
    calls: collections.Counter[str] = collections.Counter()
    marks: dict[tuple[str, int], tuple[int, int]] = {}
    forward: dict[str, int] = {}

    def watch(primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        name = primitive.__name__
        own = marks[name, calls[name]] = new_mark(), new_mark()
        calls[name] += 1
        result = primitive(*arguments, **options)
        if not (isinstance(result, tuple) and callable(result[-1])):
            return marked(result, own[0])
        value, back = result
        return marked(value, own[0]), lambda *dy, **more: marked(back(*dy, **more), own[1])

    def take(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: flow(np.array(a), frozenset()) for name, a in arrays.items()}

    with np.errstate(all="ignore"), definitions(), answering(watch):
        results = named_results(module, Given(*map(take, given)), lambda: forward.update(calls))
    made = {name: marks_in(a) for name, a in results.items() if isinstance(a, FlowingArray)}
    unknown = set(results) - set(made)

    def fed(*some: int) -> set[str]:
        return unknown | {name for name, known in made.items() if not known.isdisjoint(some)}

    return {call: (fed(*own), fed(*own[call[1] < forward.get(call[0], 0) :])) for call, own in marks.items()}


def marked(value: Any, mark: int) -> Any:
    """Mark views of the arrays in nested tuples and lists: what is handed through bears no mark elsewhere."""
    if type(value) in (tuple, list):
        return type(value)(marked(one, mark) for one in value)
    return flow(value.view() if isinstance(value, np.ndarray) else value, frozenset([mark]))
