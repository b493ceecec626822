"""Scalars of NumPy, which lift arrays to their own dtype, as Python's, which take the dtype of arrays they meet."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["python_scalar"]


def python_scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or a tuple or list of some, as Python's; what has no type there, and all else, stays.

    An array without axes is a scalar too.

    Examples
    --------
    >>> python_scalar(np.sqrt(np.float32(4))), python_scalar((np.int64(7), 7)), python_scalar(np.array(True))
    (2.0, (7, 7), True)
    >>> python_scalar(np.longdouble(1)).dtype == np.longdouble
    True
    """
    if isinstance(value, np.generic) or (type(value) is np.ndarray and not value.ndim):
        python = value.item() if value.dtype.kind in "biufU" else value
        return python if isinstance(python, (bool, int, float, str)) else value
    if type(value) in (tuple, list) and any(isinstance(one, np.generic | np.ndarray | tuple | list) for one in value):
        return type(value)(map(python_scalar, value))
    return value
