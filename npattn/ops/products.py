"""Products of matrices, one for every image."""

from __future__ import annotations

import math

import numpy as np

from npattn.ops.primitive import primitive
from npattn.ops.sweeping import on_cores, plain, threads

__all__ = ["gram", "matmul", "multiply"]

FEW = 9216
"""Multiplications in one product below which BLAS takes one core by itself."""
MANY = 2**22
"""Multiplications from which several cores bring more than they cost, a twentieth of a millisecond."""


@primitive
def matmul(a, b):
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
        return multiply(dc, b.swapaxes(-1, -2)), multiply(a.swapaxes(-1, -2), dc)

    return multiply(a, b), backward


@primitive
def gram(a):
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
        return multiply(dg + dg.swapaxes(-1, -2), a)

    return multiply(a, a.swapaxes(-1, -2)), backward


def multiply(a, b, out=None):
    """Multiply matrices as ``a @ b`` does, large ones in stretches, on all cores.

    BLAS would use all cores as well. But its threads keep their cores busy for a while after a product, to be quick at
    the next one, and so keep them from the sweeps that come in between.

    Parameters
    ----------
    a : array, (..., I, K)
    b : array, (..., K, J)
    out : array, (..., I, J), optional

    Returns
    -------
    array
    """
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    each = rows * inner * columns
    multiplications = math.prod(lead) * each
    if (each < FEW and multiplications < MANY) or not plain(a, b):
        return np.matmul(a, b) if out is None else np.matmul(a, b, out=out)
    c = np.empty_like(a, order="C", shape=(*lead, rows, columns)) if out is None else out
    a, b = np.broadcast_to(a, (*lead, rows, inner)), np.broadcast_to(b, (*lead, inner, columns))

    def compute(piece):
        at, i, j = piece
        np.matmul(a[at][..., i, :], b[at][..., j], out=c[at][..., i, j])

    whole, wanted = slice(None), threads()
    if multiplications < MANY:
        pieces = [((), whole, whole)]
    elif lead and max(lead) >= wanted:  # some of the products each
        pieces = [(at, whole, whole) for at in stretches(lead, wanted)]
    else:  # of every product some rows or columns
        cuts = stretches((rows, columns), -(-wanted // math.prod(lead)))
        pieces = [(at, *cut) for at in np.ndindex(lead) for cut in cuts]
    on_cores(compute, pieces, products=True)
    return c


def stretches(shape, count):
    """Cut the longest axis into stretches: what to take of all axes."""
    axis = shape.index(max(shape))
    step = -(-shape[axis] // count)
    before, behind = (slice(None),) * axis, (slice(None),) * (len(shape) - axis - 1)
    return [(*before, slice(i, min(i + step, shape[axis])), *behind) for i in range(0, shape[axis], step)]
