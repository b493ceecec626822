"""Attention without a softmax between queries and keys: two small products in place of a large one."""

from __future__ import annotations

from npattn.ops.attention import transpose
from npattn.ops.primitive import primitive
from npattn.ops.products import product
from npattn.typing import Array, Backward

__all__ = ["linear_attention"]


@primitive
def linear_attention(q: Array, k: Array, v: Array, scale: float = 1.0) -> tuple[Array, Backward]:
    """Let every query add up the values, each by its key's product with the query: o_m = scale Σ_n (q_m · k_n) v_n.

    The sum over keys needs no query: G = scale Σ_n v_n k_nᵀ is made once, and o_m = G q_m. So work and memory grow as
    M + N, not as M N.

    Parameters
    ----------
    q : array, (..., d, M)
        M queries. Positions stand last, as in a map.
    k : array, (..., d, N)
        N keys, with the leading axes of `q`.
    v : array, (..., e, N)
        N values.
    scale : float, default 1
        Factor of the products, such as 1/N.

    Returns
    -------
    o : array, (..., e, M)
    backward : callable
        ``backward(do)`` returns ``(dq, dk, dv)``.

    Notes
    -----
    Shen et al.: Efficient Attention, WACV 2021. ``derivations/linear_attention.md`` derives the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> q, k, v = np.array([[2.0]]), np.array([[1.0, 3.0]]), np.array([[5.0, 7.0]])
    >>> o, backward = linear_attention(q, k, v)
    >>> o
    array([[52.]])
    >>> dq, dk, dv = backward(np.array([[1.0]]))
    >>> dk, dv
    (array([[10., 14.]]), array([[2., 6.]]))
    """
    g = scale * product(v, transpose(k))

    def backward(do):
        dsum = scale * product(do, transpose(q))  # of Σ_n v_n k_nᵀ, which G is scale times
        return product(transpose(g), do), product(transpose(dsum), v), product(dsum, k)

    return product(g, q), backward
