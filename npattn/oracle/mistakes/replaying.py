"""Passes run again and again, of which only what is different is computed anew."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from npattn.ops.primitive import Primitive, definitions, replacing
from npattn.oracle.mistakes.planting import THROUGH

__all__ = ["Memory"]


class Memory:
    """What primitives gave, forward and backward: a call on the same numbers is answered from here.

    Only what is called first is kept, in the pass without a mistake: of the others few calls come again. Once it is
    over, arrays that nothing has written to are handed out themselves, for reading alone: what comes back as an
    argument is then known by its place in memory.
    """

    def __init__(self) -> None:
        self.calls: dict[Primitive, list[Remembered]] = {}
        self.keeping = True
        self.inside = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Answer the calls of a pass. Definitions compute the others: they write to nothing that is kept."""
        with definitions(), replacing(self.answer):
            yield

    def answer(self, primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Look for a call on the same numbers."""
        if self.inside or primitive in THROUGH:
            return NotImplemented
        arguments, options = tuple(arguments), dict(options)
        for known in self.calls.get(primitive, ()):
            if same(known.given.value, (arguments, options)):
                return handed_out(known.value.value), known.backward
        result = primitive(*arguments, **options)
        if not (self.keeping and isinstance(result, tuple) and callable(result[-1])):
            return result
        found = Remembered(self, Kept((arguments, options)), Kept(result[0]), result[1])
        self.calls.setdefault(primitive, []).append(found)
        return result[0], found.backward

    def settle(self) -> None:
        """Keep no more, and of what was kept no copies but where the pass has written to an array."""
        self.keeping = False
        for call in itertools.chain.from_iterable(self.calls.values()):
            call.settle()


class Kept:
    """Nested tuples, lists and dicts of arrays, as they were when a call was made."""

    def __init__(self, value: Any) -> None:
        self.original, self.value = value, copied(value)

    def settle(self) -> None:
        """Take the arrays themselves where they hold what they held."""
        self.value, self.original = unwritten(self.original, self.value), None


class Remembered:
    """One call, and what came back through it.

    Parameters
    ----------
    memory : Memory
    given : Kept
        Arguments and options.
    value : Kept
    back : callable
        The primitive's own backward.
    """

    def __init__(self, memory: Memory, given: Kept, value: Kept, back: Any) -> None:
        self.memory, self.given, self.value, self.back = memory, given, value, back
        self.returned: list[tuple[Kept, Kept]] = []

    def backward(self, *dy: Any, **options: Any) -> Any:
        """Carry gradients back, or look for the same ones."""
        for given, found in self.returned:
            if same(given.value, (dy, options)):
                return handed_out(found.value)
        before, self.memory.inside = self.memory.inside, True
        try:
            result = self.back(*dy, **options)
        finally:
            self.memory.inside = before
        if self.memory.keeping:
            self.returned.append((Kept((dy, options)), Kept(result)))
        return result

    def settle(self) -> None:
        """Keep no copies that are not needed."""
        for kept in (self.given, self.value, *itertools.chain.from_iterable(self.returned)):
            kept.settle()


def copied(value: Any) -> Any:
    """Copy the arrays in nested tuples, lists and dicts: a system may write to what it was given."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (tuple, list)):
        return type(value)(copied(one) for one in value)
    return {name: copied(one) for name, one in value.items()} if isinstance(value, dict) else value


def unwritten(original: Any, copy: Any) -> Any:
    """Return a view for reading of every array that is still as its copy, and the copy of others."""
    if isinstance(original, np.ndarray):
        if not same(original, copy):
            return copy
        view = original.view()
        view.flags.writeable = False
        return view
    if isinstance(original, (tuple, list)):
        return type(original)(map(unwritten, original, copy))
    return {name: unwritten(a, copy[name]) for name, a in original.items()} if isinstance(original, dict) else copy


def handed_out(value: Any) -> Any:
    """Return arrays that are for reading alone, and copies of those that a pass writes to."""
    if isinstance(value, np.ndarray):
        return value.copy() if value.flags.writeable else value
    if isinstance(value, (tuple, list)):
        return type(value)(map(handed_out, value))
    return {name: handed_out(one) for name, one in value.items()} if isinstance(value, dict) else value


def differ_at_sight(a: np.ndarray, b: np.ndarray) -> bool:
    """Compare the first, the middle and the last number: arrays that are not the same mostly differ there."""
    if a.dtype.kind != "f" or not a.size:
        return False
    seen = ((a.item(i), b.item(i)) for i in (0, a.size // 2, a.size - 1))
    return any(x != y and not (math.isnan(x) and math.isnan(y)) for x, y in seen)


def same(a: Any, b: Any) -> bool:
    """Tell whether nested tuples, lists and dicts hold the same numbers."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        if a.strides == b.strides and a.__array_interface__["data"][0] == b.__array_interface__["data"][0]:
            return True
        return not differ_at_sight(a, b) and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return bool(a == b)
