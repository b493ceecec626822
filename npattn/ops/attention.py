"""Softmax attention, exact, in tiles."""

from __future__ import annotations

import numpy as np

from npattn.ops.sweeping import by_rows

__all__ = ["dot_product_attention"]

LOGITS = 2**20
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
    v_rows = transpose(v).copy()  # s @ v_rows runs faster than v @ sᵀ, which reads s across its rows
    room = make_room(q, tiles, keys)
    for at, some in tiles:
        s = multiply(transpose(scaled[at][..., some]), k[at], room)
        highest, total = (np.empty_like(s, shape=s.shape[:-1]) for _ in range(2))
        by_rows(soften, s, highest, total)
        # Divided here for e numbers a query, and not for the N weights.
        o[at][..., some] = transpose(s @ v_rows[at]) / total[..., None, :]
        log_sum_exp[at][..., some] = highest + np.log(total)

    def backward(do):
        do = do.reshape(o.shape)
        dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
        k_rows = transpose(scale * k).copy()
        # Σ_n s_mn ds_mn without the weights; one channel more takes it off the products ds.
        delta = (do * o).sum(axis=-2, keepdims=True)
        more_do = np.concatenate((do, -delta), axis=-2)
        more_v = np.concatenate((v, np.ones_like(v[..., :1, :])), axis=-2)
        room, more_room = make_room(q, tiles, keys), make_room(q, tiles, keys)
        for at, some in tiles:
            s = multiply(transpose(scaled[at][..., some]), k[at], room)
            by_rows(weigh, s, log_sum_exp[at][..., some])
            dv[at] += do[at][..., some] @ s
            dz = multiply(transpose(more_do[at][..., some]), more_v[at], more_room)
            by_rows(chain, dz, s)
            dq[at][..., some] = transpose(dz @ k_rows[at])
            dk[at] += scaled[at][..., some] @ dz
        return tuple(a.reshape(shape) for a, shape in zip((dq, dk, dv), shapes, strict=True))

    return o.reshape(*shapes[0][:-2], *o.shape[-2:]), backward


def soften(s, highest, total):
    """Turn logits into weights in place; note the highest of each row and what its weights add up to."""
    highest[...] = s.real.max(axis=-1)
    weigh(s, highest)
    total[...] = s.sum(axis=-1)


def weigh(s, less):
    """Turn logits into weights in place: exp(s - less), one `less` for every row."""
    s -= less[..., None]
    np.exp(s, out=s)


def chain(dz, s):
    """Multiply the weights' gradient by the weights, in place."""
    dz *= s


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


def make_room(q, tiles, keys):
    """Make an array that the weights of every tile fit into: memory that is new to each costs as much as a product."""
    at, some = tiles[0] if tiles else (..., slice(0))
    return np.empty_like(q, shape=(*q[at].shape[:-2], q[at][..., some].shape[-1], keys))


def multiply(a, b, room):
    """Multiply matrices into the corner of an array that they fill."""
    return np.matmul(a, b, out=room[: a.shape[0], : a.shape[-2]])


def transpose(a):
    """Swap the last two axes."""
    return a.swapaxes(-1, -2)
