"""A result of another shape than expected that is right, once that is mended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from npattn.oracle.diagnosis.axes import plural
from npattn.oracle.diagnosis.evidence import Evidence
from npattn.oracle.diagnosis.reductions import axis_sets
from npattn.oracle.formats import Format

__all__ = ["read_shape"]


def read_shape(
    got: np.ndarray,
    expected: np.ndarray,
    budget: np.ndarray,
    limits: tuple[float, float],
    format: Format,
    *,
    names: Sequence[str],
) -> str:
    """Say what makes a result of another shape right, whose axes have these names; nothing where nothing does.

    Examples
    --------
    >>> from npattn.oracle import FORMATS
    >>> y = np.random.RandomState(0).standard_normal((2, 3, 4, 5))
    >>> unit = np.full(y.shape, 1e-6)
    >>> read_shape(y.transpose(0, 2, 3, 1), y, unit, (8.0, 2.0), FORMATS["float32"], names=())
    'right but NHWC: .transpose(0, 3, 1, 2) makes it NCHW'
    """

    def right(values: np.ndarray, exact: np.ndarray, unit: np.ndarray) -> bool:
        if values.shape != exact.shape:
            return False
        evidence = Evidence(values, exact, unit, limits, format)
        # Against nothing: what is right explains all of its own numbers.
        blank = Evidence(values, np.zeros_like(exact), unit, limits, format)
        return blank.supports(lambda i: (evidence.expected[i], evidence.budget[i]))

    if got.ndim == expected.ndim and sorted(got.shape) == sorted(expected.shape) and got.ndim <= 5:
        for order in itertools.permutations(range(got.ndim)):
            if right(got.transpose(order), expected, budget):
                if order == (0, 3, 1, 2):
                    return "right but NHWC: .transpose(0, 3, 1, 2) makes it NCHW"
                return f"right but for the order of its axes: .transpose{order} mends it"
    same_size = got.size == expected.size
    ways = parted(got, expected.shape) if same_size else grouped(got, expected.shape, names)
    mended = next((text for text, values in ways if right(values, expected, budget)), "")
    if mended or same_size:
        return mended
    for axes in axis_sets(range(min(got.ndim, 5))):
        for reduced, what in ((got.sum(axis=axes), "sum"), (got.mean(axis=axes), "mean")):
            if reduced.size == expected.size and right(reduced.reshape(expected.shape), expected, budget):
                return f"right once its {what} over axis {', '.join(map(str, axes))} is taken, which is missing"
    for axes in axis_sets(range(min(expected.ndim, 5))):
        units = budget.sum(axis=axes)
        count = np.prod([expected.shape[axis] for axis in axes])
        for what, factor in (("sum", 1.0), ("mean", 1 / count)):
            exact = factor * expected.sum(axis=axes)
            if exact.size == got.size and right(got.reshape(exact.shape), exact, factor * units):
                return f"the {what} of expected over axis {', '.join(map(str, axes))}: reduced too far"
    return ""


def parted(got: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ways to bring so many numbers into another shape, and what is said of each.

    Axes may have been brought beside each other before they were merged, as heads and their channels are.
    """
    yield "right but for its shape", got.reshape(shape)
    for order in itertools.permutations(range(len(shape))) if got.ndim < len(shape) <= 5 else ():
        apart, back = tuple(shape[axis] for axis in order), tuple(map(order.index, range(len(shape))))
        text = f"right once merged axes are parted: .reshape{apart}.transpose{back} mends it"
        yield text, got.reshape(apart).transpose(back)


def grouped(got: np.ndarray, shape: tuple[int, ...], names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ways to bring each group along an axis, such as heads that share keys, to one, and what is said of each."""
    longer = [axis for axis, (n, m) in enumerate(zip(got.shape, shape, strict=False)) if n != m]
    if got.ndim != len(shape) or len(longer) != 1 or shape[longer[0]] == 0 or got.shape[longer[0]] % shape[longer[0]]:
        return
    [axis] = longer
    count = got.shape[axis] // shape[axis]
    apart = *shape[: axis + 1], count, *shape[axis + 1 :]
    for way, words in (("sum", "added up"), ("mean", "averaged")):
        text = f"right once the {plural(names[axis])} of each group of {count} are {words}: "
        values = getattr(got.reshape(apart), way)(axis=axis + 1)
        yield f"{text}.reshape{apart}.{way}({axis + 1}) mends it", values
