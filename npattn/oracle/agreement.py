"""Whether two computations agree to rounding: silent where they do, exact about the difference where they don't."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.foreign_arrays import to_numpy

__all__ = ["same"]


def same(ours: Any, theirs: Any, *, within: float = 1e-12, scale: float | None = None) -> None:
    """Raise unless two computations of the same numbers agree; print and return nothing.

    Parameters
    ----------
    ours, theirs : array, number, or list or tuple of arrays
        Of one shape, or as many on either side; arrays of any library that speaks DLPack. `theirs` may be one number
        for all of `ours`.
    within : float, default 1e-12
        The largest difference that passes for rounding, as a share of `scale`.
    scale : float, optional
        What a difference is measured against; by default the largest finite magnitude in `theirs`, array by array. Has
        to be given where all of `theirs` is 0 and `ours` is so but for rounding.

    Raises
    ------
    AssertionError
        If they differ: by how much, where, and what stands there. NaN agrees with NaN, an infinity with itself.
    ValueError
        If shapes or numbers of arrays differ, or `within` or `scale` is no number of the kind.

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
    for name, value in (("within", within), ("scale", scale)):
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"same: {name} is {value!r}; expected a finite number, 0 or above")
    if holds_arrays(ours) or holds_arrays(theirs):
        ours, theirs = list(ours), list(theirs)
        if len(ours) != len(theirs):
            raise ValueError(f"same: {len(ours)} arrays beside {len(theirs)}; expected as many on either side")
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            compare_pair(one, other, within, scale, f"arrays {i} ")
    else:
        compare_pair(ours, theirs, within, scale, "")


def holds_arrays(value: Any) -> bool:
    """Tell a list or tuple of arrays from one of numbers, which is an array itself."""
    return isinstance(value, list | tuple) and any(hasattr(item, "shape") and item.shape != () for item in value)


def as_numbers(value: Any) -> np.ndarray:
    """Make an array of what may be a number, a list of them, or an array of any library."""
    known = isinstance(value, np.ndarray | np.generic) or not hasattr(value, "shape")
    array = np.asarray(value) if known else to_numpy(value, "same")
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def compare_pair(ours: Any, theirs: Any, within: float, scale: float | None, which: str) -> None:
    """Compare two arrays."""
    ours, theirs = as_numbers(ours), as_numbers(theirs)
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
