"""Whether two computations agree to rounding: silent where they do, exact about the difference where they don't."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.array_checks import masked
from npattn.checks import require_numbers
from npattn.foreign_arrays import to_numpy
from npattn.wording import brief, describe_type

__all__ = ["same"]


def same(ours: Any, theirs: Any, *, within: float = 1e-12, scale: float | None = None) -> None:
    """Raise unless two computations of the same numbers agree; print and return nothing.

    Parameters
    ----------
    ours, theirs : array, number, or list or tuple of arrays
        Of one shape, or as many on either side; arrays of any library that speaks DLPack, integers and booleans too.
        `theirs` may be one number for all of `ours`.
    within : float, default 1e-12
        The largest difference that passes for rounding, as a share of `scale`.
    scale : float, optional
        What a difference is measured against; by default the largest finite magnitude in `theirs`, array by array. Has
        to be given where all of `theirs` is 0 and `ours` is so but for rounding.

    Raises
    ------
    AssertionError
        If they differ: by how much, where, and what stands there. NaN agrees with NaN, an infinity with itself.
    TypeError
        If one holds anything but numbers, or masked ones, or `within` or `scale` is no number.
    ValueError
        If shapes or numbers of arrays differ, or `within` or `scale` is below 0 or not finite.

    Examples
    --------
    >>> same(np.sin(np.arange(3)) ** 2, 1 - np.cos(np.arange(3)) ** 2)
    >>> same([1.0, 2.0], [1.0, 2.5])
    Traceback (most recent call last):
    AssertionError: differ by 0.5 at [1]: 2.0, expected 2.5; 0.2 of the scale 2.5 where 1e-12 is allowed
    >>> same([0.5, 2.0], [0, 0])
    Traceback (most recent call last):
    AssertionError: differ by 2 at [1]: 2.0, expected 0; all that is expected is 0: give scale= if rounding is allowed
    """
    within = require_allowance("within", within)
    scale = None if scale is None else require_allowance("scale", scale)
    if not (holds_arrays(ours) or holds_arrays(theirs)):
        compare_pair(as_numbers(ours, "ours"), as_numbers(theirs, "theirs"), within, scale, "")
        return
    ours = list_arrays(ours, "ours", 1)
    theirs = list_arrays(theirs, "theirs", len(ours))
    if len(ours) != len(theirs):
        raise ValueError(f"same: {len(ours)} arrays beside {len(theirs)}; expected as many on either side")
    for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        pair = as_numbers(one, f"ours[{i}]"), as_numbers(other, f"theirs[{i}]")
        compare_pair(*pair, within, scale, f"arrays {i} ")


def require_allowance(name: str, value: Any) -> float:
    """Refuse what is no finite number of at least 0; return it as Python's."""
    require_numbers("same", **{name: value})
    if value < 0:
        raise ValueError(f"same: {name}={brief(value)}; expected a number of at least 0")
    return float(value)


def holds_arrays(value: Any) -> bool:
    """Tell a list or tuple of arrays from one of numbers, which is an array itself."""
    return isinstance(value, list | tuple) and any(hasattr(item, "shape") and item.shape != () for item in value)


def holds_masked(value: Any) -> bool:
    """Tell whether one of the numbers in a list, or in lists in it, may be masked."""
    return isinstance(value, np.ma.MaskedArray) or (isinstance(value, list | tuple) and any(map(holds_masked, value)))


def list_arrays(value: Any, name: str, count: int) -> list[Any]:
    """List arrays: the items of a list, the rows of an array, and a number so many times."""
    if isinstance(value, list | tuple):
        return list(value)
    array = as_numbers(value, name)
    return list(array) if array.ndim else [array] * count


def as_numbers(value: Any, name: str) -> np.ndarray:
    """Make an array of what may be a number, a list of them, or an array of any library."""
    if hasattr(value, "shape") and not isinstance(value, type):
        return to_numpy(value, f"same: {name}", counts=True)
    if holds_masked(value):
        raise masked(f"same: {name} holds what")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"same: {name}={brief(value)} is no array, but rows of several lengths ({error})") from None
    if array.dtype.kind == "O":
        raise TypeError(
            f"same: {name} is {describe_type(value)}, {brief(value)}; expected floating-point numbers: one, or an "
            "array, tensor or list of some"
        )
    return to_numpy(array, f"same: {name}", counts=True)


def compare_pair(ours: np.ndarray, theirs: np.ndarray, within: float, scale: float | None, which: str) -> None:
    """Compare two arrays."""
    if theirs.ndim == 0:
        theirs = np.broadcast_to(theirs, ours.shape)
    if ours.shape != theirs.shape:
        raise ValueError(f"same: {which}of shapes {ours.shape} and {theirs.shape}; expected one shape")
    with np.errstate(invalid="ignore"):
        alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.where(alike, 0.0, np.abs(ours - theirs))
    difference = np.where(np.isnan(difference), np.inf, difference)
    unit = np.max(np.abs(theirs), where=np.isfinite(theirs), initial=0.0) if scale is None else scale
    if not np.any(difference > within * unit):
        return
    at = tuple(int(i) for i in np.unravel_index(np.argmax(difference), difference.shape))
    worst = difference[at]
    if unit == 0:
        measure = "all that is expected is 0: give scale= if rounding is allowed"
    else:
        measure = f"{worst / unit:.2g} of the scale {unit:.4g} where {within:g} is allowed"
    where = f" at {list(at)}" if at else ""
    raise AssertionError(f"{which}differ by {worst:.3g}{where}: {ours[at]}, expected {theirs[at]}; {measure}")
