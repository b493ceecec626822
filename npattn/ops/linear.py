"""Fully connected layers."""

from __future__ import annotations

from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["linear"]


@primitive
def linear(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Backward]:
    """Map the features of each row, or token, linearly: z = x Wᵀ + b.

    Parameters
    ----------
    x : array, (..., in)
    weight : array, (out, in) or (out, in, 1, 1)
        A 1×1 convolution's kernel is the same matrix: on a pooled map the two layers are one.
    bias : array, (out,), optional

    Returns
    -------
    z : array, (..., out)
    backward : callable
        ``backward(dz)`` returns ``(dx, dweight, dbias)``, shaped as the arguments; ``dbias`` is None without a bias.

    Examples
    --------
    >>> import numpy as np
    >>> z, backward = linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0]))
    >>> z
    array([[16.]])
    >>> backward(np.array([[1.0]]))
    (array([[3., 4.]]), array([[1., 2.]]), array([1.]))
    """
    matrix = weight.reshape(weight.shape[:2])
    z = product(x, matrix.T)
    if bias is not None:
        z = z + bias

    def backward(dz):
        rows, drows = (a.reshape(-1, a.shape[-1]) for a in (x, dz))
        dweight = product(drows.T, rows).reshape(weight.shape)
        return product(dz, matrix), dweight, None if bias is None else drows.sum(axis=0)

    return z, backward
