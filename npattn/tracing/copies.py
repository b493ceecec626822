"""Copies of arrays, of which one serves as long as nothing can have changed the array."""

from __future__ import annotations

import weakref
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from types import BuiltinMethodType
from typing import Any

import numpy as np

from npattn.module import Pass
from npattn.typing import Array

__all__ = ["Copies", "is_harmless"]

FAST = find_spec("npattn.fast") is not None
BLOCKS: Any = import_module("npattn.fast.blocks") if FAST else None
MACHINE: Any = import_module("npattn.fast.machine") if FAST else None
THREADS: Any = import_module("npattn.fast.threads") if FAST else None


class Copies:
    """The last copy of every array.

    A system that is made of others hands a map on as it is, under another name; to copy a map again takes as long as
    many a step. All that happens in between passes through a `Place`, so that it is known if something may have changed
    the array.
    """

    def __init__(self) -> None:
        self.last: dict[int, tuple[weakref.ref[np.ndarray], np.ndarray]] = {}

    def take(self, array: Array) -> Array:
        """Copy an array; hand out its last copy where there has been no change since."""
        if type(array) is not np.ndarray:
            return array.copy() if hasattr(array, "copy") else array
        known, copy = self.last.get(id(array), (lambda: None, array))
        if known() is not array:
            copy = copy_of(array)
            self.last[id(array)] = weakref.ref(array), copy
        return copy

    def forget(self) -> None:
        """Know that arrays may have changed."""
        self.last.clear()


def copy_of(array: np.ndarray) -> np.ndarray:
    """Copy an array; a large one on all cores, as the steps are computed, where there are faster ways at all."""
    if BLOCKS is None or not BLOCKS.is_large(array):
        return array.copy()
    MACHINE.keep_more_freed_memory()
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
