"""Products of matrices, one for every image."""

from __future__ import annotations

from npattn.ops.primitive import primitive
from npattn.typing import Array, Backward

__all__ = ["gram", "matmul", "product"]


@primitive
def matmul(a: Array, b: Array) -> tuple[Array, Backward]:
    """Multiply matrices: c_ij = Σ_k a_ik b_kj.

    Parameters
    ----------
    a : array, (..., I, K)
    b : array, (..., K, J)
        With the leading axes of `a`.

    Returns
    -------
    c : array, (..., I, J)
    backward : callable
        ``backward(dc)`` returns ``(da, db)``.

    Examples
    --------
    >>> import numpy as np
    >>> c, backward = matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    >>> c
    array([[11.]])
    >>> backward(np.array([[1.0]]))
    (array([[3., 4.]]), array([[1.],
           [2.]]))
    """

    def backward(dc):
        return product(dc, b.swapaxes(-1, -2)), product(a.swapaxes(-1, -2), dc)

    return product(a, b), backward


@primitive
def gram(a: Array) -> tuple[Array, Backward]:
    """Multiply every row with every row: g_ij = Σ_k a_ik a_jk.

    Parameters
    ----------
    a : array, (..., I, K)

    Returns
    -------
    g : array, (..., I, I)
    backward : callable
        ``backward(dg)`` returns ``da``. A row stands on both sides of the product, so dg need not be symmetric, but
        its symmetric part alone counts.

    Examples
    --------
    >>> import numpy as np
    >>> g, backward = gram(np.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> g
    array([[ 5., 11.],
           [11., 25.]])
    >>> backward(np.array([[0.0, 1.0], [0.0, 0.0]]))
    array([[3., 4.],
           [1., 2.]])
    """

    def backward(dg):
        return product(dg + dg.swapaxes(-1, -2), a)

    return product(a, a.swapaxes(-1, -2)), backward


@primitive
def product(a: Array, b: Array) -> Array:
    """Multiply matrices, c_ij = Σ_k a_ik b_kj: the step of `matmul`, of convolutions and of attention.

    Parameters
    ----------
    a : array, (..., I, K)
    b : array, (..., K, J)
        Leading axes are broadcast.

    Returns
    -------
    array, (..., I, J)

    Examples
    --------
    >>> import numpy as np
    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    return a @ b
