"""Faults that no derivative shows: passes that write to what they are given, remember, or are not linear."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from npattn.module import as_tuple
from npattn.oracle.gradcheck.entries import MAX_DEVIATIONS, NEGLIGIBLE_SHARE, NUM_NEIGHBOURS
from npattn.oracle.gradcheck.point import Point, gradient_shapes

__all__ = ["find_faults"]

REPEATED_ERROR = 1e-6
"""Relative difference up to which two passes give the same: far above rounding, far below what state changes."""


def find_faults(point: Point, tolerance: float, seed: int) -> tuple[str, ...]:
    """Name what a forward or backward pass does that it must not.

    Parameters
    ----------
    point : Point
    tolerance : float
    seed : int

    Returns
    -------
    tuple of str
    """
    random = np.random.RandomState([seed, 2])
    dy = random.standard_normal(point.outputs)
    names = gradient_shapes(point)
    values = point.params | point.inputs
    faults: list[str] = []

    def report(fault: str, affected: Collection[str]) -> None:
        if affected:
            faults.append(f"{fault} {', '.join(affected)}".rstrip())

    silent = [name for name in point.inputs if name not in names and name not in point.module.without_gradient]
    if silent:
        declared = (*(name for name in point.module.without_gradient if name in point.inputs), *silent)
        unknown = [name for name in point.module.without_gradient if name not in point.inputs]
        instead = f" in place of {', '.join(unknown)}" if unknown else ""
        faults.append(
            f"backward gives None for {', '.join(silent)}; is it meant? then declare without_gradient = {declared}"
            + instead
        )
    first = Point(point.module, point.params, point.inputs)
    outputs = [y.copy() for y in as_tuple(first.run.output)]
    report("forward writes to", names_changed(values, first.given))
    given = {name: value.copy() for name, value in first.given.items()}
    upstream = first.upstream(dy.copy())
    first.run.backward(upstream)
    report("backward writes to", names_changed(given, first.given))
    kept = np.concatenate([d.ravel() for d in as_tuple(upstream)])
    report("backward writes to", names_changed({"dy": dy}, {"dy": kept}))
    gradients = first.gradients(dy)
    report("backward gives something else the second time:", differing(gradients, first.gradients(dy)))
    report("backward of dy = 0 is not 0:", [name for name, zero in first.gradients(0 * dy).items() if zero.any()])

    again = Point(point.module, point.params, point.inputs)
    different = differing(dict(enumerate(outputs)), dict(enumerate(as_tuple(again.run.output))))
    report("forward gives something else the second time", [""] if different else [])
    point.elsewhere(names)
    after = differing(gradients, first.gradients(dy))
    report("backward gives something else after a forward pass on other values:", after)
    report("backward is not linear in dy:", not_linear(point, tolerance, random))
    return tuple(faults)


def names_changed(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[str]:
    """Name the arrays that are not what they were."""
    return [name for name, value in before.items() if not np.array_equal(value, after[name], equal_nan=True)]


def differing(first: Mapping[Any, np.ndarray], second: Mapping[Any, np.ndarray]) -> list[Any]:
    """Name the arrays that differ by more than two runs of the same operations may; infinities have no distance."""
    sizes = {name: np.max(np.abs(finite(value)), initial=0.0) for name, value in first.items()}
    floor = NEGLIGIBLE_SHARE * max(sizes.values(), default=0.0)
    return [
        name
        for name, value in first.items()
        if (np.abs(finite(value) - finite(second[name])) > REPEATED_ERROR * max(sizes[name], floor)).any()
        or (np.isinf(value) != np.isinf(second[name])).any()
    ]


def finite(values: np.ndarray) -> np.ndarray:
    """Put 0 in the place of infinities."""
    return np.where(np.isinf(values), 0, values)


def not_linear(point: Point, tolerance: float, random: np.random.RandomState) -> list[str]:
    """Name the gradients of a sum that are not the sum of the gradients, to rounding."""
    first, second = random.standard_normal((2, point.outputs))
    a, b = random.uniform(1, 2), random.uniform(-2, -1)

    def gaps(at: Point) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        whole, one, other = (at.gradients(dy) for dy in (a * first + b * second, first, second))
        sizes = {name: np.max(np.abs(a * one[name]) + np.abs(b * other[name]), initial=0.0) for name in whole}
        return {name: whole[name] - a * one[name] - b * other[name] for name in whole}, sizes

    found, sizes = gaps(point)
    largest = max(sizes.values())
    sizes = {name: largest if size <= NEGLIGIBLE_SHARE * largest else size for name, size in sizes.items()}
    doubts = {name: np.abs(gap) > tolerance * sizes[name] for name, gap in found.items()}
    if not any(mask.any() for mask in doubts.values()):
        return []
    several = [gaps(point.nearby(found, random))[0] for _ in range(NUM_NEIGHBOURS)]
    deviations = {name: np.std([each[name] for each in several], axis=0, ddof=1) for name in found}
    return [
        name
        for name, mask in doubts.items()
        if (mask & (np.abs(found[name]) > MAX_DEVIATIONS * deviations[name])).any()
    ]
