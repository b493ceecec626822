"""Primitives that another kind of array may take over."""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["overridable"]


def overridable(primitive):
    """Let an array of another kind compute a primitive in its own way, by NumPy's protocol for functions (NEP 18).

    Parameters
    ----------
    primitive : callable
        ``primitive(x, …)``, which returns ``(value, backward)``.

    Returns
    -------
    callable
        Asks the ``__array_function__`` of `x` first; where it answers NotImplemented, as that of an ndarray and
        CuPy's do, `primitive` itself runs.
    """

    @functools.wraps(primitive)
    def public(x, *arguments, **options):
        kind = type(x)
        override = getattr(kind, "__array_function__", None)
        if kind is not np.ndarray and override is not None:
            result = override(x, public, (kind,), (x, *arguments), options)
            if result is not NotImplemented:
                return result
        return primitive(x, *arguments, **options)

    return public
