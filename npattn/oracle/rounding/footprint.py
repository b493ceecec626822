"""How much memory a pass on rounding arrays takes."""

from __future__ import annotations

import functools
import weakref

import numpy as np

__all__ = ["Footprint"]


class Footprint:
    """Count the bytes of all arrays that a pass holds at once.

    Attributes
    ----------
    peak : int
        The most so far.

    Examples
    --------
    >>> footprint = Footprint()
    >>> for _ in range(3):
    ...     a = np.zeros(4)
    ...     footprint.add(a[:2])
    >>> footprint.peak
    64
    """

    def __init__(self) -> None:
        self.held: dict[int, weakref.ref[np.ndarray]] = {}
        self.bytes = self.peak = 0

    def add(self, array: np.ndarray) -> None:
        """Count the memory that an array, or what it is a view of, holds until it is freed."""
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        key, size = id(owner), owner.nbytes
        if key not in self.held:
            self.held[key] = weakref.ref(owner, functools.partial(self.drop, key, size))
            self.bytes += size
            self.peak = max(self.peak, self.bytes)

    def drop(self, key: int, size: int, _: object) -> None:
        """Count an array less, which is freed."""
        del self.held[key]
        self.bytes -= size
