"""Softmax attention, exact, in tiles."""

from __future__ import annotations

import numpy as np

__all__ = ["dot_product_attention"]

LOGITS = 2**21
"""Logits in a tile: few enough to stay in the cache from one sweep over them to the next."""
QUERIES = 256
"""Queries in a tile at least: every tile adds to all of dk and dv, which has to serve many queries to be worth it."""


def dot_product_attention(q, k, v, scale=1.0):
    """Let every query average the values, weighted by the softmax of its products with the keys.

    o_m = Σ_n s_mn v_n with s_mn = exp(scale q_m · k_n) / Σ_i exp(scale q_m · k_i). The M × N weights are never held:
    forward and backward make them anew, a tile at a time, so memory grows as M + N.

    Parameters
    ----------
    q : array, (..., d, M)
        M queries. Positions stand last, as in a map.
    k : array, (..., d, N)
        N ≥ 1 keys, with the leading axes of `q`: images, heads.
    v : array, (..., e, N)
        N values.
    scale : float, default 1
        Factor of the products, such as 1/√d.

    Returns
    -------
    o : array, (..., e, M)
    backward : callable
        ``backward(do)`` returns ``(dq, dk, dv)``.

    Notes
    -----
    Of the forward pass one number is kept for each query, the log-sum-exp l_m of its logits; a weight is
    exp(z_mn - l_m). This is the scheme of Dao et al., FlashAttention, NeurIPS 2022, with tiles of whole rows.
    ``derivations/dot_product_attention.md`` derives it.

    Examples
    --------
    >>> q, k, v = np.array([[1.0]]), np.log([[1.0, 3.0]]), np.array([[0.0, 4.0]])
    >>> o, backward = dot_product_attention(q, k, v)
    >>> o
    array([[3.]])
    >>> dq, dk, dv = backward(np.array([[1.0]]))
    >>> dk, dv
    (array([[-0.75,  0.75]]), array([[0.25, 0.75]]))
    """
    shapes = q.shape, k.shape, v.shape
    lead, queries, keys = q.shape[:-2] or (1,), q.shape[-1], k.shape[-1]
    q, k, v = (a.reshape(*lead, *a.shape[-2:]) for a in (q, k, v))
    scaled = scale * q
    o = np.empty_like(q, shape=(*lead, v.shape[-2], queries))
    log_sum_exp = np.empty_like(q, shape=(*lead, queries))
    tiles = cut(lead, queries, keys)
    for at, some in tiles:
        s = transpose(scaled[at][..., some]) @ k[at]
        highest = s.real.max(axis=-1, keepdims=True)
        s -= highest
        np.exp(s, out=s)
        total = s.sum(axis=-1)
        average = v[at] @ transpose(s)
        average /= total[..., None, :]  # here for e numbers a query, and not for the N weights
        o[at][..., some] = average
        log_sum_exp[at][..., some] = highest[..., 0] + np.log(total)

    def backward(do):
        do = do.reshape(o.shape)
        dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        delta = (do * o).sum(axis=-2)  # Σ_n s_mn ds_mn, without the weights
        for at, some in tiles:
            s = transpose(scaled[at][..., some]) @ k[at]
            s -= log_sum_exp[at][..., some][..., None]
            np.exp(s, out=s)
            dv[at] += do[at][..., some] @ s
            dz = transpose(do[at][..., some]) @ v[at]
            dz -= delta[at][..., some][..., None]
            dz *= s
            dq[at][..., some] = scale * (k[at] @ transpose(dz))
            dk[at] += scaled[at][..., some] @ dz
        return tuple(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True))

    return o.reshape(*shapes[0][:-2], *o.shape[-2:]), backward


def cut(lead, queries, keys):
    """Cut the work into tiles: what to take of the leading axes, and which queries.

    A tile is a block of some queries of one image or head with all their keys; where that is little, of several.
    """
    some = max(1, min(queries, max(QUERIES, LOGITS // keys)))
    several = max(1, LOGITS // (some * keys))
    return [
        ((*outer, slice(i, i + several)), slice(m, m + some))
        for outer in np.ndindex(lead[:-1])
        for i in range(0, lead[-1], several)
        for m in range(0, queries, some)
    ]


def transpose(a):
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)
