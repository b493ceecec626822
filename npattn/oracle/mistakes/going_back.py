"""One forward pass gone back through again and again: a mistake made on the way back leaves forward as it is."""

from __future__ import annotations

import collections
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from npattn.ops.primitive import Primitive
from npattn.oracle.budgets import Given, named_results
from npattn.oracle.mistakes.forwarding import Instead
from npattn.oracle.mistakes.mistake import Mistake
from npattn.oracle.mistakes.planting import THROUGH, Site, answering, completed, stands_in
from npattn.oracle.mistakes.replaying import Memory, same
from npattn.oracle.mistakes.returning import watching

__all__ = ["GoingBack", "WayBack", "can_go_back", "no_look"]

Look = Callable[[int, tuple[Any, ...]], None]
"""Is called with the number of a call, and the gradients that came back through it."""
NAMES_THROUGH = tuple(one.__name__ for one in THROUGH)


def can_go_back(mistake: Mistake, *, behind: bool) -> bool:
    """Tell whether a mistake, which may stand in calls that are made on the way back alone, leaves forward as it is."""
    return bool(mistake.primitive) and mistake.primitive not in NAMES_THROUGH and (behind or mistake.way == "backward")


class WayBack:
    """A forward pass without a mistake; one at a time may stand in its calls when it is gone back through.

    Parameters
    ----------
    module : Module
    given : Given
    memory : Memory
    """

    def __init__(self, module: Any, given: Given, memory: Memory) -> None:
        self.given = given
        self.calls: collections.Counter[str] = collections.Counter()
        self.place: tuple[Mistake, Site] | None = None
        self.look: Look = no_look
        with np.errstate(all="ignore"), memory.at_work(), answering(self.answer), watching(self.returned):
            self.context = contextvars.copy_context()  # what holds here holds on every way back
            passed = module.forward(given.params, *given.inputs.values())
        self.forward_calls = collections.Counter(self.calls)
        self.passed: Any = Instead(module, lambda *_: passed)

    def returned(self, number: int, gradients: tuple[Any, ...]) -> None:
        """Show what came back through a call."""
        self.look(number, gradients)

    def mistake_in(
        self, number: int, primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """Return value and backward with the mistake that stands in a call; None if none does."""
        if self.place is None or self.place[0].primitive != primitive.__name__:
            return None
        mistake, site = self.place
        if not stands_in(site, number):
            return None
        arguments, options = completed(primitive, arguments, options)
        if site != number and not mistake.when(*arguments, **options):
            return None
        return mistake.apply(primitive, *arguments, **options)

    def answer(self, primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Count a call, and let a mistake stand in it now, or when gradients come back through it."""
        if primitive in THROUGH:
            return NotImplemented  # so that whoever watches sees what it calls
        number = self.calls[primitive.__name__]
        self.calls[primitive.__name__] += 1
        wrong = self.mistake_in(number, primitive, arguments, options)
        if wrong is not None:
            return wrong
        result = primitive(*arguments, **options)
        if not (isinstance(result, tuple) and callable(result[-1])):
            return result

        def backward(*dy: Any, **more: Any) -> Any:
            wrong = self.mistake_in(number, primitive, arguments, options)
            return (result if wrong is None else wrong)[-1](*dy, **more)

        return (*result[:-1], backward)

    def results(self, place: tuple[Mistake, Site] | None, look: Look) -> dict[str, Any]:
        """Go back with a mistake; name the results of the pass."""
        self.place, self.look, self.calls = place, look, collections.Counter(self.forward_calls)
        try:
            return self.context.run(named_results, self.passed, self.given)
        finally:
            self.place, self.look = None, no_look


class GoingBack:
    """As many forward passes of one module as threads go back through at once.

    Parameters
    ----------
    module : Module
    given : Given
    memory : Memory
    """

    def __init__(self, module: Any, given: Given, memory: Memory) -> None:
        self.module, self.given, self.memory = module, given, memory
        self.waiting: collections.deque[WayBack] = collections.deque()
        first = WayBack(module, given, memory)
        once, again = (first.results(None, no_look) for _ in range(2))
        self.works = same(once, again)
        """Whether a pass may be gone back through twice: one that writes to what it has saved may not."""
        self.waiting.append(first)

    def results(self, place: tuple[Mistake, Site], look: Look) -> dict[str, Any]:
        """Name the results of a pass with a mistake on the way back."""
        try:
            one = self.waiting.pop()
        except IndexError:
            one = WayBack(self.module, self.given, self.memory)
        try:
            return one.results(place, look)
        finally:
            self.waiting.append(one)


def no_look(*_: Any) -> None:
    """Look at nothing."""
