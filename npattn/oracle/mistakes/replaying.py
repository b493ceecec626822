"""Passes run again and again, of which only what is different is computed anew."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, TypeVar

import numpy as np

from npattn.ops.context import definitions, replacing
from npattn.ops.primitive import Primitive
from npattn.oracle.mistakes.planting import THROUGH

__all__ = ["Memory"]

Result = TypeVar("Result")


class State(threading.local):
    """What holds for the passes of one thread: whether they are within a primitive's own backward."""

    inside = False


class Memory:
    """What primitives gave, forward and backward: a call on the same numbers is answered from here.

    Only what is called first is kept, in the pass without a mistake: of the others few calls come again. Once it is
    over, arrays that nothing has written to are handed out themselves, for reading alone: what comes back as an
    argument is then known by its place in memory.

    Parameters
    ----------
    fast : bool, default False
        Whether other calls are computed by faster ways where there are some, and not by definitions.
    """

    def __init__(self, *, fast: bool = False) -> None:
        self.fast = fast
        self.calls: dict[Primitive, Known] = {}
        self.keeping = True
        self.state = State()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Answer the calls of a pass. Definitions compute the others: they write to nothing that is kept."""
        with nullcontext() if self.fast else definitions(), replacing(self.answer):
            yield

    def answer(self, primitive: Primitive, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """Look for a call on the same numbers."""
        if self.state.inside or primitive in THROUGH:
            return NotImplemented
        given = tuple(arguments), dict(options)
        calls = self.calls.setdefault(primitive, Known())
        known = calls.find(given)
        if known is not None:
            return handed_out(known.value.value), known.backward
        result = primitive(*arguments, **options)
        if not (self.keeping and isinstance(result, tuple) and callable(result[-1])):
            return result
        found = Remembered(self, Kept(result[0]), result[1])
        calls.keep(Kept(given), found)
        return result[0], found.backward

    def settle(self) -> None:
        """Keep no more, and of what was kept no copies but where the pass has written to an array."""
        self.keeping = False
        for calls in self.calls.values():
            for call in calls.settle():
                call.settle()


class Kept:
    """Nested tuples, lists and dicts of arrays, as they were when a call was made."""

    def __init__(self, value: Any) -> None:
        self.original, self.value = value, copied(value)

    def settle(self) -> None:
        """Take the arrays themselves where they hold what they held."""
        self.value, self.original = unwritten(self.original, self.value), None


class Known(Generic[Result]):
    """Results by what they were made of: nested tuples, lists and dicts of arrays and others."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Kept, Result]] = []
        self.by_memory: dict[Any, Result] = {}
        self.at_sight: dict[Any, list[tuple[Kept, Result]]] = {}

    def keep(self, given: Kept, result: Result) -> None:
        """Keep one more."""
        self.pairs.append((given, result))
        self.at_sight.setdefault(sight_of(given.value), []).append((given, result))

    def find(self, given: Any) -> Result | None:
        """Return what was made of the same numbers."""
        if self.by_memory:
            found = self.by_memory.get(in_memory(given))
            if found is not None:
                return found
        for known, result in self.at_sight.get(sight_of(given), ()) if self.pairs else ():
            if same(known.value, given):
                return result
        return None

    def settle(self) -> Iterator[Result]:
        """Know what was kept by its place in memory too, and go through it."""
        for given, result in self.pairs:
            given.settle()
            self.by_memory.setdefault(in_memory(given.value), result)
            yield result


class Remembered:
    """One call, and what came back through it.

    Parameters
    ----------
    memory : Memory
    value : Kept
    back : callable
        The primitive's own backward.
    """

    def __init__(self, memory: Memory, value: Kept, back: Any) -> None:
        self.memory, self.value, self.back = memory, value, back
        self.returned: Known[Kept] = Known()

    def backward(self, *dy: Any, **options: Any) -> Any:
        """Carry gradients back, or look for the same ones."""
        found = self.returned.find((dy, options))
        if found is not None:
            return handed_out(found.value)
        state = self.memory.state
        before, state.inside = state.inside, True
        try:
            result = self.back(*dy, **options)
        finally:
            state.inside = before
        if self.memory.keeping:
            self.returned.keep(Kept((dy, options)), Kept(result))
        return result

    def settle(self) -> None:
        """Keep no copies that are not needed."""
        self.value.settle()
        for result in self.returned.settle():
            result.settle()


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


def in_memory(value: Any) -> Any:
    """Describe nested tuples, lists and dicts by where their arrays stand; two that are the same hold the same."""
    if isinstance(value, np.ndarray):
        return value.__array_interface__["data"][0], value.shape, value.strides, value.dtype.char
    if isinstance(value, (tuple, list)):
        return tuple([in_memory(one) for one in value])
    if isinstance(value, dict):
        return tuple([(name, in_memory(one)) for name, one in value.items()])
    return value if type(value) in PLAIN else id(value)


PLAIN = bool, int, float, str, type(None)
"""Types of options that are told apart by their values."""


def sight_of(value: Any) -> Any:
    """Return the first, the middle and the last number of the first array: those of others are mostly different."""
    while isinstance(value, (tuple, list)) and len(value):
        value = value[0]
    if not (isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size):
        return None
    numbers = (value.item(i) for i in (0, value.size // 2, value.size - 1))
    return value.shape, *(None if math.isnan(number) else number for number in numbers)


def same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether two arrays hold the same numbers, NaN being the same as itself."""
    if a.ndim > 1 and not np.array_equal(a[-1:, -1:], b[-1:, -1:], equal_nan=a.dtype.kind == "f"):
        return False  # where most differ: the others are not looked at
    unlike = a != b
    return not unlike.any() or bool(np.isnan(a[unlike]).all() and np.isnan(b[unlike]).all())


def same(a: Any, b: Any) -> bool:
    """Tell whether nested tuples, lists and dicts hold the same numbers."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and same_numbers(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return bool(a == b)
