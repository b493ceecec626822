"""Copies of arrays, of which one serves as long as nothing can have changed the array."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import BuiltinMethodType
from typing import Any

import numpy as np

from npattn.module import Pass
from npattn.typing import Array

__all__ = ["Copies", "is_harmless"]


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
            copy = array.copy()
            self.last[id(array)] = weakref.ref(array), copy
        return copy

    def forget(self) -> None:
        """Know that arrays may have changed."""
        self.last.clear()


def is_harmless(called: Any) -> bool:
    """Whether a call writes to no array: it puts things together, or asks a dict."""
    return called in (Pass, replace) or (type(called) is BuiltinMethodType and isinstance(called.__self__, dict))
