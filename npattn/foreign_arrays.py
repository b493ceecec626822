"""How arrays of other libraries become NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from npattn.array_checks import masked
from npattn.wording import describe_type

__all__ = ["to_host", "to_numpy"]


def to_numpy(value: Any, name: str, *, counts: bool = False) -> np.ndarray:
    """Bring an array of any library to the host as a NumPy array of floating-point numbers.

    No library is imported for it: torch, CuPy and JAX arrays are known by what they can do. bfloat16 and 8-bit floats,
    which NumPy lacks, are widened to float32, exactly.

    Parameters
    ----------
    value : array
        NumPy, CuPy or JAX array, torch tensor, or whatever speaks DLPack or ``__array__``.
    name : str
        What to call it in an error message.
    counts : bool, default False
        Whether integers and Booleans will do as well, as those of a mask; they become float64.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    TypeError
        If it is none of these, or not of floating-point numbers.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise masked(name)
    if not any(hasattr(value, protocol) for protocol in ("__array__", "__dlpack__")):
        made = ": numpy.array(...) makes one" if isinstance(value, (list, tuple, int, float, complex)) else ""
        raise TypeError(f"{name} is {describe_type(value)}; expected an array or tensor{made}")
    try:
        array = to_host(value)
    except Exception as error:  # sparse, without data, …: whatever the other library raises
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{name} is {describe_type(value)} that can't be read as a NumPy array: {reason}") from error
    if str(array.dtype).startswith(("bfloat16", "float8")):
        array = array.astype(np.float32)
    if counts and array.dtype.kind in "biu":
        array = array.astype(np.float64)
    if holds_text(array):
        raise TypeError(f"{name} holds text, of dtype {array.dtype}; expected numbers of floating point")
    if not np.issubdtype(array.dtype, np.inexact):
        raise TypeError(f"{name} has dtype {array.dtype}; expected floating point: convert it")
    return array


def to_host(value: Any) -> np.ndarray:
    """Convert an array of another library, by whatever protocol it speaks."""
    if hasattr(value, "detach"):  # torch: off the tape, to the host, out of the formats that NumPy lacks
        value = value.detach().cpu().resolve_conj().resolve_neg()
        if str(value.dtype) == "torch.bfloat16" or "float8" in str(value.dtype):
            value = value.float()
    elif hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):  # CuPy refuses implicit copies
        value = value.get()
    return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)


def holds_text(array: np.ndarray) -> bool:
    """Tell whether an array's elements are strings or bytes."""
    return array.dtype.kind in "SUT" or (
        array.dtype.kind == "O" and array.size > 0 and all(isinstance(one, (str, bytes)) for one in array.flat)
    )
