"""How much memory a pass on rounding arrays takes."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

__all__ = ["Footprint"]


class Held(weakref.ref[np.ndarray]):
    """Memory that is held: its owner, which may be freed meanwhile, and what it was."""

    key: int
    size: int


class Footprint:
    """Count the bytes of all arrays that a pass holds at once.

    Attributes
    ----------
    peak : int
        The most so far.
    made, total : int
        How many arrays have been added, and the bytes of all, those that were freed too.

    Examples
    --------
    >>> footprint = Footprint()
    >>> for _ in range(3):
    ...     a = np.zeros(4)
    ...     footprint.add(a[:2])
    >>> footprint.peak
    32
    """

    def __init__(self) -> None:
        self.held: dict[int, Held] = {}
        # Filled while arrays are freed, by what an interrupt can't meet: there it would be lost.
        self.freed: deque[Held] = deque()
        self.counted = self.peak = self.made = self.total = 0

    @property
    def mean(self) -> float:
        """Bytes of an array that was added, on average."""
        return self.total / max(1, self.made)

    @property
    def bytes(self) -> int:
        """Bytes of what is held now."""
        while self.freed:
            owner = self.freed.popleft()
            del self.held[owner.key]
            self.counted -= owner.size
        return self.counted

    def add(self, array: np.ndarray) -> None:
        """Count the memory that an array, or what it is a view of, holds until it is freed."""
        self.made += 1
        self.total += array.nbytes
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        key, before = id(owner), self.bytes
        if key not in self.held:
            self.held[key] = held = Held(owner, self.freed.append)
            held.key, held.size = key, owner.nbytes
            self.counted = before + owner.nbytes
            self.peak = max(self.peak, self.counted)
