"""Mistakes in a whole forward pass, whatever they are made of: in forward alone, and as autograd carries them back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.oracle.mistakes.mistake import Mistake, When, always
from npattn.oracle.mistakes.planting import answering
from npattn.oracle.mistakes.taping import Taped, answering_taped, pull, untape
from npattn.oracle.steps import is_backward, looks_like_step

__all__ = ["Instead", "in_forward", "with_steps"]

Forward = Callable[..., Any]
"""Takes a module, parameters and inputs, and returns a pass."""
Answer = Callable[..., Any]
"""Takes a primitive, its arguments and options, and returns the value of a step, or NotImplemented."""


class Instead:
    """A module that another function runs.

    Parameters
    ----------
    module : Module
    run : callable
    as_module : callable, optional
        Makes a module that runs the same, and can be traced.
    """

    def __init__(self, module: Any, run: Callable[..., Any], as_module: Callable[[], Any] | None = None) -> None:
        self.module, self.run, self.as_module = module, run, as_module

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return self.run(*arguments)

    def __getattr__(self, name: str) -> Any:
        """Be otherwise the module."""
        return getattr(self.module, name)


def in_forward(
    name: str, forward: Forward, of: Callable[[Any], Any] | None = None, when: When = always
) -> list[Mistake]:
    """Make the two mistakes that a wrong forward pass is: its results alone, and with the gradients of itself.

    Parameters
    ----------
    name : str
    forward : callable
        On plain arrays its backward is never asked for; taped ones go through it too.
    when : callable

    Returns
    -------
    list of Mistake
    """

    def plain(run: Any, module: Any, *given: Any) -> Any:
        return run(Instead(module, functools.partial(forward, module)), *given)

    def forward_steps(run: Any, module: Any, *given: Any, right: dict[str, Any]) -> dict[str, Any]:
        steps = [name for name in right if looks_like_step(name) and not is_backward(name)]
        found = run(of(module), *given) if steps and of is not None else {}
        return {name: found[name] for name in steps if name in found}

    def alone(run: Any, module: Any, params: Any, inputs: Any, upstream: Any) -> Any:
        right = run(module, params, inputs, upstream)
        steps = forward_steps(run, module, params, inputs, upstream, right=right)
        return right | forward_of(forward(module, params, *inputs.values()), right, upstream) | steps

    def carried(run: Any, module: Any, params: Any, inputs: Any, upstream: Any) -> Any:
        right = run(module, params, inputs, upstream)
        taped = [{name: tape(a) for name, a in group.items()} for group in (params, inputs)]
        passed = forward(module, taped[0], *taped[1].values())
        outputs = [y for y in as_tuple(passed.output) if isinstance(y, Taped)]
        sources = {f"{name}.grad": a for group in taped for name, a in group.items() if f"{name}.grad" in right}
        known = zip(outputs, upstream.values(), strict=True)
        gradients = dict(zip(sources, pull(known, list(sources.values())), strict=True))
        steps = forward_steps(run, module, params, inputs, upstream, right=right)
        if of is not None:  # what a tape goes back through are no steps of the system's own backward
            right = {name: a for name, a in right.items() if not (looks_like_step(name) and is_backward(name))}
        return right | gradients | forward_of(passed, right, upstream) | steps

    return [
        Mistake("", f"{name}, in forward alone", "forward", alone, when, plain),
        Mistake("", name, "carried", carried, when, plain),
    ]


def with_steps(name: str, make: Callable[..., Answer], when: When = always) -> list[Mistake]:
    """Make the two mistakes of a pass in which some steps are others.

    ``make(*inputs)`` is called for every pass, and returns a function that answers the system's calls of primitives.
    """

    def forward(module: Any, params: Any, *inputs: Any) -> Any:
        answer = make(*inputs)

        def spoil(primitive: Any, arguments: Any, options: Any) -> Any:
            value = answer(primitive, arguments, options)
            return value if value is NotImplemented else (value, no_way_back)

        taped = any(isinstance(a, Taped) for a in inputs)
        with answering_taped(spoil) if taped else answering(spoil):
            return module.forward(params, *inputs)

    return in_forward(name, forward, when=when)


def no_way_back(*_: Any, **__: Any) -> Any:
    """Stand for a backward that is never called: gradients come from what was taped."""
    raise TypeError("a pass spoiled in forward has no backward of its own")


def tape(a: Any) -> Any:
    """Tape floating-point arrays."""
    return Taped(a) if getattr(a, "dtype", np.dtype(int)).kind == "f" else a


def forward_of(passed: Any, right: dict[str, Any], upstream: dict[str, Any]) -> dict[str, Any]:
    """Name what a forward pass gives, as far as the right pass has it."""
    found = dict(zip(upstream, as_tuple(passed.output), strict=True)) | dict(passed.buffers) | dict(passed.attention)
    return {name: np.asarray(untape(a)) for name, a in found.items() if name in right}
