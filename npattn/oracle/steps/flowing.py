"""Arrays that know what they were made from.

An array carries marks: those of all arrays that it was made from, through every operation. The copy that a trace takes
of a step gives the step a mark of its own: what bears it later is made from the step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from npattn.oracle.rounding.arrays import flatten
from npattn.typing import Array

__all__ = ["FlowingArray", "flow", "new_mark"]

MARKS = itertools.count()
NONE: frozenset[int] = frozenset()
OF_SHAPES: set[Any] = {np.empty_like, np.zeros_like, np.ones_like}
"""Functions whose result has nothing of the numbers that they are given."""
WRITING: set[Any] = {np.copyto, np.put, np.put_along_axis, np.place, np.putmask, np.fill_diagonal}
"""Functions that write to their first argument."""


class FlowingArray(np.ndarray):
    """An array that knows what it was made from; made by `flow`, and by NumPy from one that is.

    Attributes
    ----------
    made_from : frozenset of int
        Marks of what was computed with to make this array.
    written : frozenset of int
        Marks of what was written since to its memory, where it owns that.
    mark : int or None
        That of the array that it is a copy of.
    """

    made_from: frozenset[int]
    written: frozenset[int]
    mark: int | None

    def __array_finalize__(self, source: Any) -> None:
        self.made_from = source.marks if isinstance(source, FlowingArray) else NONE
        self.written, self.mark = NONE, None

    @property
    def owner(self) -> FlowingArray:
        """The array whose memory this one is a view of."""
        found = self
        while isinstance(found.base, FlowingArray):
            found = found.base
        return found

    @property
    def marks(self) -> frozenset[int]:
        """All that it is made from."""
        return self.made_from | self.owner.written

    def write(self, marks: frozenset[int]) -> None:
        """Hear that something was written to it: it stands in all views of the same memory."""
        self.owner.written |= marks

    def copy(self, order: Any = "C") -> FlowingArray:
        """Copy it, and mark it; the copy tells by what."""
        taken = super().copy(order)
        taken.mark = new_mark()
        self.made_from |= {taken.mark}
        return taken

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Any, ...] | None = None, **options: Any
    ) -> Any:
        """Compute on plain arrays, and bring all marks together."""
        marks = marks_in((inputs, options))
        options = {name: unmarked(option) for name, option in options.items()}
        if out is not None:
            options["out"] = tuple(map(unmarked, out))
        result = getattr(ufunc, method)(*map(unmarked, inputs), **options)
        written = out if out is not None else inputs[:1] if method == "at" else ()
        write_to(written, marks)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return flow(result, marks)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        arguments: Iterable[Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Bring the marks of all arguments together; leave primitives to their definitions."""
        if not function.__module__.startswith("numpy"):
            return NotImplemented
        arguments = tuple(arguments)
        marks = marks_in((arguments, options))
        result = super().__array_function__(function, types, arguments, options)
        if function in OF_SHAPES and isinstance(result, FlowingArray):
            result.made_from = result.written = NONE
            return result
        write_to((*(arguments[:1] if function in WRITING else ()), options.get("out")), marks)
        return flow(result, marks)

    def __getitem__(self, index: Any) -> Any:
        return flow(super().__getitem__(index), self.marks | marks_in(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self.write(marks_in((index, value)))

    def dot(self, other: Any, out: Any = None) -> Any:
        """Multiply matrices, and bring all marks together."""
        return np.matmul(self, other) if out is None else np.matmul(self, other, out=out)

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
        """Take elements, and bring all marks together."""
        return flow(super().take(indices, axis, out, mode), self.marks | marks_in(indices))


def new_mark() -> int:
    """Return a mark that nothing bears."""
    return next(MARKS)


def write_to(arrays: Iterable[Any], marks: frozenset[int]) -> None:
    """Tell those arrays that can hear it what was written to them."""
    for a in arrays:
        if isinstance(a, FlowingArray):
            a.write(marks)


def unmarked(a: Any) -> Any:
    """Take the marks off an array."""
    return a.view(np.ndarray) if isinstance(a, FlowingArray) else a


def flow(value: Any, marks: frozenset[int]) -> Any:
    """Put marks on an array or a number, or on each in a tuple or list, beside those that it has."""
    if type(value) in (tuple, list):
        return type(value)(flow(one, marks) for one in value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    array: Array = value if isinstance(value, FlowingArray) else np.asarray(value).view(FlowingArray)
    array.made_from |= marks
    return array


def marks_in(value: Any) -> frozenset[int]:
    """Return the marks of all arrays in nested tuples, lists and dicts."""
    return NONE.union(*(one.marks for one in flatten(value) if isinstance(one, FlowingArray)))
