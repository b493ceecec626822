"""Values of steps: copies of arrays, or the arrays themselves where nothing can write to them any more."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import fields, replace
from importlib import import_module
from importlib.util import find_spec
from types import BuiltinMethodType
from typing import Any

import numpy as np

from npattn.attention import CATALOGUE
from npattn.module import Module, Pass, as_tuple
from npattn.ops.context import CONTEXT
from npattn.typing import Array

__all__ = ["Copies", "is_harmless", "writes_nowhere"]

FAST = find_spec("npattn.fast") is not None
BLOCKS: Any = import_module("npattn.fast.blocks") if FAST else None
THREADS: Any = import_module("npattn.fast.threads") if FAST else None


class Copies:
    """The values of steps, as they are at their moment.

    A system that is made of others hands a map on as it is, under another name; to copy a map again takes as long as
    many a step. All that happens in between passes through a `Place`, so that it is known if something may have changed
    the array.

    Where a system is known to write to no array, an array that it makes is a step's value itself, from then on
    read-only: what would add a gradient to it in place makes a new array (`ops.accumulate`).

    Parameters
    ----------
    shares : bool
        Whether arrays may be values themselves.
    given : iterable of array
        Those of the caller, who may write to them later.
    """

    def __init__(self, shares: bool = False, given: Iterable[Array] = ()) -> None:
        self.last: dict[int, tuple[weakref.ref[np.ndarray], np.ndarray]] = {}
        self.shares, self.given = shares, tuple(given)

    def take(self, array: Array) -> Array:
        """Return an array's value: the last copy where there has been no change since."""
        if type(array) is not np.ndarray:
            return array.copy() if hasattr(array, "copy") else array
        if self.shares and array.flags.owndata and not any(array is one for one in self.given):
            array.flags.writeable = False
            return array
        known, copy = self.last.get(id(array), (lambda: None, array))
        if known() is not array:
            copy = copy_of(array)
            self.last[id(array)] = weakref.ref(array), copy
        return copy

    def forget(self) -> None:
        """Know that arrays may have changed."""
        self.last.clear()

    def hand_over(self, results: Any) -> Any:
        """Return results of a pass as the caller's own, to write to: arrays that may be values are copied."""
        if isinstance(results, Pass):
            output, maps, buffers = map(self.hand_over, (results.output, results.attention, results.buffers))
            return replace(results, output=output, attention=maps, buffers=buffers)
        if type(results) is dict:
            return {name: self.hand_over(one) for name, one in results.items()}
        if type(results) is tuple:
            return tuple(map(self.hand_over, results))
        if type(results) is not np.ndarray or not self.shares:
            return results
        owner = results if results.base is None else results.base
        return copy_of(results) if isinstance(owner, np.ndarray) and not owner.flags.writeable else results


def writes_nowhere(module: Module) -> bool:
    """Whether a system, and each within it, is one of the catalogue, and nobody replaces primitives."""
    parts = [getattr(module, field.name) for field in fields(module)]
    known = CATALOGUE.get(getattr(module, "key", "")) is type(module) and not CONTEXT.get().handlers
    return known and all(
        writes_nowhere(part) for value in parts for part in as_tuple(value) if isinstance(part, Module)
    )


def copy_of(array: np.ndarray) -> np.ndarray:
    """Copy an array; a large one on all cores, as the steps are computed, where there are faster ways at all."""
    if BLOCKS is None or not BLOCKS.is_large(array):
        return array.copy()
    copy = np.empty_like(array)

    def compute(block):
        copy[block] = array[block]

    THREADS.parallel_for(compute, BLOCKS.blocks(copy, axis=min(1, copy.ndim - 1)))
    return copy


def is_harmless(called: Any) -> bool:
    """Whether a call writes to no array: it puts things together, or asks a dict."""
    return (
        called is Pass or called is replace or (type(called) is BuiltinMethodType and isinstance(called.__self__, dict))
    )
