"""What a pass selects by comparing numbers: branches, maxima, orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["Selections"]


class Selections:
    """Decide comparisons and maxima by the numbers as they are.

    All runs of a case ask for the same ones in the same order. What some runs alone compare, as they compute a
    primitive in another way, is unwrapped first, and so asked of nobody.

    Heirs record how near ties were, or flip near ties: `npattn.oracle.budgets.near_ties`.
    """

    def compare(self, left: np.ndarray, right: np.ndarray, ordering: Callable[..., np.ndarray]) -> np.ndarray:
        """Compare numbers.

        Parameters
        ----------
        left, right : numpy.ndarray
        ordering : callable
            ``numpy.less`` or one of its like.

        Returns
        -------
        numpy.ndarray of bool
        """
        return ordering(left, right)

    def winners(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the index of the first maximum along an axis, which stays with length 1."""
        return values.argmax(axis=axis, keepdims=True)

    def order(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the indices that sort along an axis, equals in order."""
        return values.argsort(axis=axis, kind="stable")
