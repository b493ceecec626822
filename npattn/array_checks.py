"""What is refused of arrays at the door: what was given, what was expected, for which name, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Complex, Integral, Real
from typing import Any

import numpy as np

from npattn.wording import brief, describe_type

__all__ = [
    "check_array",
    "check_gradient",
    "check_map",
    "check_map_size",
    "check_positions",
    "check_rows",
    "check_variance",
    "masked",
    "require_inputs",
]


def check_array(
    call: Any, name: str, value: Any, like_name: str, like: Any, *, counts: bool = False, constant: bool = False
) -> None:
    """Refuse what is no array of this machine's floating-point numbers, or differs from `like` in dtype or in kind.

    Where it `counts`, integers and booleans will do as well, as in labels and masks. A `constant` may be real beside
    complex numbers, as in a system within another whose derivative is taken by complex step. NumPy's numbers are arrays
    without axes: what NumPy makes of one by computing with it.
    """
    value, like = (np.asarray(a) if isinstance(a, np.generic) else a for a in (value, like))
    if isinstance(value, type):
        raise TypeError(f"{call}: {name} is the class {value.__module__}.{value.__qualname__}; expected an array")
    if not (hasattr(value, "__array_ufunc__") and hasattr(value, "__array_function__") and hasattr(value, "shape")):
        raise TypeError(
            f"{call}: {name} is {describe_type(value)}; expected an array that follows NumPy's dispatch protocols: "
            "numpy.asarray(...) makes one on the host, cupy.asarray(...) on a GPU"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise masked(f"{call}: {name}")
    if isinstance(value, np.matrix):
        raise TypeError(
            f"{call}: {name} is a numpy.matrix, whose * is a matrix product; expected a plain array: numpy.asarray(...)"
        )
    exact = counts and value.dtype.kind in "biu"
    if not (exact or issubclass(value.dtype.type, np.inexact)):
        raise TypeError(f"{call}: {name} has dtype {value.dtype}; expected floating point: convert it with .astype")
    if not (exact or value.dtype.isnative):
        native = value.dtype.newbyteorder("=")
        raise TypeError(
            f"{call}: {name} has dtype {value.dtype}, of another machine's byte order; expected {native}: "
            f".astype({str(native)!r}) makes it that"
        )
    if value is like:
        return
    if not (isinstance(value, type(like)) or isinstance(like, type(value))):
        raise TypeError(
            f"{call}: {name} is {describe_type(value)} but {like_name} is {describe_type(like)}; "
            "expected all on one device, in one kind of array"
        )
    beside = like.dtype.type(0).real.dtype if constant and like.dtype.kind == "c" else like.dtype
    if value.dtype not in (like.dtype, beside) and not exact:
        raise TypeError(
            f"{call}: {name} has dtype {value.dtype} but {like_name} has {like.dtype}; expected one dtype: "
            "convert one of them with .astype"
        )


def check_gradient(call: Any, name: str, gradient: Any, of: str, value: Any) -> Any:
    """Refuse what is no gradient of a value, as it differs from it in shape, dtype or kind.

    Returns
    -------
    array
        The gradient; of a value without axes any number will do, and has the dtype of the value then.
    """
    if value.shape == ():
        numbers = Complex if value.dtype.kind == "c" else Real
        if isinstance(gradient, numbers) and not isinstance(gradient, bool):
            return np.full_like(value, gradient)
        if not hasattr(gradient, "shape"):
            raise TypeError(f"{call}: {name}={brief(gradient)} is {describe_type(gradient)}; expected a number")
    check_array(call, name, gradient, of, value)
    if gradient.shape != value.shape:
        raise ValueError(f"{call}: {name} has shape {gradient.shape}; expected {of}'s, {value.shape}")
    return gradient


def masked(name: str) -> TypeError:
    """Say why a masked array is refused: no computation here would leave anything out of it."""
    return TypeError(f"{name} is a masked array, some of whose numbers don't count; expected a plain one: .filled(...)")


def require_inputs(call: Any, inputs: Sequence[Any], names: Sequence[str]) -> None:
    """Refuse another number of inputs than there are names."""
    if len(inputs) != len(names):
        raise TypeError(f"{call}: got {len(inputs)} inputs; expected {len(names)}: {', '.join(names)}")


def check_map(call: Any, name: str, value: Any) -> None:
    """Refuse what is no map (batch, channels, height, width) of floating-point numbers with at least one position."""
    check_array(call, name, value, name, value)
    if value.ndim != 4:
        raise ValueError(
            f"{call}: {name} has shape {value.shape}; expected 4 axes, (batch, channels, height, width)"
            + (
                f"; a single image needs a batch axis: {name}[None]; tokens (batch, positions, channels) become one by "
                f"{name}.transpose(0, 2, 1).reshape(batch, channels, height, width)"
                if value.ndim == 3
                else ""
            )
        )
    if value.shape[2] == 0 or value.shape[3] == 0:
        raise ValueError(f"{call}: {name} has shape {value.shape}; expected at least one position")


def check_map_size(call: Any, inputs: Sequence[Any], size: tuple[int, int], what: str) -> None:
    """Refuse a map of another size than a system has parameters for, if it is a map of its channels at all."""
    for x in inputs[:1]:
        check_map(call, "x", x)
        if x.shape[1] == call.channels and tuple(x.shape[2:]) != size:
            raise ValueError(
                f"{call}: x has shape {x.shape}; expected a map of {size[0]} × {size[1]}, for which {what}: resize the "
                f"map, or set feat_size={tuple(x.shape[2:])}"
            )


def check_variance(call: Any, x: Any, name: str = "x") -> None:
    """Refuse a map whose channels have a single value in the whole batch: batch norm can't learn a variance from it."""
    if x.shape[0] * x.shape[2] * x.shape[3] < 2:
        raise ValueError(
            f"{call}: {name} has shape {x.shape}; expected at least two values in each channel for the variance that "
            "batch norm takes in training: give more images or positions, or set training=False"
        )


def check_positions(call: str, rows: Any, size: tuple[int, int]) -> list[int]:
    """Refuse `rows` that are no sequence of positions of a map of height × width, as `check_rows` does."""
    height, width = size
    hint = f": row r and column c of the map of {height} × {width} are position {width} r + c"
    return check_rows(call, rows, "positions", height * width, hint)


def check_rows(call: str, rows: Any, noun: str, count: int, hint: str = "") -> list[int]:
    """Refuse `rows` that are no sequence of what there are so many of; return a list of ints.

    Raises
    ------
    TypeError
        If it is no sequence, or not of integers.
    ValueError
        If one is none of them.
    """
    try:
        rows = list(rows)
    except TypeError:
        raise TypeError(
            f"{call}: rows={brief(rows)} is {describe_type(rows)}; expected a sequence of {noun}: [{brief(rows)}]"
        ) from None
    for row in rows:
        if isinstance(row, bool) or not isinstance(row, Integral):
            raise TypeError(f"{call}: rows holds {brief(row)}, {describe_type(row)}; expected ints")
        if not 0 <= int(row) < count:
            raise ValueError(f"{call}: rows holds {brief(row)}; expected {noun} from 0 to {count - 1}{hint}")
    return [int(row) for row in rows]
