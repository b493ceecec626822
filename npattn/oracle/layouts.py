"""Layouts: the same values in memory as callers hand them over, which a kernel that ignores strides reads wrongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npattn.wording import describe_type

__all__ = ["LAYOUTS", "constant_axes", "lay_all", "lay_out"]

LAYOUTS = {
    "contiguous": "the last axis runs fastest, and nothing lies between the elements",
    "broadcast": "stride 0 along every axis along which the values don't change",
    "transposed": "the first axis runs fastest",
    "sliced": "every second element of the last axis, all but the first of the others, of a larger array of NaN",
    "channels-last": "the second axis runs fastest, then the last",
}
"""How arrays lie in memory, by layout."""


def lay_out(values: np.ndarray, layout: str, convert: Callable[[np.ndarray], Any]) -> Any:
    """Make an array of any library that has some values, laid out in memory in one of several ways.

    Parameters
    ----------
    values : numpy.ndarray
        However it lies in memory itself.
    layout : {"contiguous", "broadcast", "transposed", "sliced", "channels-last"}
        `LAYOUTS` says what they are. An array of one axis has no channels, one of no axis has one layout.
    convert : callable
        Makes the library's array of a NumPy array that is its own and contiguous; the layout is then one of views.

    Returns
    -------
    array
        Of what `convert` returns. A torch tensor that requires a gradient is a leaf. Where the library's arrays have no
        strides, only the values are those.

    Raises
    ------
    TypeError
        If `convert` makes what can't be laid out so, as a list.
    ValueError
        If it makes an array of another shape.

    Examples
    --------
    >>> x = np.arange(6.0).reshape(2, 3)
    >>> [lay_out(x, layout, np.float32).strides for layout in ("contiguous", "transposed", "sliced")]
    [(12, 4), (4, 8), (24, 8)]
    >>> lay_out(np.ones((2, 3)), "broadcast", np.float32).strides
    (0, 0)
    """
    axes = values.ndim

    def convert_all(a: np.ndarray, method: str) -> Any:
        made = convert(a)
        require_array_like(made, a.shape, layout, method)
        return made

    if layout == "broadcast" and axes:
        first = tuple(slice(1) if constant else slice(None) for constant in constant_axes(values))
        laid = broadcast(convert(np.array(values[first], order="C")), values, convert)
    elif layout == "transposed" and axes:
        laid = convert_all(np.array(values.T, order="C"), "swapaxes")
        for axis in range(axes // 2):
            laid = laid.swapaxes(axis, axes - 1 - axis)
    elif layout == "sliced" and axes:
        within = *(slice(1, None),) * (axes - 1), slice(1, None, 2)
        around = np.full([*(length + 1 for length in values.shape[:-1]), 2 * values.shape[-1]], np.nan, values.dtype)
        around[within] = values
        laid = convert_all(around, "__getitem__")[within]
    elif layout == "channels-last" and axes > 1:
        laid = convert_all(np.array(np.moveaxis(values, 1, -1), order="C"), "swapaxes")
        for axis in range(axes - 1, 1, -1):
            laid = laid.swapaxes(axis - 1, axis)
    else:
        laid = convert(np.array(values, order="C"))
    # A view of a torch tensor is no leaf, and would be given no gradient.
    return laid.detach().requires_grad_() if getattr(laid, "requires_grad", False) else laid


def lay_all(arrays: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Lay NumPy arrays out in memory."""
    return {name: lay_out(a, layout, np.asarray) for name, a in arrays.items()}


def require_array_like(made: Any, shape: tuple[int, ...], layout: str, method: str) -> None:
    """Refuse what is no array of a shape with the method by which it is laid out."""
    if not (hasattr(made, "shape") and hasattr(made, method)):
        raise TypeError(
            f"convert makes {describe_type(made)} of a NumPy array; expected an array or tensor, with shape and "
            f"{method}, to lay out as {layout!r}"
        )
    if tuple(made.shape) != shape:
        raise ValueError(
            f"convert makes an array of shape {tuple(made.shape)} of one of shape {shape}, to lay out as {layout!r}; "
            "expected the same shape"
        )


def constant_axes(values: np.ndarray) -> list[bool]:
    """Tell for each axis whether the values don't change along it; those of an axis of one element don't.

    Examples
    --------
    >>> constant_axes(np.array([[1.0, 2.0], [1.0, 2.0]]))
    [True, False]
    """
    return [
        bool((values == values.take([0] if length else [], axis)).all()) for axis, length in enumerate(values.shape)
    ]


def broadcast(few: Any, values: np.ndarray, convert: Callable[[np.ndarray], Any]) -> Any:
    """Broadcast a library's array to the shape of all values; convert these where arrays have no strides."""
    if hasattr(few, "expand"):  # torch
        return few.expand(values.shape)
    if hasattr(few, "__array_function__"):
        return np.broadcast_to(few, values.shape)
    return convert(np.array(values, order="C"))
