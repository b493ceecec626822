"""Gradients that primitives return: those that are results of the pass are known as soon as they come back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.oracle.mistakes.planting import answering

__all__ = ["Returned", "results_among", "watching"]

Returned = dict[int, list[tuple[int, str]]]
"""By the number of a call: which of the gradients that come back through it are results, and of what name."""


@contextmanager
def watching(look: Callable[[int, tuple[Any, ...]], None]) -> Iterator[None]:
    """Call ``look(number, gradients)`` when gradients come back through a system's own call of that number."""
    numbers = itertools.count()

    def watch(primitive, arguments, options):
        number, result = next(numbers), primitive(*arguments, **options)
        if not isinstance(result, tuple) or not callable(result[-1]):
            return result

        def backward(*dy, **more):
            found = result[-1](*dy, **more)
            look(number, as_tuple(found))
            return found

        return (*result[:-1], backward)

    with answering(watch):
        yield


def results_among(
    returned: Iterable[tuple[int, tuple[Any, ...]]], results: Mapping[str, np.ndarray], names: Iterable[str]
) -> Returned:
    """Find those of some results that are a gradient as one call alone has returned it.

    Parameters
    ----------
    returned : iterable of pair
        Calls' numbers, and what came back.
    results : mapping of numpy.ndarray
    names : iterable of str

    Examples
    --------
    >>> dx, dw = np.ones(3), np.ones((2, 2))
    >>> results_among([(0, (dx, dw))], {"x.grad": dx + 1, "w.grad": dw}, ["x.grad", "w.grad"])
    {0: [(1, 'w.grad')]}
    """
    found: Returned = {}
    arrays = [(number, i, g) for number, some in returned for i, g in enumerate(some) if isinstance(g, np.ndarray)]
    for name in names:
        places = [(number, i) for number, i, g in arrays if name in results and lie_together(g, results[name])]
        if len(places) == 1:
            found.setdefault(places[0][0], []).append((places[0][1], name))
    return found


def lie_together(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two arrays are the same memory in the same order, whatever their shapes."""
    first, second = (a.__array_interface__["data"][0] for a in (one, other))
    in_order = one.flags.c_contiguous and other.flags.c_contiguous
    return one.size == other.size and one.dtype == other.dtype and in_order and first == second
