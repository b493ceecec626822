"""A forward and a backward pass, exact or on rounding arrays, whose results have names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npattn.module import Module, as_tuple
from npattn.ops.context import replacing
from npattn.oracle.pairs import keep_apart, keeping_apart
from npattn.oracle.rounding import Rounding
from npattn.typing import Array

__all__ = ["Given", "exact_results", "named_results", "run_on"]


class Given(NamedTuple):
    """What a forward and a backward pass are given, by name: numbers that a format holds.

    Attributes
    ----------
    params, inputs, upstream : dict of array
        Upstream gradients stand under the output's name.
    """

    params: dict[str, Array]
    inputs: dict[str, Array]
    upstream: dict[str, Array]

    def each(self, function: Callable[[Array], Array]) -> Given:
        """Apply a function to every array."""
        return Given(*({name: function(a) for name, a in values.items()} for values in self))


def named_results(
    module: Module, given: Given, between: Callable[[], object] = lambda: None, *, backward: bool = True
) -> dict[str, Array]:
    """Run forward, call `between`, run backward; name the results.

    Parameters
    ----------
    module : Module
    given : Given
    between : callable, optional
    backward : bool, default True
        Whether there is a backward pass; without it the outputs are all.

    Returns
    -------
    dict of array
        ``"output"`` (or ``"output.0"``, …), ``"x.grad"`` by the input's name, ``"conv.weight.grad"`` by the
        parameter's; in training the new running statistics, ``"bn1.running_var"`` by the buffer's; then those maps of
        `Pass.attention` that hold floating-point numbers, by their names.

    Examples
    --------
    >>> import npattn
    >>> module = npattn.EfficientChannelAttention(channels=4)
    >>> x = np.ones((1, 4, 2, 2))
    >>> list(named_results(module, Given(module.init(), {"x": x}, {"output": x})))
    ['output', 'x.grad', 'conv.weight.grad', 'channel']
    """
    params, inputs, upstream = given
    run = module(params, *inputs.values())
    several = isinstance(run.output, tuple)
    outputs = {f"output.{i}" if several else "output": y for i, y in enumerate(as_tuple(run.output))}
    if not backward:
        return outputs
    dy = tuple(upstream[name] for name in outputs)
    between()
    dx, grads = run.backward(dy if several else dy[0])
    gradients = {name: g for name, g in zip(inputs, as_tuple(dx), strict=True) if g is not None}
    gradients |= {name: grads[name] for name in module.parameter_shapes()}
    found = outputs | {f"{name}.grad": gradient for name, gradient in gradients.items()}
    found |= {name: run.buffers[name] for name in module.buffer_shapes() if name in run.buffers}
    maps = {name: a for name, a in run.attention.items() if np.issubdtype(a.dtype, np.inexact)}
    return found | {name: a for name, a in maps.items() if name not in found}


def exact_results(module: Module, given: Given) -> dict[str, Array]:
    """Name the results of a pass in float64, in which logits of many pairs are never held all at once.

    Parameters
    ----------
    module : Module
    given : Given

    Returns
    -------
    dict of array
        As `named_results` names them.
    """
    with np.errstate(all="ignore"), keeping_apart(module), replacing(keep_apart):
        return named_results(module, given)


def run_on(
    rounding: Rounding,
    module: Module,
    given: Given,
    *,
    fused: bool = False,
    between: Callable[[], object] = lambda: None,
    backward: bool = True,
) -> dict[str, np.ndarray]:
    """Run forward and backward on rounding arrays; return plain ones.

    Parameters
    ----------
    rounding : Rounding
    module : Module
    given : Given
    fused : bool, default False
        Whether the backward pass rounds nothing but its results.
    between : callable, optional
        Called before it.
    backward : bool, default True
        Whether there is one.

    Returns
    -------
    dict of numpy.ndarray
        As `named_results` names them.
    """

    def begin_backward() -> None:
        between()
        rounding.known.begin_backward(rounding.choose)
        rounding.fused = fused

    with np.errstate(all="ignore"), keeping_apart(module):
        found = named_results(module, given.each(rounding.array), begin_backward, backward=backward)
        rounding.fused = False
        rounding.known.end_backward()
        return {name: rounding.round(np.array(a)) if fused else np.asarray(a) for name, a in found.items()}
